/* kept compare: verdicts with an exit code. */
#include "bench/compare.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "report/report.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* 0, 1 and 2 are verdicts. */
enum { EXIT_COMPARE_USAGE = 64, EXIT_COMPARE_DATA = 65, MOST_WORDS = 34 };

static const char help[] =
    "usage: kept compare FILE              every strategy against the full cache\n"
    "       kept compare FILE ROW          this row against the full cache\n"
    "       kept compare FILE ROW1 ROW2... row 2, and every further one, against row 1\n"
    "       kept compare FILE1 FILE2...    the rows that both have, every further file against "
    "file 1\n"
    "Is it as good? Paired by prompt; FILE is a result (.json) or a study. Lists what flipped.\n\n"
    "  --margin PT       how much worse in score still counts as good, in points [1]\n"
    "  --nll-margin X    the same for NLL, in nats per token [0.01]\n"
    "  --level P         of the one-sided bounds, in percent [95]\n"
    "  --ladder          budgets of one strategy from the largest down, each one only if the one\n"
    "                    before it holds: then their number costs nothing\n"
    "  --common          leave out prompts that only one file has, instead of refusing\n"
    "  --guarantee PT    instead: the largest eviction of each strategy whose mean loss is at "
    "most\n"
    "                    PT points, with probability 100 - DELTA percent\n"
    "  --delta P         for --guarantee, in percent [5]\n"
    "  --flips N         flips listed for each row [5]   --format table|json   [table]\n"
    "  --setting N       which setting, where a study has several\n\n"
    "Exit codes: 0 every row is non-inferior, 1 one is worse, 2 inconclusive, 64 usage, 65 a file\n"
    "cannot be read or compared. With --guarantee: 0 every strategy has a budget that holds, else "
    "2.\n\n"
    "examples\n"
    "  kept compare r.json 'snapkv@20%' --margin 2\n"
    "  kept compare main.db branch.db && echo 'as good as before'\n";

typedef struct compare_args {
    const char *word[MOST_WORDS];
    int n_words;
    double margin, nll_margin, level, guarantee, delta;
    int64_t flips, setting;
    bool common, ladder, json;
} compare_args;

/* False: the message is on stderr. */
static bool take_flag(compare_args *c, kept_args *a, int flag)
{
    switch (flag) {
    case 0:
        return kept_args_number(a, "margin", 0, 100, &c->margin);
    case 1:
        return kept_args_number(a, "nll-margin", 0, 100, &c->nll_margin);
    case 2:
        return kept_args_number(a, "level", 50.1, 99.999, &c->level);
    case 3:
        c->common = true;
        return true;
    case 4:
        return kept_args_number(a, "guarantee", 0.001, 99, &c->guarantee);
    case 5:
        return kept_args_number(a, "delta", 0.0001, 50, &c->delta);
    case 6:
        return kept_args_int(a, "flips", 0, 1000000, &c->flips);
    case 7:
        return kept_args_json(a, &c->json);
    case 8:
        return kept_args_int(a, "setting", 1, INT64_MAX, &c->setting);
    default:
        c->ladder = true;
        return true;
    }
}

/* An exit code, or -1: go on. */
static int parse(compare_args *c, int argc, char **argv)
{
    static const kept_flag flags[] = {
        {"margin", true},    {"nll-margin", true}, {"level", true}, {"common", false},
        {"guarantee", true}, {"delta", true},      {"flips", true}, {"format", true},
        {"setting", true},   {"ladder", false},
    };
    kept_args a = {argc, argv, 1, false, NULL};
    for (int f; (f = kept_args_next(&a, flags, sizeof flags / sizeof *flags)) != KEPT_ARG_END;) {
        if (f == KEPT_ARG_HELP) {
            fputs(help, stdout);
            return KEPT_EXIT_OK;
        }
        if (f == KEPT_ARG_WORD && c->n_words == MOST_WORDS)
            kept_usage("compare", "unexpected argument '%s'", a.value);
        else if (f == KEPT_ARG_WORD)
            c->word[c->n_words++] = a.value;
        if (f == KEPT_ARG_ERROR || (f == KEPT_ARG_WORD && a.value != c->word[c->n_words - 1]) ||
            (f >= 0 && !take_flag(c, &a, f)))
            return EXIT_COMPARE_USAGE;
    }
    if (c->n_words)
        return -1;
    kept_usage("compare", "what to compare is missing");
    return EXIT_COMPARE_USAGE;
}

