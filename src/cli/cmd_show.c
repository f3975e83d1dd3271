/* show: a spec resolved, or one part or recipe by its name. */
#include "cli/cli.h"
#include "cli/parts_view.h"
#include "policy/parts.h"

#include <string.h>

#define INDENT 14

static const kept_part *find_part(const char *name)
{
    for (int a = 0; a < KEPT_N_AXES; a++) {
        const kept_part *p = kept_part_find((kept_axis)a, name);
        if (p)
            return p;
    }
    return NULL;
}

static const kept_recipe *find_recipe(const char *name)
{
    for (int i = 0; i < kept_recipe_count(); i++)
        if (!strcmp(kept_recipe_at(i)->name, name))
            return kept_recipe_at(i);
    return NULL;
}

static void print_budget(const kept_strategy *s)
{
    char text[160], size[32];
    switch (s->budget_kind) {
    case KEPT_BUDGET_NONE:
        snprintf(text, sizeof text, "none: nothing is evicted");
        break;
    case KEPT_BUDGET_PERCENT:
        snprintf(text, sizeof text, "%.9g%% of the K/V bytes that the full cache holds", s->budget);
        break;
    case KEPT_BUDGET_TOKENS:
        snprintf(text, sizeof text, "%.0f tokens per KV head on average, protected ones included",
                 s->budget);
        break;
    case KEPT_BUDGET_BYTES:
        snprintf(text, sizeof text, "%s of K/V per sequence",
                 kept_format_bytes((uint64_t)s->budget, size, sizeof size));
        break;
    }
    kept_print_wrapped(stdout, INDENT, "budget", text);
}

static void print_acts(const kept_strategy *s)
{
    char text[240];
    const kept_when w = kept_strategy_when(s);
    int n = snprintf(text, sizeof text, "%s",
                     w.chunks     ? "after every prefill chunk (the peak is bounded)"
                     : w.layers   ? "each layer once the whole prompt is through it (the peak is "
                                    "bounded)"
                     : w.pressure ? "when the page pool runs short, and not before; of all such "
                                    "sequences the one that holds most of its budget"
                                  : "when the prompt is in (the peak is that of the full cache)");
    if (w.turns)
        n += snprintf(text + n, sizeof text - (size_t)n, ", then at the end of every turn");
    if (w.every == 1)
        n += snprintf(text + n, sizeof text - (size_t)n, ", then after every decode step");
    else if (w.every)
        n += snprintf(text + n, sizeof text - (size_t)n, ", then every %d decode steps", w.every);
    if (w.slack)
        snprintf(text + n, sizeof text - (size_t)n,
                 "; not while heads hold at most %d slots above the budget on average", w.slack);
    kept_print_wrapped(stdout, INDENT, "evicts", text);
}

static void print_packs(const kept_strategy *s)
{
    const kept_when w = kept_strategy_when(s);
    kept_print_wrapped(stdout, INDENT, "packs",
                       w.chunks   ? "pages as they fill, while the prompt is read too (the peak is "
                                    "bounded)"
                       : w.layers ? "each layer once the prompt is through it, then pages as they "
                                    "fill"
                                  : "the prompt's pages when it is in, then pages as they fill");
}

/* What every part of s asks for, once each is named. */
static void print_needs(const kept_strategy *s)
{
    char text[512] = "";
    for (int a = 0; a < KEPT_N_AXES; a++) {
        kept_profile p;
        kept_part_profile(s->part[a], s->option[a], &p);
        size_t n = strlen(text);
        if (*p.needs && a != KEPT_AXIS_SCORE)
            snprintf(text + n, sizeof text - n, "%s%s (for %s)", n ? ", " : "", p.needs,
                     s->part[a]->name);
        else if (*p.needs)
            snprintf(text + n, sizeof text - n, "%s", p.needs);
    }
    kept_print_wrapped(stdout, INDENT, "needs", *text ? text : "nothing but positions");
}

static void print_axis(const kept_strategy *s, kept_axis a)
{
    const kept_part *p = s->part[a];
    char head[160];
    snprintf(head, sizeof head, "%s: %s", p->name, p->summary);
    putchar('\n');
    kept_print_wrapped(stdout, INDENT, kept_axis_name(a), head);
    for (int i = 0; i < p->n_options; i++) {
        const kept_option *o = &p->options[i];
        double x = s->option[a][i];
        printf("%*s", INDENT, "");
        if (o->choices)
            printf("%s=%s", o->name, o->choices[(int)x]);
        else
            printf("%s=%.9g", o->name, x);
        printf("%s\n", x == kept_part_fallback(p, s->option[a], i) ? "" : " (not the default)");
    }
    kept_source_print(p->paper, p->deviations);
}

/* What a controller switches between. Each state's own spec shows the rest. */
static void print_states(const kept_strategy *s)
{
    for (int i = 0; i < s->n_states; i++) {
        const kept_strategy *t = s->state[i];
        putchar('\n');
        kept_print_wrapped(stdout, INDENT, kept_strategy_controller(s)->states[i],
                           kept_strategy_name(t));
        print_budget(t);
        if (kept_strategy_is_full(t))
            continue;
        print_acts(t);
        print_needs(t);
    }
}

static void print_strategy(const kept_strategy *s)
{
    printf("%-*s%s\n%-*s%s\n", INDENT, "spec", kept_strategy_name(s), INDENT, "resolved",
           kept_strategy_resolved(s));
    if (s->n_states) {
        print_axis(s, KEPT_AXIS_CONTROLLER);
        print_axis(s, KEPT_AXIS_READ);
        print_states(s);
        return;
    }
    print_budget(s);
    if (!kept_strategy_is_full(s)) {
        print_acts(s);
        print_needs(s);
    }
    if (kept_strategy_packs(s))
        print_packs(s);
    for (int a = 0; a < KEPT_N_AXES; a++)
        if (kept_strategy_takes(s, (kept_axis)a))
            print_axis(s, (kept_axis)a);
}

static int show(const char *text)
{
    kept_error err;
    kept_strategy *s = NULL;
    const kept_part *part = find_part(text);
    const kept_recipe *recipe = find_recipe(text);
    if (recipe) {
        kept_recipe_print(recipe);
        return KEPT_EXIT_OK;
    }
    if (part) {
        kept_part_print(part);
        return KEPT_EXIT_OK;
    }
    if (kept_strategy_parse(text, &s, &err))
        return kept_usage_spec("show", text, &err);
    print_strategy(s);
    kept_strategy_free(s);
    return KEPT_EXIT_OK;
}

int kept_cmd_show(int argc, char **argv)
{
    kept_args a = {argc, argv, 1, false, NULL};
    const char *spec = NULL;
    int f;
    while ((f = kept_args_next(&a, NULL, 0)) == KEPT_ARG_WORD) {
        if (spec)
            return kept_usage("show", "takes one spec, got '%s' too; quote a spec with brackets",
                              a.value);
        spec = a.value;
    }
    if (f == KEPT_ARG_HELP)
        return kept_help_print("show");
    if (f != KEPT_ARG_END)
        return KEPT_EXIT_USAGE;
    return spec ? show(spec) : kept_usage("show", "needs a spec or a name from 'kept ls'");
}
