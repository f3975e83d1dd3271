/* What choosing costs, on a real model, for every score, wrapper and allocator of the registry:
 *
 *   compress  time to score, split and cut once after a prefill of --context tokens (passes over
 *             the cache included), as a share of that prefill
 *   decode    share of a decode step that scoring and cutting take, --context tokens cut to --slots
 *             a head, then --steps steps with an eviction every --every steps
 *   peak      bytes held at most with the schedules that cut while the prompt is read, of the full
 *             cache, at --peak-context tokens and a budget of 12.5 %
 *
 * All figures are shares of times or bytes of the same process, so a slow machine does not matter,
 * a busy one does. Methods that need a trained file read it from --trained DIR (KIND.kept) or are
 * named as left out. Exit 77 without a model; with --strict 1 if a bar is missed. */
#include "base/base.h"
#include "kept/kept.h"
#include "kept/trained.h"
#include "policy/parts.h"
#include "train/train.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_METHODS 160
#define CHUNK       512

typedef struct method {
    char spec[256];
    const char *what; /* "score", ... */
    const char *family, *cost;
    kept_strategy *strategy;
    bool left_out;
} method;

typedef struct setup {
    const char *path, *trained, *only, *method;
    int context, slots, steps, every, peak_context, threads;
    bool strict;
    kept_model *model;
    const kept_model_info *info;
    kept_trained *file[16];
    int n_files;
    int32_t *tokens;
    method m[MAX_METHODS];
    int n;
    int missed;
} setup;

static void die(const char *what, const kept_error *err)
{
    fprintf(stderr, "bench_select: %s%s%s\n", what, err ? ": " : "", err ? err->text : "");
    exit(1);
}

/* ---- methods -------------------------------------------------------------------------------- */

static bool has_file(const setup *s, const char *kind)
{
    for (int i = 0; i < s->n_files; i++)
        if (!strcmp(kept_trained_kind(s->file[i]), kind))
            return true;
    return false;
}

static void open_files(setup *s)
{
    char path[4096];
    for (int i = 0; s->trained && i < kept_train_kind_count(); i++) {
        snprintf(path, sizeof path, "%.4000s/%s.kept", s->trained, kept_train_kind_at(i)->name);
        if (!access(path, R_OK) && !kept_trained_open(path, &s->file[s->n_files], NULL))
            s->n_files++;
    }
}

static const char *spec_of(const kept_part *p, const char *budget, char *buf, size_t cap)
{
    const bool alone = p->axis == KEPT_AXIS_SCORE;
    snprintf(buf, cap, "%s%s%s", alone ? "" : "snapkv+", p->name, budget);
    return buf;
}

static void add_part(setup *s, const kept_part *p, const char *budget)
{
    method *m = &s->m[s->n];
    kept_profile profile;
    kept_error err;
    kept_part_profile(p, NULL, &profile);
    if (!strcmp(profile.family, "oracle") || !strcmp(p->name, "full") ||
        (s->method && strcmp(s->method, p->name) != 0))
        return;
    *m = (method){.what = kept_axis_name(p->axis), .family = profile.family, .cost = profile.cost};
    if (kept_strategy_parse(spec_of(p, budget, m->spec, sizeof m->spec), &m->strategy, &err))
        die(m->spec, &err);
    const char *a = kept_score_trained(m->strategy), *b = kept_allocator_trained(m->strategy);
    m->left_out = (a && !has_file(s, a)) || (b && !has_file(s, b));
    s->n += s->n < MAX_METHODS - 1;
}

static void clear_methods(setup *s)
{
    for (int i = 0; i < s->n; i++)
        kept_strategy_free(s->m[i].strategy);
    s->n = 0;
}

/* ---- engine --------------------------------------------------------------------------------- */

static kept_engine *engine_new(const setup *s, int tokens, int seqs)
{
    kept_error err;
    kept_engine *e = NULL;
    const size_t page = (size_t)s->info->head_size * 64 * 4;
    const kept_engine_options o = {.n_threads = s->threads,
                                   .max_tokens = tokens,
                                   .max_batch_tokens = CHUNK,
                                   .max_seqs = seqs,
                                   .pool_bytes = page * (size_t)s->info->n_layers *
                                                 (size_t)s->info->n_kv_heads *
                                                 ((size_t)tokens / 64 + 3) * (size_t)seqs};
    if (kept_engine_new(s->model, &o, &e, &err))
        die("engine", &err);
    for (int i = 0; i < s->n_files; i++)
        if (kept_engine_add_trained(e, s->file[i], &err))
            die("trained file", &err);
    return e;
}