static int fail(kept_status s, const kept_error *err)
{
    (void)s;
    kept_failed("compare", "%s", err->text);
    return EXIT_COMPARE_DATA;
}

static int print_guarantees(const compare_args *c, const json_t *doc)
{
    json_t *list = NULL;
    const json_t *ladder;
    kept_error err;
    size_t i;
    int code = KEPT_EXIT_OK;
    kept_status s = kept_guarantees(doc, c->guarantee / 100, c->delta / 100, &list, &err);
    if (s)
        return fail(s, &err);
    json_array_foreach(list, i, ladder) if (json_is_null(json_object_get(ladder, "best"))) code = 2;
    if (!json_array_size(list)) {
        kept_failed("compare", "%s: no strategy was run on an answered task", c->word[0]);
        code = EXIT_COMPARE_DATA;
    } else if (c->json) {
        (void)kept_report_json(list, stdout);
    } else {
        (void)kept_report_guarantees(list, stdout, c->guarantee / 100, c->delta / 100);
    }
    json_decref(list);
    return code;
}

static int print_verdicts(const compare_args *c, const kept_compare_options *o, int n)
{
    static const int codes[] = {[KEPT_NON_INFERIOR] = 0, [KEPT_WORSE] = 1, [KEPT_INCONCLUSIVE] = 2};
    json_t *doc = NULL;
    kept_error err;
    kept_status s = kept_compare_all(o, n, &doc, &err);
    if (s)
        return fail(s, &err);
    if (c->json)
        (void)kept_report_json(doc, stdout);
    else
        (void)kept_report_compare(doc, stdout, (int)c->flips);
    const int code = codes[kept_compare_verdict(doc)];
    json_decref(doc);
    return code;
}

/* What comparison k sets against the first file or row: o->after is there. */
static void choose(const compare_args *c, bool files, int k, kept_compare_options *o)
{
    o->before_name = c->word[0];
    o->after_name = c->word[files ? k + 1 : 0];
    o->before_row = !files && c->n_words > 2 ? c->word[1] : NULL;
    o->after_row = files || c->n_words < 2 ? NULL : c->word[c->n_words > 2 ? k + 2 : 1];
    o->margin = c->margin / 100;
    o->nll_margin = c->nll_margin;
    o->level = c->level / 100;
    o->ladder = c->ladder;
    o->common = c->common;
}

int kept_cmd_compare(int argc, char **argv)
{
    compare_args c = {.margin = 1, .nll_margin = 0.01, .level = 95, .delta = 5, .flips = 5};
    int code = parse(&c, argc, argv);
    if (code >= 0)
        return code;
    const bool files = c.n_words > 1 && !access(c.word[1], F_OK);
    const int n = files ? c.n_words - 1 : c.n_words > 2 ? c.n_words - 2 : 1;
    kept_compare_options o[MOST_WORDS] = {{0}};
    json_t *doc[MOST_WORDS] = {NULL};
    kept_error err;
    kept_status s = KEPT_OK;
    for (int i = 0; i < (files ? c.n_words : 1) && !s; i++)
        s = kept_load_result(c.word[i], c.setting, &doc[i], &err);
    for (int k = 0; k < n; k++) {
        o[k].before = doc[0];
        o[k].after = doc[files ? k + 1 : 0];
        choose(&c, files, k, &o[k]);
    }
    if (s)
        code = fail(s, &err);
    else if (c.guarantee > 0)
        code = print_guarantees(&c, doc[0]);
    else
        code = print_verdicts(&c, o, n);
    for (int i = 0; i < MOST_WORDS; i++)
        json_decref(doc[i]);
    return code;
}
