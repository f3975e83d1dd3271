/* kept power: how many samples a verdict takes. */
#include "bench/stats.h"
#include "cli/cli.h"

#include <math.h>

enum { MAX_LIST = 8 };

static const char help[] =
    "usage: kept power [--margin LIST] [--flips LIST] [--level P] [--power P] [--samples N]\n"
    "Samples that show non-inferiority at a margin when nothing really changes (paired, "
    "one-sided),\n"
    "by how many of the samples the two rows answer differently. Computed, nothing is run.\n\n"
    "  --margin LIST   points of score [5,3,2,1]\n"
    "  --flips LIST    percent of samples whose answers disagree [2,5,10,20]\n"
    "  --level P       of the bound, in percent [95]    --power P   chance to show it [80]\n"
    "  --samples N     also: the smallest margin that N samples can show\n\n"
    "examples\n"
    "  kept power\n"
    "  kept power --margin 1 --flips 4 --power 90\n";

typedef struct power_args {
    double margin[MAX_LIST], flips[MAX_LIST];
    int n_margins, n_flips;
    double level, power;
    int64_t samples;
} power_args;

/* An exit code, or -1: go on. */
static int parse(power_args *p, int argc, char **argv)
{
    static const kept_flag flags[] = {
        {"margin", true}, {"flips", true}, {"level", true}, {"power", true}, {"samples", true}};
    static const double percent[2] = {0.0001, 100};
    kept_args a = {argc, argv, 1, false, NULL};
    for (int f; (f = kept_args_next(&a, flags, 5)) != KEPT_ARG_END;) {
        if (f == KEPT_ARG_HELP) {
            fputs(help, stdout);
            return KEPT_EXIT_OK;
        }
        if (f == KEPT_ARG_WORD)
            return kept_usage("power", "unexpected argument '%s'", a.value);
        if (f == KEPT_ARG_ERROR ||
            (f == 0 &&
             !kept_args_numbers(&a, "margin", percent, p->margin, MAX_LIST, &p->n_margins)) ||
            (f == 1 && !kept_args_numbers(&a, "flips", percent, p->flips, MAX_LIST, &p->n_flips)) ||
            (f == 2 && !kept_args_number(&a, "level", 50.1, 99.999, &p->level)) ||
            (f == 3 && !kept_args_number(&a, "power", 50.1, 99.999, &p->power)) ||
            (f == 4 && !kept_args_int(&a, "samples", 2, 1000000000, &p->samples)))
            return KEPT_EXIT_USAGE;
    }
    return -1;
}

int kept_cmd_power(int argc, char **argv)
{
    power_args p = {{5, 3, 2, 1}, {2, 5, 10, 20}, 4, 4, 95, 80, 0};
    const int code = parse(&p, argc, argv);
    if (code >= 0)
        return code;
    printf("samples for a margin of   ");
    for (int m = 0; m < p.n_margins; m++)
        printf("%8.4g pt", p.margin[m]);
    printf("\n");
    for (int f = 0; f < p.n_flips; f++) {
        printf("  %6.4g%% disagree        ", p.flips[f]);
        for (int m = 0; m < p.n_margins; m++)
            printf("%11.0f", kept_samples_needed(p.flips[f] / 100, p.margin[m] / 100, p.level / 100,
                                                 p.power / 100));
        if (p.samples) {
            const double z =
                kept_normal_quantile(p.level / 100) + kept_normal_quantile(p.power / 100);
            printf("   %lld show %.3g pt", (long long)p.samples,
                   100 * z * sqrt(p.flips[f] / 100 / (double)p.samples));
        }
        printf("\n");
    }
    printf("one-sided level %.4g%%, power %.4g%%, no true change\n", p.level, p.power);
    return KEPT_EXIT_OK;
}
