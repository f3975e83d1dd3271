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

static void print_axis(kept_axis axis)
{
    char needs[160];
    printf("%s\n", kept_axis_name(axis));
    for (int i = 0; i < kept_part_count(); i++) {
        const kept_part *p = kept_part_at(i);
        if (p->axis == axis)
            print_line(p->name, p->summary, kept_part_needs(p, needs, sizeof needs));
    }
}

static void print_recipes(void)
{
    char text[400];
    printf("recipe\n");
    for (int i = 0; i < kept_recipe_count(); i++) {
        const kept_recipe *r = kept_recipe_at(i);
        snprintf(text, sizeof text, "%s = %s", r->summary, r->spec);
        print_line(r->name, text, "");
    }
}

static int list(const char *axis)
{
    const char *names[KEPT_N_AXES + 1];
    for (int a = 0; a < KEPT_N_AXES; a++)
        names[a] = kept_axis_name((kept_axis)a);
    names[KEPT_N_AXES] = "recipe";
    bool found = false;
    for (int a = 0; a <= KEPT_N_AXES; a++) {
        if (axis && strcmp(axis, names[a]))
            continue;
        if (found)
            putchar('\n');
        found = true;
        if (a < KEPT_N_AXES)
            print_axis((kept_axis)a);
        else
            print_recipes();
    }
    if (found) {
        if (!axis)
            printf("\n[...]: what it needs from the engine. 'kept show NAME' prints the rest.\n");
        return KEPT_EXIT_OK;
    }
    int near = kept_nearest(axis, strlen(axis), names, KEPT_N_AXES + 1);
    return near >= 0 ? kept_usage("ls", "unknown axis '%s', did you mean '%s'?", axis, names[near])
                     : kept_usage("ls", "unknown axis '%s'; 'kept ls' lists all", axis);
}

int kept_cmd_ls(int argc, char **argv)
{
    kept_args a = {argc, argv, 1, false, NULL};
    const char *axis = NULL;
    int f;
    while ((f = kept_args_next(&a, NULL, 0)) == KEPT_ARG_WORD) {
        if (axis)
            return kept_usage("ls", "takes one axis, got '%s' too", a.value);
        axis = a.value;
    }
    if (f == KEPT_ARG_HELP)
        return kept_help_print("ls");
    return f == KEPT_ARG_END ? list(axis) : KEPT_EXIT_USAGE;
}
