/* What a decode step takes and reads when it attends to a part of the pages, against all of them on
 * the same cache: one prompt, a fork for each way of reading, one process, steps alternated
 * (A B B A). Then what parking the sequence takes: bytes at rest, and milliseconds each way.
 *
 * The prompt is the text of $KEPT_TEXT (random tokens without), so that keys are those of text. */
#include "base/base.h"
#include "kept/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 512 };

typedef struct setup {
    const char *model, *text;
    int context, steps, threads;
    int32_t *tokens; /* [context + 4 steps] */
} setup;

static void die(const char *what, const kept_error *err)
{
    fprintf(stderr, "bench_read: %s: %s\n", what, err->text);
    exit(1);
}

static void fill_tokens(setup *s, const kept_model *m)
{
    const int want = s->context + 4 * s->steps + 8;
    const size_t room = (size_t)want * 8;
    char *buf = malloc(room);
    FILE *f = s->text ? fopen(s->text, "rb") : NULL;
    size_t got = f ? fread(buf, 1, room, f) : 0;
    int32_t *all = calloc(room, sizeof *all);
    int n = 0;
    kept_rng r;
    kept_rng_init(&r, 3);
    if (f)
        fclose(f);
    if (got)
        (void)kept_tokenize(m, buf, got, true, false, all, (int)room, &n);
    for (int i = n; i < want; i++)
        all[i] = (int32_t)kept_rng_below(&r, (uint32_t)kept_model_get_info(m)->n_vocab);
    s->tokens = all;
    free(buf);
}

static uint64_t step(const setup *s, kept_engine *e, kept_seq *q, int i)
{
    const kept_item it = {
        .seq = q, .tokens = s->tokens + s->context + i, .n_tokens = 1, .n_logits = 1};
    kept_error err;
    const uint64_t t0 = kept_clock_ns();
    if (kept_engine_forward(e, &it, 1, &err))
        die("step", &err);
    return kept_clock_ns() - t0;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double per_step(const kept_seq *q)
{
    kept_account a;
    kept_seq_account(q, &a);
    return (double)a.read_bytes / (double)a.n_reads;
}

static void compare(const setup *s, kept_engine *e, kept_seq *base, const char *spec)
{
    double ratio[MAX_STEPS], all_ns[MAX_STEPS];
    kept_strategy *st = NULL;
    kept_seq *all = NULL, *part = NULL;
    kept_error err;
    if (kept_strategy_parse(spec, &st, &err) || kept_seq_fork(base, NULL, NULL, 1, &all, &err) ||
        kept_seq_fork(base, st, NULL, 1, &part, &err))
        die(spec, &err);
    /* The first steps take private pages, and make notes of all others. */
    step(s, e, all, 0);
    const double first = (double)step(s, e, part, 0);
    for (int i = 0; i < s->steps; i++) {
        const double a = (double)step(s, e, all, 2 * i + 1),
                     b = (double)step(s, e, part, 2 * i + 1);
        const double c = (double)step(s, e, part, 2 * i + 2),
                     d = (double)step(s, e, all, 2 * i + 2);
        ratio[i] = (a + d) / (b + c);
        all_ns[i] = (a + d) / 2;
    }
    qsort(ratio, (size_t)s->steps, sizeof *ratio, by_size);
    qsort(all_ns, (size_t)s->steps, sizeof *all_ns, by_size);
    kept_account x, y;
    kept_seq_account(all, &x);
    kept_seq_account(part, &y);
    printf("%-36s %8.2f %9.2f %8.1f %8.1f %9.1f\n", spec, all_ns[s->steps / 2] / 1e6,
           ratio[s->steps / 2], 100 * per_step(part) / per_step(all),
           100 * (double)(y.kv_bytes + y.meta_bytes) / (double)(x.kv_bytes + x.meta_bytes),
           first / 1e6);
    kept_seq_free(all);
    kept_seq_free(part);
    kept_strategy_free(st);
}

static void park(kept_engine *e, kept_seq *q)
{
    kept_account a;
    kept_error err;
    void *data;
    size_t n;
    kept_seq_account(q, &a);
    const uint64_t t0 = kept_clock_ns();
    if (kept_seq_park(q, &data, &n, &err))
        die("park", &err);
    const uint64_t t1 = kept_clock_ns();
    if (kept_seq_resume(e, NULL, data, n, &q, &err))
        die("resume", &err);
    const uint64_t t2 = kept_clock_ns();
    printf("parked: %.1f MiB of %.1f MiB held (%.3f), %.0f ms to park, %.0f ms to resume\n",
           (double)n / 1048576, (double)(a.kv_bytes + a.meta_bytes) / 1048576,
           (double)n / (double)(a.kv_bytes + a.meta_bytes), (double)(t1 - t0) / 1e6,
           (double)(t2 - t1) / 1e6);
    kept_seq_free(q);
    free(data);
}

static void run(setup *s)
{
    static const char *const specs[] = {"full+quest(share=0.25)",
                                        "full+quest(share=0.125)",
                                        "full+quest(share=0.125,every=2)",
                                        "full+quest(share=0.125,every=4)",
                                        "full+landmarks(share=0.125)",
                                        "full+landmarks(share=0.125,every=2)",
                                        "full+landmarks(share=0.125,every=4)",
                                        "full+rocket(share=0.125)",
                                        "full+sparse-v",
                                        "full+sparse-v(below=10)"};
    kept_model *m;
    kept_engine *e;
    kept_seq *base;
    kept_error err;
    if (kept_model_open(s->model, &m, &err))
        die("model", &err);
    const kept_model_info *info = kept_model_get_info(m);
    const int most = s->context + 2 * s->steps + 128;
    fill_tokens(s, m);
    kept_engine_options o = {.n_threads = s->threads,
                             .max_tokens = most,
                             .pool_bytes = (size_t)kept_full_kv_bytes(info, 2 * most)};
    if (kept_engine_new(m, &o, &e, &err) || kept_seq_new(e, NULL, NULL, 1, &base, &err) ||
        kept_seq_prefill(base, s->tokens, s->context, 512, 0, &err) ||
        kept_seq_end_prefill(base, &err))
        die("prompt", &err);
    printf("%s, %s kernels, %d threads, %d tokens in the cache, %d blocks of steps\n", info->name,
           kept_engine_isa(e), s->threads, s->context, s->steps);
    printf("%-36s %8s %9s %8s %8s %9s\n", "", "all ms", "x faster", "read %", "held %", "first ms");
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        compare(s, e, base, specs[i]);
    park(e, base);
    kept_engine_free(e);
    kept_model_free(m);
    free(s->tokens);
}

int main(int argc, char **argv)
{
    setup s = {.model = getenv("KEPT_MODEL"),
               .text = getenv("KEPT_TEXT"),
               .context = 7900,
               .steps = 12,
               .threads = 2};
    for (int i = 1; i < argc; i += 2) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--model"))
            s.model = v;
        else if (!strcmp(argv[i], "--context"))
            s.context = atoi(v);
        else if (!strcmp(argv[i], "--steps"))
            s.steps = atoi(v);
        else if (!strcmp(argv[i], "--threads"))
            s.threads = atoi(v);
        else
            s.context = 0;
    }
    if (s.context < 64 || s.steps < 1 || s.steps > MAX_STEPS || s.threads < 1) {
        fprintf(stderr, "usage: bench_read [--model FILE] [--context N] [--steps N] "
                        "[--threads N]\n");
        return 2;
    }
    if (!s.model) {
        printf("skip no model: set KEPT_MODEL or pass --model\n");
        return 77;
    }
    run(&s);
    return 0;
}
