/* ls: every part that a spec may name, by axis, and the recipes. Reads the registry only, so a new
 * part shows up by itself. */
#include "cli/cli.h"
#include "cli/parts_view.h"

#include <string.h>

#define NAME 26

static void print_line(const char *name, const char *summary, const char *needs)
{
    char lead[128], text[512];
    snprintf(lead, sizeof lead, "  %-*s ", NAME - 3, name);
    snprintf(text, sizeof text, "%s%s%s%s", summary, *needs ? " [" : "", needs, *needs ? "]" : "");
    kept_print_wrapped(stdout, NAME, lead, text);
}

typedef struct filter {
    const char *axis, *family, *cost, *needs, *without; /* NULL: any */
} filter;

static const char *const families[] = {"window",  "attention", "keys",       "passes",
                                       "learned", "oracle",    "allocation", NULL};
static const char *const costs[] = {"none", "state", "rows", "queries", "passes", NULL};

static bool shown(const filter *f, const kept_profile *p)
{
    return (!f->family || !strcmp(f->family, p->family)) &&
           (!f->cost || (*p->family && !strcmp(f->cost, p->cost))) &&
           (!f->needs || strstr(p->needs, f->needs)) &&
           (!f->without || (*p->family && !strstr(p->needs, f->without)));
}

/* Prints the parts of an axis that f lets through, under a heading; false: there is none. */
static bool print_axis(const filter *f, kept_axis axis, bool first)
{
    kept_profile profile;
    bool any = false;
    for (int i = 0; i < kept_part_count(); i++) {
        const kept_part *p = kept_part_at(i);
        kept_part_profile(p, NULL, &profile);
        if (p->axis != axis || !shown(f, &profile))
            continue;
        if (!any)
            printf("%s%s\n", first ? "" : "\n", kept_axis_name(axis));
        any = true;
        print_line(p->name, p->summary, profile.needs);
    }
    return any;
}

static void print_recipes(bool first)
{
    char text[400];
    printf("%srecipe\n", first ? "" : "\n");
    for (int i = 0; i < kept_recipe_count(); i++) {
        const kept_recipe *r = kept_recipe_at(i);
        snprintf(text, sizeof text, "%s = %s", r->summary, r->spec);
        print_line(r->name, text, "");
    }
}

static int list(const filter *f)
{
    bool filtered = f->family || f->cost || f->needs || f->without, any = false;
    for (int a = 0; a < KEPT_N_AXES; a++)
        if (!f->axis || !strcmp(f->axis, kept_axis_name((kept_axis)a)))
            any |= print_axis(f, (kept_axis)a, !any);
    if (!filtered && (!f->axis || !strcmp(f->axis, "recipe"))) {
        print_recipes(!any);
        any = true;
    }
    if (!any)
        printf("nothing is of that kind; 'kept ls' lists all\n");
    else if (!f->axis)
        printf("\n[...]: what it needs from the engine. 'kept show NAME' prints the rest.\n");
    return KEPT_EXIT_OK;
}

/* word must be one of the n names. */
static int check_word(const char *what, const char *word, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (!word || !strcmp(word, names[i]))
            return KEPT_EXIT_OK;
    int near = kept_nearest(word, strlen(word), names, n);
    char all[200] = "";
    for (int i = 0; i < n; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "", names[i]);
    return near >= 0
               ? kept_usage("ls", "unknown %s '%s', did you mean '%s'?", what, word, names[near])
               : kept_usage("ls", "unknown %s '%s'; there are: %s", what, word, all);
}

static int check(const filter *f)
{
    const char *names[KEPT_N_AXES + 1];
    for (int a = 0; a < KEPT_N_AXES; a++)
        names[a] = kept_axis_name((kept_axis)a);
    names[KEPT_N_AXES] = "recipe";
    int code = check_word("axis", f->axis, names, KEPT_N_AXES + 1);
    if (code == KEPT_EXIT_OK)
        code = check_word("family", f->family, families,
                          (int)(sizeof families / sizeof *families) - 1);
    if (code == KEPT_EXIT_OK)
        code = check_word("cost", f->cost, costs, (int)(sizeof costs / sizeof *costs) - 1);
    return code;
}

int kept_cmd_ls(int argc, char **argv)
{
    static const kept_flag flags[] = {
        {"family", true}, {"cost", true}, {"needs", true}, {"without", true}};
    kept_args a = {argc, argv, 1, false, NULL};
    filter f = {0};
    const char **const value[] = {&f.family, &f.cost, &f.needs, &f.without};
    int i;
    while ((i = kept_args_next(&a, flags, 4)) >= 0 || i == KEPT_ARG_WORD) {
        if (i >= 0) {
            *value[i] = a.value;
        } else if (f.axis) {
            return kept_usage("ls", "takes one axis, got '%s' too", a.value);
        } else {
            f.axis = a.value;
        }
    }
    if (i == KEPT_ARG_HELP)
        return kept_help_print("ls");
    if (i != KEPT_ARG_END)
        return KEPT_EXIT_USAGE;
    int code = check(&f);
    return code == KEPT_EXIT_OK ? list(&f) : code;
}
