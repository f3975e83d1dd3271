/* The engine end to end, on a real model, beside libllama in one process:
 *
 *   speed   prefill and decode tokens/s at --context with the full cache, against libllama with
 *           flash attention on and off (the better one counts); rounds alternate A B B A
 *   sweep   20 variants forked from one prefill and decoding in one batch, against running them one
 *           by one
 *   pool    pages returned after scattered eviction to 25 %, against the ideal
 *
 * Outputs are compared first. Exit 1 if they disagree (with --strict also if a bar is missed), 77
 * if there is no model (KEPT_MODEL or --model). */
#include "engine_rig.h"

#define N_VARIANTS 20

static int failed;

/* One round; logits of the last prompt token into out if not NULL. */
static speed run_own(const setup *s, kept_engine *e, float *out)
{
    kept_error err;
    kept_seq *seq = NULL;
    if (kept_seq_new(e, NULL, NULL, 1, &seq, &err))
        die("sequence", &err);
    const uint64_t t0 = kept_clock_ns();
    prefill(e, seq, s->tokens, s->context);
    const uint64_t t1 = kept_clock_ns();
    if (out)
        memcpy(out, kept_engine_logits(e), (size_t)s->info->n_vocab * sizeof *out);
    const double step = decode(s, e, seq, s->context, NULL);
    kept_seq_free(seq);
    return (speed){s->context / ((double)(t1 - t0) * 1e-9), 1e9 / step};
}

/* Both compute the same function: correlation of the logits of the last prompt token. Quantised
 * weights re-round activations, so equality within rounding is not on offer (see docs). */
static void compare(const setup *s, const float *a, const float *b)
{
    double ma = 0, mb = 0, ab = 0, aa = 0, bb = 0;
    const int n = s->info->n_vocab;
    int ia = 0, ib = 0;
    for (int i = 0; i < n; i++) {
        ma += (double)a[i] / n;
        mb += (double)b[i] / n;
        ia = a[i] > a[ia] ? i : ia;
        ib = b[i] > b[ib] ? i : ib;
    }
    for (int i = 0; i < n; i++) {
        ab += (a[i] - ma) * (b[i] - mb);
        aa += (a[i] - ma) * (a[i] - ma);
        bb += (b[i] - mb) * (b[i] - mb);
    }
    const double r = ab / sqrt(aa * bb);
    printf("  outputs: correlation of logits %.5f, argmax %s (gap of ours to theirs %.3g)\n", r,
           ia == ib ? "equal" : "different", (double)(a[ia] - a[ib]));
    if (!(r > 0.995) || a[ia] - a[ib] > 1.0f)
        failed = 1;
}

static void bench_speed(const setup *s)
{
    struct llama_model *m = llama_model_load_from_file(s->path, llama_model_default_params());
    if (!m)
        die("libllama does not load the model", NULL);
    struct llama_context *x[2] = {llama_new(s, m, false, GGML_TYPE_F16),
                                  llama_new(s, m, true, GGML_TYPE_F16)};
    kept_engine *e = engine_new(s, 0);
    const size_t v = (size_t)s->info->n_vocab;
    float *own = malloc(v * sizeof *own), *peer = malloc(v * sizeof *peer);
    double pp[3][MAX_ROUNDS], tg[3][MAX_ROUNDS];
    printf("speed: %d tokens of context, full F16 cache, %d threads, %d rounds, medians\n",
           s->context, s->threads, s->rounds);
    for (int r = 0; r < s->rounds; r++)
        for (int k = 0; k < 3; k++) {
            const int i = r % 2 ? 2 - k : k; /* A B C, C B A */
            const speed y = i ? run_llama(s, x[i - 1], r || i != 1 ? NULL : peer, NULL)
                              : run_own(s, e, r ? NULL : own);
            pp[i][r] = y.prefill;
            tg[i][r] = y.decode;
        }
    compare(s, own, peer);
    static const char *const name[3] = {"kept", "libllama, flash attention off",
                                        "libllama, flash attention on"};
    double p[3], t[3];
    for (int i = 0; i < 3; i++) {
        p[i] = median(pp[i], s->rounds);
        t[i] = median(tg[i], s->rounds);
        printf("  %-32s prefill %8.1f t/s   decode %7.2f t/s\n", name[i], p[i], t[i]);
    }
    bar("prefill, kept / better libllama", p[0] / fmax(p[1], p[2]), ">", 0.97);
    bar("decode, kept / better libllama", t[0] / fmax(t[1], t[2]), ">", 1.5);
    free(own);
    free(peer);
    kept_engine_free(e);
    llama_free(x[0]);
    llama_free(x[1]);
    llama_model_free(m);
}

