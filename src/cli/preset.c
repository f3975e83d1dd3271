/* preset: the files of share/presets, which are built in. A line is a flag of `kept run` without
 * its dashes and its value; # begins a comment.
 */
#include "cli/cli.h"
#include "cli/run_args.h"

#include <string.h>

/* Each: its name and a newline, then the file. */
static const char *const presets[] = {
#include "gen/presets.inc"
};
enum { N_PRESETS = sizeof presets / sizeof *presets };

/* "--flag" and "value" of one line; false: out of memory. */
static bool add_line(const char *line, size_t n, kept_list *out)
{
    char flag[64], value[512];
    const size_t n_flag = strcspn(line, " \t\n");
    size_t from = n_flag;
    while (from < n && (line[from] == ' ' || line[from] == '\t'))
        from++;
    if (!n || *line == '#' || n_flag > n)
        return true;
    snprintf(flag, sizeof flag, "--%.*s", (int)n_flag, line);
    snprintf(value, sizeof value, "%.*s", (int)(n - from), line + from);
    return kept_list_add(out, flag) && kept_list_add(out, value);
}

int kept_preset_words(const char *name, kept_list *out)
{
    char text[N_PRESETS][64];
    const char *names[N_PRESETS];
    for (int i = 0; i < N_PRESETS; i++) {
        snprintf(text[i], sizeof text[i], "%.*s", (int)strcspn(presets[i], "\n"), presets[i]);
        names[i] = text[i];
        if (strcmp(text[i], name) != 0)
            continue;
        bool ok = kept_list_add(out, "preset");
        for (const char *s = strchr(presets[i], '\n') + 1; *s && ok;) {
            const size_t n = strcspn(s, "\n");
            ok = add_line(s, n, out);
            s += n + (s[n] != 0);
        }
        return ok ? -1 : kept_failed("run", "out of memory");
    }
    return kept_one_of("preset", name, names, N_PRESETS);
}

void kept_preset_print(FILE *out)
{
    for (int i = 0; i < N_PRESETS; i++) {
        const char *comment = strchr(presets[i], '\n') + 1;
        fprintf(out, "  %-16.*s %.*s\n", (int)strcspn(presets[i], "\n"), presets[i],
                (int)strcspn(comment + 2, "\n"), comment + 2);
    }
}