static void prefill(const setup *s, kept_engine *e, kept_seq *q, int n)
{
    kept_error err;
    for (int at = 0; at < n; at += CHUNK) {
        const int k = n - at < CHUNK ? n - at : CHUNK;
        const kept_item it = {.seq = q,
                              .tokens = s->tokens + at,
                              .n_tokens = k,
                              .n_after = n - at - k,
                              .prefill = true};
        if (kept_engine_forward(e, &it, 1, &err))
            die("prefill", &err);
    }
}

static void step(const setup *s, kept_engine *e, kept_seq *q, int at)
{
    kept_error err;
    const kept_item it = {.seq = q, .tokens = s->tokens + at, .n_tokens = 1, .n_logits = 1};
    if (kept_engine_forward(e, &it, 1, &err))
        die("decode", &err);
}

/* A sequence of its own for each method: what it records while reading is its cost too. */
static kept_seq *sequence(kept_engine *e, const kept_strategy *strategy)
{
    kept_error err;
    kept_seq *q = NULL;
    if (kept_seq_new(e, strategy, NULL, 1, &q, &err))
        die("sequence", &err);
    return q;
}

static bool verdict(setup *s, bool met)
{
    s->missed += !met;
    return met;
}

/* ---- compress ------------------------------------------------------------------------------- */

/* Forks of a prefix that captures what a group of methods needs. */
static int prefix_of(setup *s, int from, kept_capture *out)
{
    const kept_strategy *list[MAX_METHODS];
    int n = 0, i = from;
    for (; i < s->n; i++) {
        if (s->m[i].left_out)
            continue;
        list[n++] = s->m[i].strategy;
        if (kept_capture_union(list, n, out, NULL))
            break;
    }
    const int m = i < s->n ? n - 1 : n;
    if (kept_capture_union(list, m, out, NULL))
        die("capture", NULL);
    return i;
}

static void compress_one(setup *s, kept_seq *prefix, const method *m, double prefill_ns)
{
    kept_error err;
    kept_seq *q = NULL;
    kept_account before, after;
    if (kept_seq_fork(prefix, m->strategy, NULL, 1, &q, &err))
        die(m->spec, &err);
    kept_seq_account(q, &before);
    const uint64_t t0 = kept_clock_ns();
    if (kept_seq_end_prefill(q, &err))
        die(m->spec, &err);
    const double wall = (double)(kept_clock_ns() - t0);
    kept_seq_account(q, &after);
    kept_seq_free(q);
    const bool passes = !strcmp(m->cost, "passes");
    const bool cheap = !strcmp(m->cost, "none") || !strcmp(m->cost, "state");
    const double limit = passes ? 2.2 : 0.05, share = wall / prefill_ns;
    const bool barred = passes || cheap;
    printf("  %-34s %-10s %-8s %9.1f ms %8.2f %%  score %8.1f  cut %6.1f  %s\n", m->spec, m->what,
           m->cost, wall / 1e6, 100 * share, (double)(after.score_ns - before.score_ns) / 1e6,
           (double)(after.compact_ns - before.compact_ns) / 1e6,
           !barred                      ? ""
           : verdict(s, share <= limit) ? "PASS"
                                        : "FAIL");
}

static void bench_compress(setup *s)
{
    double plain = 0;
    for (int i = 0; i < kept_part_count(); i++)
        if (kept_part_at(i)->axis <= KEPT_AXIS_ALLOCATOR &&
            kept_part_at(i)->axis != KEPT_AXIS_WEIGHT)
            add_part(s, kept_part_at(i), "@12.5%");
    printf("compress: %d tokens to 12.5 %%; bars: methods that read no keys <= 5 %% of the "
           "prefill, passes <= 220 %%\n",
           s->context);
    for (int from = 0; from < s->n;) {
        kept_capture c;
        kept_error err;
        kept_seq *prefix = NULL;
        const int to = prefix_of(s, from, &c);
        kept_engine *e = engine_new(s, s->context + CHUNK * 6, 4);
        if (!plain) {
            kept_seq *q = sequence(e, NULL);
            const uint64_t t0 = kept_clock_ns();
            prefill(s, e, q, s->context);
            plain = (double)(kept_clock_ns() - t0);
            kept_seq_free(q);
        }
        if (kept_seq_new(e, NULL, &c, 1, &prefix, &err))
            die("prefix", &err);
        const uint64_t t0 = kept_clock_ns();
        prefill(s, e, prefix, s->context);
        const double with = (double)(kept_clock_ns() - t0);
        printf("  prefill %.2f s; recording %d planes, %d recent queries%s: %.2f s (%+.1f %%)\n",
               plain / 1e9, c.n_planes, c.n_recent, c.query_stats ? ", query statistics" : "",
               with / 1e9, 100 * (with / plain - 1));
        for (int i = from; i < to; i++)
            if (s->m[i].left_out)
                printf("  %-34s left out: needs a trained file (--trained DIR)\n", s->m[i].spec);
            else
                compress_one(s, prefix, &s->m[i], plain);
        kept_seq_free(prefix);
        kept_engine_free(e);
        from = to;
    }
    clear_methods(s);
}