/* ---- sweep ------------------------------------------------------------------------------------
 */

static const char *const specs[N_VARIANTS / 2] = {"random",       "recency",   "streaming", "h2o",
                                                  "h2o(norm=on)", "tova",      "snapkv",    "knorm",
                                                  "keydiff",      "snapkv+ada"};

/* Decodes `steps` fixed tokens through n sequences in one batch. */
static void decode_batch(const setup *s, kept_engine *e, kept_seq **seq, int n)
{
    kept_item it[N_VARIANTS];
    for (int t = 0; t < s->steps; t++) {
        for (int i = 0; i < n; i++)
            it[i] = (kept_item){.seq = seq[i],
                                .tokens = s->tokens + s->sweep_tokens + t,
                                .n_tokens = 1,
                                .n_logits = 1};
        forward(e, it, n);
    }
}

static void bench_sweep(const setup *s)
{
    kept_error err;
    kept_strategy *st[N_VARIANTS];
    kept_seq *seq[N_VARIANTS], *base = NULL;
    kept_capture cap;
    char spec[64];
    for (int i = 0; i < N_VARIANTS; i++) {
        snprintf(spec, sizeof spec, "%s@%s", specs[i / 2], i % 2 ? "12.5%" : "25%");
        if (kept_strategy_parse(spec, &st[i], &err))
            die(spec, &err);
    }
    if (kept_capture_union((const kept_strategy *const *)st, N_VARIANTS, &cap, &err))
        die("capture", &err);
    const size_t full = kept_full_kv_bytes(s->info, s->sweep_tokens + s->steps + 64);
    kept_engine *e = engine_new(s, full * 8);
    const uint64_t t0 = kept_clock_ns();
    if (kept_seq_new(e, NULL, &cap, 1, &base, &err))
        die("sequence", &err);
    prefill(e, base, s->tokens, s->sweep_tokens);
    for (int i = 0; i < N_VARIANTS; i++)
        if (kept_seq_fork(base, st[i], NULL, 1, &seq[i], &err) ||
            kept_seq_end_prefill(seq[i], &err))
            die("fork", &err);
    kept_seq_free(base);
    decode_batch(s, e, seq, N_VARIANTS);
    const double forked = (double)(kept_clock_ns() - t0) * 1e-9;
    for (int i = 0; i < N_VARIANTS; i++)
        kept_seq_free(seq[i]);
    const uint64_t t1 = kept_clock_ns();
    for (int i = 0; i < N_VARIANTS; i++) {
        if (kept_seq_new(e, st[i], NULL, 1, &seq[0], &err))
            die("sequence", &err);
        prefill(e, seq[0], s->tokens, s->sweep_tokens);
        if (kept_seq_end_prefill(seq[0], &err))
            die("evict", &err);
        decode_batch(s, e, seq, 1);
        kept_seq_free(seq[0]);
    }
    const double alone = (double)(kept_clock_ns() - t1) * 1e-9;
    printf("sweep: %d variants, prefill %d, decode %d: forked %.1f s, one by one %.1f s\n",
           N_VARIANTS, s->sweep_tokens, s->steps, forked, alone);
    bar("one by one / forked", alone / forked, ">", 10.0);
    for (int i = 0; i < N_VARIANTS; i++)
        kept_strategy_free(st[i]);
    kept_engine_free(e);
}

