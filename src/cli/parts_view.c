/* parts_view: see parts_view.h. */
#include "cli/parts_view.h"
#include "cli/cli.h"

#include <math.h>

#define INDENT 14

static void print_option(const kept_option *o)
{
    char lead[64], text[512];
    size_t n = 0;
    snprintf(lead, sizeof lead, "  %s ", o->name);
    if (o->choices) {
        n += (size_t)snprintf(text, sizeof text, "%s (", o->choices[(int)o->value]);
        for (int i = 0; o->choices[i] && n < sizeof text; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i ? ", " : "", o->choices[i]);
        if (n < sizeof text)
            snprintf(text + n, sizeof text - n, "): %s", o->help);
    } else {
        if (!isnan(o->value))
            n += (size_t)snprintf(text, sizeof text, "%.9g ", o->value);
        snprintf(text + n, sizeof text - n, "(%s%s%.9g to %.9g): %s",
                 isnan(o->value) ? "must be given, " : "", o->integer ? "whole, " : "", o->min,
                 o->max, o->help);
    }
    kept_print_wrapped(stdout, INDENT, lead, text);
}

static void print_options(const kept_option *options, int n)
{
    if (n)
        printf("options       default (range): meaning\n");
    for (int i = 0; i < n; i++)
        print_option(&options[i]);
}

void kept_source_print(const char *paper, const char *deviations)
{
    if (paper && *paper)
        kept_print_wrapped(stdout, INDENT, "paper", paper);
    if (deviations && *deviations)
        kept_print_wrapped(stdout, INDENT, "deviations", deviations);
}

void kept_part_print(const kept_part *p)
{
    kept_profile profile;
    kept_part_profile(p, NULL, &profile);
    kept_print_wrapped(stdout, INDENT, p->name, p->summary);
    printf("%-*s%s\n", INDENT, "axis", kept_axis_name(p->axis));
    kept_source_print(p->paper, p->deviations);
    if (*profile.family)
        printf("%-*s%s\n", INDENT, "family", profile.family);
    if (*profile.needs)
        kept_print_wrapped(stdout, INDENT, "needs", profile.needs);
    if (*profile.family)
        printf("%-*s%s%s%s\n", INDENT, "cost", profile.cost, *profile.state ? "; holds " : "",
               profile.state);
    if (p->axis == KEPT_AXIS_SCORE) {
        const kept_score *s = (const kept_score *)(const void *)p;
        kept_print_wrapped(stdout, INDENT, "values",
                           s->layer_shared ? "one per token and layer: all heads keep the same"
                           : s->comparable ? "on one scale over heads"
                                           : "of each head on a scale of its own");
    }
    print_options(p->options, p->n_options);
}

void kept_recipe_print(const kept_recipe *r)
{
    kept_print_wrapped(stdout, INDENT, r->name, r->summary);
    printf("%-*s%s\n", INDENT, "axis", "recipe");
    kept_print_wrapped(stdout, INDENT, "stands for", r->spec);
    kept_source_print(r->paper, r->deviations);
    print_options(r->options, r->n_options);
}