/* ---- decode --------------------------------------------------------------------------------- */

static void decode_one(setup *s, kept_engine *e, const method *m)
{
    kept_error err;
    kept_account before, after;
    kept_seq *q = sequence(e, m->strategy);
    prefill(s, e, q, s->context);
    if (kept_seq_end_prefill(q, &err))
        die(m->spec, &err);
    for (int i = 0; i < 16; i++)
        step(s, e, q, s->context + i);
    kept_seq_account(q, &before);
    const uint64_t t0 = kept_clock_ns();
    for (int i = 0; i < s->steps; i++)
        step(s, e, q, s->context + 16 + i);
    const double wall = (double)(kept_clock_ns() - t0);
    kept_seq_account(q, &after);
    kept_seq_free(q);
    const double score = (double)(after.score_ns - before.score_ns);
    const double cut = (double)(after.compact_ns - before.compact_ns);
    const double share = (score + cut) / wall;
    const bool strict = !strncmp(m->spec, "h2o", 3) || !strncmp(m->spec, "tova", 4);
    const bool barred = !strcmp(m->family, "attention");
    printf("  %-44s %8.2f ms a step %7.2f %%  score %5.2f %%  cut %5.2f %%  %s\n", m->spec,
           wall / 1e6 / s->steps, 100 * share, 100 * score / wall, 100 * cut / wall,
           !barred                                       ? ""
           : verdict(s, share <= (strict ? 0.03 : 0.05)) ? "PASS"
                                                         : "FAIL");
}

static void bench_decode(setup *s)
{
    char budget[64];
    kept_engine *e = engine_new(s, s->context + s->steps + 64, 2);
    snprintf(budget, sizeof budget, "+decode(every=%d)@%d", s->every, s->slots);
    for (int i = 0; i < kept_part_count(); i++)
        if (kept_part_at(i)->axis == KEPT_AXIS_SCORE)
            add_part(s, kept_part_at(i), budget);
    printf("decode: %d tokens cut to %d slots a head, an eviction every %d of %d steps; bars: "
           "attention <= 5 %%, h2o and tova <= 3 %%\n",
           s->context, s->slots, s->every, s->steps);
    for (int i = 0; i < s->n; i++)
        if (s->m[i].left_out)
            printf("  %-44s left out: needs a trained file (--trained DIR)\n", s->m[i].spec);
        else if (strcmp(s->m[i].cost, "passes") != 0)
            decode_one(s, e, &s->m[i]);
    kept_engine_free(e);
    clear_methods(s);
}

/* ---- peak ----------------------------------------------------------------------------------- */

static void bench_peak(setup *s)
{
    static const char *const specs[] = {"tova+chunks", "h2o+chunks", "snapkv+chunks",
                                        "keydiff+chunks", "snapkv+layers"};
    kept_engine *e = engine_new(s, s->peak_context + 64, 2);
    const double full = (double)kept_full_kv_bytes(s->info, s->peak_context);
    printf("peak: %d tokens at 12.5 %%, chunks of %d; bar <= 20 %% of the full cache\n",
           s->peak_context, CHUNK);
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        char spec[64];
        kept_strategy *strategy;
        kept_error err;
        kept_account a;
        snprintf(spec, sizeof spec, "%s@12.5%%", specs[i]);
        if (kept_strategy_parse(spec, &strategy, &err)) {
            printf("  %-34s %s\n", spec, err.text);
            continue;
        }
        kept_seq *q = sequence(e, strategy);
        if (kept_seq_prefill(q, s->tokens, s->peak_context, CHUNK, 0, &err) ||
            kept_seq_end_prefill(q, &err))
            die(spec, &err);
        kept_seq_account(q, &a);
        const double share = (double)a.peak_bytes / full;
        const double hidden = (double)s->peak_context * s->info->n_embd * 4;
        printf("  %-34s peak %6.1f MiB of %.1f %6.1f %%  ", spec, (double)a.peak_bytes / 1048576,
               full / 1048576, 100 * share);
        if (kept_strategy_when(strategy).layers) /* bounded, but not by the bar */
            printf("of it hidden states %.1f %%\n", 100 * hidden / full);
        else
            puts(verdict(s, share <= 0.2) ? "PASS" : "FAIL");
        kept_seq_free(q);
        kept_strategy_free(strategy);
    }
    kept_engine_free(e);
}

