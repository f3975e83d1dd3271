/* columns_more: what a cell holds besides the columns of the table, as tables of their own. */
#include "report/view.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 9, MAX_MORE = 16 };

/* A figure: member or member.member.member of a cell. */
typedef struct figure {
    const char *head[2], *path;
    double scale;
    int digits;
} figure;

/* Members of a list, one column each. */
typedef struct column_list {
    const char *list, *what, *value, *less; /* less: this member is taken off the value, or NULL */
    double scale;
    int digits;
} column_list;

typedef struct column_set {
    const char *name, *about;
    bool generate, score; /* kinds of tasks it is for */
    figure figures[MAX_MORE];
    column_list lists[2];
} column_set;

static const column_set sets[] = {
    {"paths",
     "answers by token ids: share identical, tokens before the first difference over the longer "
     "answer, place\nof that difference, tokens over full's; shares copied from the context, "
     "novel, "
     "abstaining, of another class\nthan full's answer (docs/result-format.md)",
     true,
     false,
     {{{"iden-", "tical%"}, "trajectory.identical", 100, 1},
      {{"prefix", "match%"}, "trajectory.prefix_match", 100, 1},
      {{"first", "diff."}, "trajectory.first_divergence", 1, 1},
      {{"length", "x full"}, "trajectory.length_ratio", 1, 2},
      {{"", "longer"}, "trajectory.longer", 1, 0},
      {{"", "shorter"}, "trajectory.shorter", 1, 0},
      {{"", "cut"}, "trajectory.cut", 1, 0},
      {{"near-", "copy%"}, "trajectory.classes.near_copy", 100, 1},
      {{"", "novel%"}, "trajectory.classes.novel", 100, 1},
      {{"ab-", "stain%"}, "trajectory.classes.abstain", 100, 1},
      {{"class", "moved%"}, "trajectory.classes.moved", 100, 1}},
     {{.list = NULL}}},
    {"tokens",
     "llama.cpp's statistics over all scored tokens (its errors take tokens as independent: too "
     "small), and\nthe tokens that need the long context (LongPPL)",
     false,
     true,
     {{{"ppl", "x full"}, "kl_stats.ratio", 1, 4},
      {{"", "+-"}, "kl_stats.ratio_se", 1, 4},
      {{"", "KL mean"}, "kl_stats.kl_mean", 1, 4},
      {{"", "+-"}, "kl_stats.kl_se", 1, 4},
      {{"KL", "median"}, "kl_stats.kl_median", 1, 4},
      {{"KL", "99%"}, "kl_stats.kl_p99", 1, 3},
      {{"KL", "max"}, "kl_stats.kl_max", 1, 3},
      {{"dp rms", "%"}, "kl_stats.dp_rms", 100, 2},
      {{"same", "top%"}, "kl_stats.same_top", 100, 2},
      {{"key", "tokens"}, "key_tokens.n", 1, 0},
      {{"key", "NLL"}, "key_tokens.nll", 1, 3},
      {{"key", "full"}, "key_tokens.full_nll", 1, 3}},
     {{.list = NULL}}},
    {"speed",
     "milliseconds between tokens, one sequence alone, pooled over samples (99% from 1000 gaps "
     "on); "
     "roof: share of\nthe speed at which weights and cache can be read; predicted: speed-up if "
     "reading were all",
     true,
     true,
     {{{"gaps", ""}, "itl_gap.n", 1, 0},
      {{"mean", "ms"}, "itl_gap.mean_ns", 1e-6, 2},
      {{"50%", "ms"}, "itl_gap.p50_ns", 1e-6, 2},
      {{"90%", "ms"}, "itl_gap.p90_ns", 1e-6, 2},
      {{"99%", "ms"}, "itl_gap.p99_ns", 1e-6, 2},
      {{"max", "ms"}, "itl_gap.max_ns", 1e-6, 2},
      {{"roof", "%"}, "roofline_share", 100, 1},
      {{"pre-", "dicted"}, "predicted_speed_up", 1, 2},
      {{"mea-", "sured"}, "speed_ratio", 1, 2}},
     {{.list = NULL}}},
    {"turns",
     "score in %, then share of the turn's evidence held when its question came",
     true,
     false,
     {{.path = NULL}},
     {{"by_turn", "score, turn", "score", NULL, 100, 1},
      {"by_turn", "evid, turn", "evidence_recall", NULL, 100, 1}}},
    {"again",
     "score in % by how many turns before the same was asked (0: never), and the same less full's",
     true,
     false,
     {{.path = NULL}},
     {{"by_again", "score, since", "score", NULL, 100, 1},
      {"by_again", "less full", "score", "full_score", 100, 1}}},
    {"position",
     "NLL less full's in nats, by the token's position in the sequence, then by its distance from "
     "the eviction",
     false,
     true,
     {{.path = NULL}},
     {{"by_position", "position to", "nll", "full_nll", 1, 4},
      {"by_distance", "distance to", "nll", "full_nll", 1, 4}}},
    {"rest",
     "MiB held before the sequence was parked, MiB that it was then, and that relative to the full "
     "cache held;\nmilliseconds to park and to resume",
     true,
     true,
     {{{"held", "MiB"}, "held_bytes", 1.0 / 1048576, 2},
      {{"parked", "MiB"}, "parked_bytes", 1.0 / 1048576, 2},
      {{"of", "full%"}, "parked_pct", 1, 2},
      {{"park", "ms"}, "park_ns", 1e-6, 0},
      {{"resume", "ms"}, "resume_ns", 1e-6, 0}},
     {{.list = NULL}}},
};
enum { N_SETS = sizeof sets / sizeof *sets };