/* ---- pool --------------------------------------------------------------------------------------
 */

static void bench_pool(const setup *s)
{
    kept_error err;
    kept_strategy *st = NULL;
    kept_seq *seq = NULL;
    kept_pool_account before, after;
    if (kept_strategy_parse("random@25%", &st, &err))
        die("random", &err);
    kept_engine *e = engine_new(s, 0);
    if (kept_seq_new(e, st, NULL, 1, &seq, &err))
        die("sequence", &err);
    prefill(e, seq, s->tokens, s->sweep_tokens);
    kept_engine_pool(e, &before);
    if (kept_seq_end_prefill(seq, &err))
        die("evict", &err);
    kept_engine_pool(e, &after);
    const double returned =
        (double)(after.n_free_pages - before.n_free_pages) * (double)after.page_bytes;
    const double ideal = 0.75 * (double)kept_full_kv_bytes(s->info, s->sweep_tokens);
    printf("pool: scattered eviction to 25 %% of %d tokens returned %.1f of %.1f MiB\n",
           s->sweep_tokens, returned / 1048576, ideal / 1048576);
    bar("bytes returned / ideal", returned / ideal, ">", 0.95);
    kept_seq_free(seq);
    kept_engine_free(e);
    kept_strategy_free(st);
}

int main(int argc, char **argv)
{
    setup s = {.path = getenv("KEPT_MODEL"),
               .context = 4096,
               .steps = 32,
               .threads = 2,
               .rounds = 3,
               .sweep_tokens = 2048};
    const char *only = NULL;
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--strict"))
            s.strict = true;
        else if (!strcmp(argv[i], "--model"))
            s.path = v, i++;
        else if (!strcmp(argv[i], "--only"))
            only = v, i++;
        else if (!strcmp(argv[i], "--context"))
            s.context = count(v), i++;
        else if (!strcmp(argv[i], "--steps"))
            s.steps = count(v), i++;
        else if (!strcmp(argv[i], "--threads"))
            s.threads = count(v), i++;
        else if (!strcmp(argv[i], "--rounds"))
            s.rounds = count(v), i++;
        else {
            fprintf(stderr, "usage: bench_engine [--model FILE] [--only speed|sweep|pool] "
                            "[--context N] [--steps N] [--threads N] [--rounds N] [--strict]\n");
            return 2;
        }
    }
    if (!s.path) {
        printf("skip no model: set KEPT_MODEL or pass --model\n");
        return 77;
    }
    if (s.rounds > MAX_ROUNDS || s.steps > MAX_STEPS)
        return fprintf(stderr, "bench_engine: at most %d rounds, 1024 steps\n", MAX_ROUNDS), 2;
    kept_error err;
    if (kept_model_open(s.path, &s.model, &err))
        die("model", &err);
    s.info = kept_model_get_info(s.model);
    const int n = (s.context > s.sweep_tokens ? s.context : s.sweep_tokens) + s.steps;
    s.tokens = malloc((size_t)n * sizeof *s.tokens);
    kept_rng rng;
    kept_rng_init(&rng, 3);
    for (int i = 0; i < n; i++)
        s.tokens[i] = (int32_t)kept_rng_below(&rng, (uint32_t)s.info->n_vocab);
    printf("model %s (%s), kernels %s, libllama %s: %s\n", s.info->name, s.info->weight_type,
           kept_kern_get(NULL)->name, llama_version(), llama_print_system_info());
    if (!only || !strcmp(only, "speed"))
        bench_speed(&s);
    if (!only || !strcmp(only, "sweep"))
        bench_sweep(&s);
    if (!only || !strcmp(only, "pool"))
        bench_pool(&s);
    free(s.tokens);
    kept_model_free(s.model);
    return failed || (s.strict && missed);
}