/* ---- main ----------------------------------------------------------------------------------- */

static int number(const char *text)
{
    const long n = strtol(text, NULL, 10);
    return n > 0 && n < 1 << 24 ? (int)n : 1;
}

static bool parse(setup *s, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        const struct {
            const char *name, **text;
            int *number;
        } flag[] = {{"--model", &s->path, NULL},
                    {"--trained", &s->trained, NULL},
                    {"--only", &s->only, NULL},
                    {"--method", &s->method, NULL},
                    {"--context", NULL, &s->context},
                    {"--slots", NULL, &s->slots},
                    {"--steps", NULL, &s->steps},
                    {"--every", NULL, &s->every},
                    {"--peak-context", NULL, &s->peak_context},
                    {"--threads", NULL, &s->threads}};
        size_t k = 0;
        if (!strcmp(argv[i], "--strict")) {
            s->strict = true;
            continue;
        }
        while (k < sizeof flag / sizeof *flag && strcmp(argv[i], flag[k].name) != 0)
            k++;
        if (k == sizeof flag / sizeof *flag || i + 1 == argc)
            return false;
        if (flag[k].text)
            *flag[k].text = v;
        else
            *flag[k].number = number(v);
        i++;
    }
    return true;
}

/* The start of a text, so that attention has something to hold on to; random ids without one. */
static void read_tokens(setup *s, int n)
{
    const char *path = getenv("KEPT_TEXT");
    FILE *f = path ? fopen(path, "rb") : NULL;
    const size_t cap = (size_t)n * 8;
    char *text = calloc(cap + 1, 1);
    int found = 0;
    s->tokens = calloc((size_t)n, sizeof *s->tokens);
    const size_t len = f && text ? fread(text, 1, cap, f) : 0;
    if (f)
        fclose(f);
    int32_t *all = calloc(cap + 8, sizeof *all);
    if (!s->tokens || !all)
        die("out of memory", NULL);
    if (len && !kept_tokenize(s->model, text, len, true, false, all, (int)cap, &found))
        memcpy(s->tokens, all, (size_t)(found < n ? found : n) * sizeof *all);
    kept_rng rng;
    kept_rng_init(&rng, 3);
    for (int i = found; i < n; i++)
        s->tokens[i] = (int32_t)kept_rng_below(&rng, (uint32_t)s->info->n_vocab);
    free(text);
    free(all);
}

int main(int argc, char **argv)
{
    static setup s = {
        .context = 4096, .slots = 512, .steps = 64, .every = 1, .peak_context = 8192, .threads = 2};
    s.path = getenv("KEPT_MODEL");
    s.trained = getenv("KEPT_TRAINED");
    if (!parse(&s, argc, argv)) {
        fprintf(stderr,
                "usage: bench_select [--model FILE] [--trained DIR] [--method NAME] [--only "
                "compress|decode|"
                "peak] [--context N] [--slots N] [--steps N] [--every N] [--peak-context N] "
                "[--threads N] [--strict]\n");
        return 2;
    }
    if (!s.path) {
        printf("skip no model: set KEPT_MODEL or pass --model\n");
        return 77;
    }
    kept_error err;
    if (kept_model_open(s.path, &s.model, &err))
        die("model", &err);
    s.info = kept_model_get_info(s.model);
    read_tokens(&s, (s.context > s.peak_context ? s.context : s.peak_context) + s.steps + 64);
    open_files(&s);
    printf("model %s (%s), %d threads, %d trained files\n", s.info->name, s.info->weight_type,
           s.threads, s.n_files);
    if (!s.only || !strcmp(s.only, "compress"))
        bench_compress(&s);
    if (!s.only || !strcmp(s.only, "decode"))
        bench_decode(&s);
    if (!s.only || !strcmp(s.only, "peak"))
        bench_peak(&s);
    free(s.tokens);
    for (int i = 0; i < s.n_files; i++)
        kept_trained_free(s.file[i]);
    kept_model_free(s.model);
    return s.strict && s.missed;
}