const char *const *kept_report_column_sets(int *n)
{
    static const char *const names[] = {"paths", "tokens",   "speed", "turns",
                                        "again", "position", "rest"};
    _Static_assert(sizeof names / sizeof *names == N_SETS, "every set has its name here");
    *n = N_SETS;
    return names;
}

static double at_path(const json_t *cell, const char *path)
{
    char part[64];
    while (strchr(path, '.')) {
        const size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        cell = json_object_get(cell, part);
        path += n + 1;
    }
    return kept_view_number(cell, path);
}

static void print_number(FILE *out, double x, int digits)
{
    if (isfinite(x))
        fprintf(out, " %*.*f", WIDTH, digits, x);
    else
        fprintf(out, " %*s", WIDTH, "n/a");
}

/* "turn 3", or the range's end. */
static void head_of(const json_t *x, char buf[32])
{
    const double turn = kept_view_number(x, "turn"), to = kept_view_number(x, "to");
    if (isfinite(turn))
        snprintf(buf, 32, "%.0f", turn);
    else if (isfinite(to))
        snprintf(buf, 32, "%.0f", to);
    else
        snprintf(buf, 32, ">%.0f", kept_view_number(x, "from") - 1);
}

static void print_heads(const column_set *s, const kept_row *first, int name, FILE *out)
{
    const json_t *x;
    size_t i;
    char buf[32];
    for (int line = 0; line < 2; line++) {
        fprintf(out, "  %-*s", name, line ? "strategy" : "");
        for (int k = 0; k < MAX_MORE && s->figures[k].path; k++)
            fprintf(out, " %*s", WIDTH, s->figures[k].head[line]);
        for (int l = 0; l < 2 && s->lists[l].list; l++)
            json_array_foreach(json_object_get(first->cell, s->lists[l].list), i, x)
            {
                head_of(x, buf);
                fprintf(out, " %*.*s", WIDTH, WIDTH, line ? buf : i ? "" : s->lists[l].what);
            }
        fputc('\n', out);
    }
}

static void print_row(const column_set *s, const kept_row *r, int name, FILE *out)
{
    const json_t *x;
    size_t i;
    fprintf(out, "  %-*s", name, r->name);
    for (int k = 0; k < MAX_MORE && s->figures[k].path; k++)
        print_number(out, s->figures[k].scale * at_path(r->cell, s->figures[k].path),
                     s->figures[k].digits);
    for (int l = 0; l < 2 && s->lists[l].list; l++) {
        const column_list *c = &s->lists[l];
        json_array_foreach(json_object_get(r->cell, c->list), i, x)
        {
            const double less = c->less ? kept_view_number(x, c->less) : 0;
            print_number(out, c->scale * (kept_view_number(x, c->value) - less), c->digits);
        }
    }
    fputc('\n', out);
}

kept_status kept_report_columns(const json_t *result, const char *set, FILE *out)
{
    const json_t *tasks = json_object_get(result, "tasks"), *task;
    const column_set *s = NULL;
    size_t t;
    bool any = false;
    for (int k = 0; k < N_SETS; k++)
        s = strcmp(sets[k].name, set) ? s : &sets[k];
    if (!s)
        return KEPT_ARGUMENT;
    json_array_foreach(tasks, t, task)
    {
        int n = 0, name = 8;
        if (kept_view_generate(task) ? !s->generate : !s->score)
            continue;
        kept_row *rows = kept_view_rows(result, (int)t, &n);
        if (!rows)
            return KEPT_NOMEM;
        if (!n || (s->lists[0].list &&
                   !json_array_size(json_object_get(rows[0].cell, s->lists[0].list)))) {
            free(rows);
            continue;
        }
        for (int i = 0; i < n; i++)
            name = (int)strlen(rows[i].name) > name ? (int)strlen(rows[i].name) : name;
        fprintf(out, "%s%s, %.0f tokens\n", any ? "\n" : "", kept_view_text(task, "label"),
                kept_view_number(task, "length"));
        print_heads(s, &rows[0], name, out);
        for (int i = 0; i < n; i++)
            print_row(s, &rows[i], name, out);
        free(rows);
        any = true;
    }
    if (any)
        fprintf(out, "\n%s\n", s->about);
    else
        fprintf(out, "no task of this result has such columns\n");
    return ferror(out) ? KEPT_IO : KEPT_OK;
}
