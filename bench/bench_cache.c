/* What a cache in fewer bits gains and loses on a real model, beside libllama in one process:
 *
 *   kl      how far the next tokens of a text are from those of the F16 cache, at --kl-context
 *           tokens of context and the tokens that follow, for --codec, against libllama with a q4_0
 *           cache on the same tokens. In both the prompt is read through the cache that is measured
 *           (ours: the schedule chunks), and each is compared with its own F16 cache
 *   speed   tokens/s at --context with a 4-bit full cache, and with 12.5 % kept as q8, against
 *           libllama's full F16 cache (flash attention on or off, the better one), and which part
 *           of a step is no attention
 *   pack    what turning a full F16 cache into 4 bits takes, of the attention of one prefill, and
 *           the bytes held at most while it happens
 *
 * Exit 1 with --strict if a bar is missed, 77 if there is no model or text. */
#include "engine_rig.h"

#include <limits.h>

typedef struct more {
    setup s;
    const char *text, *codec, *only;
    int kl_context;
} more;

static kept_strategy *parse(const char *spec)
{
    kept_error err;
    kept_strategy *st = NULL;
    if (kept_strategy_parse(spec, &st, &err))
        die(spec, &err);
    return st;
}

static void read_text(more *m, int n)
{
    FILE *f = fopen(m->text, "rb");
    const size_t bytes = (size_t)n * 16;
    char *buf = malloc(bytes + 1);
    if (!f || !buf)
        die("cannot read the text", NULL);
    buf[fread(buf, 1, bytes, f)] = 0;
    fclose(f);
    int32_t *tokens = malloc(bytes * sizeof *tokens);
    int got = 0;
    if (kept_tokenize(m->s.model, buf, strlen(buf), true, false, tokens, (int)bytes, &got))
        die("the tokenizer takes no such text", NULL);
    if (got < n)
        die("the text is too short for that context", NULL);
    memcpy(m->s.tokens, tokens, (size_t)n * sizeof *tokens);
    free(tokens);
    free(buf);
}

/* ---- KL ---------------------------------------------------------------------------------------
 */

static double log_sum(const float *x, int n)
{
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        top = fmax(top, x[i]);
    for (int i = 0; i < n; i++)
        sum += exp(x[i] - top);
    return top + log(sum);
}

/* Mean over rows of KL(softmax a || softmax b), nats. */
static double mean_kl(const float *a, const float *b, int rows, int n)
{
    double all = 0;
    for (int r = 0; r < rows; r++, a += n, b += n) {
        const double za = log_sum(a, n), zb = log_sum(b, n);
        for (int i = 0; i < n; i++)
            all += exp(a[i] - za) * ((a[i] - za) - (b[i] - zb));
    }
    return all / rows;
}

static void own_logits(const setup *s, const char *spec, float *out, kept_account *account)
{
    kept_error err;
    kept_strategy *st = spec ? parse(spec) : NULL;
    kept_engine *e = engine_new(s, 0);
    kept_seq *seq = NULL;
    if (kept_seq_new(e, st, NULL, 1, &seq, &err))
        die("sequence", &err);
    prefill(e, seq, s->tokens, s->context);
    if (kept_seq_end_prefill(seq, &err))
        die("end of the prompt", &err);
    if (account)
        kept_seq_account(seq, account);
    decode(s, e, seq, s->context, out);
    kept_seq_free(seq);
    kept_engine_free(e);
    kept_strategy_free(st);
}

static void llama_logits(const setup *s, struct llama_model *m, enum ggml_type type, float *out)
{
    struct llama_context *x = llama_new(s, m, true, type);
    run_llama(s, x, NULL, out);
    llama_free(x);
}

static void bench_kl(const more *m, struct llama_model *peer)
{
    setup s = m->s;
    kept_account account;
    char spec[128];
    s.context = m->kl_context;
    s.steps = 128;
    const int v = s.info->n_vocab;
    const size_t n = (size_t)s.steps * (size_t)v;
    float *full = malloc(n * sizeof *full), *less = malloc(n * sizeof *less);
    if (!full || !less)
        die("no memory for logits", NULL);
    own_logits(&s, NULL, full, NULL);
    snprintf(spec, sizeof spec, "full+%s", m->codec);
    own_logits(&s, spec, less, &account);
    const double once = mean_kl(full, less, s.steps, v);
    snprintf(spec, sizeof spec, "full+%s+chunks", m->codec);
    own_logits(&s, spec, less, &account);
    const double own = mean_kl(full, less, s.steps, v);
    const double numbers = (double)kept_full_kv_bytes(s.info, s.context) / 2;
    llama_logits(&s, peer, GGML_TYPE_F16, full);
    llama_logits(&s, peer, GGML_TYPE_Q4_0, less);
    const double theirs = mean_kl(full, less, s.steps, v);
    printf("kl: %d tokens of text, the %d after them; %s holds %.2f bits a number\n", s.context,
           s.steps, m->codec, 8 * (double)account.kv_bytes / numbers);
    printf("  %s packed when the prompt is in %.5f, while it is read %.5f; libllama's q4_0 (4.5 "
           "bits) %.5f nats a token\n",
           m->codec, once, own, theirs);
    bar("KL, ours / libllama's q4_0", own / theirs, "<", 1);
    free(full);
    free(less);
}

/* ---- speed ------------------------------------------------------------------------------------
 */

/* Tokens/s of decoding after the prompt was read with this strategy. */
static double own_speed(const setup *s, kept_engine *e, const char *spec, int context)
{
    kept_error err;
    kept_strategy *st = spec ? parse(spec) : NULL;
    kept_seq *seq = NULL;
    if (kept_seq_new(e, st, NULL, 1, &seq, &err))
        die("sequence", &err);
    prefill(e, seq, s->tokens, context);
    if (kept_seq_end_prefill(seq, &err))
        die("end of the prompt", &err);
    const double ns = decode(s, e, seq, context, NULL);
    kept_seq_free(seq);
    kept_strategy_free(st);
    return 1e9 / ns;
}

static void bench_speed(const more *m, struct llama_model *peer)
{
    const setup *s = &m->s;
    char four[128];
    snprintf(four, sizeof four, "full+%s", m->codec);
    const char *const spec[] = {four, "snapkv+q8@6.25%", "snapkv@12.5%", NULL};
    enum { OWN = 4 };
    double own[OWN][MAX_ROUNDS], theirs[2][MAX_ROUNDS], bare[MAX_ROUNDS];
    kept_engine *e = engine_new(s, 0);
    struct llama_context *x[2] = {llama_new(s, peer, false, GGML_TYPE_F16),
                                  llama_new(s, peer, true, GGML_TYPE_F16)};
    for (int r = 0; r < s->rounds; r++) {
        for (int i = 0; i < OWN; i++)
            own[i][r] = own_speed(s, e, spec[i], s->context);
        bare[r] = own_speed(s, e, NULL, 16);
        for (int i = 0; i < 2; i++)
            theirs[i][r] = run_llama(s, x[i], NULL, NULL).decode;
    }
    const double best = fmax(median(theirs[0], s->rounds), median(theirs[1], s->rounds));
    const double none = median(bare, s->rounds);
    printf("speed: %d tokens of context, %d threads, %d rounds, medians; libllama's full F16 cache "
           "%.1f t/s\n",
           s->context, s->threads, s->rounds, best);
    for (int i = 0; i < OWN; i++) {
        const double t = median(own[i], s->rounds);
        printf("  %-32s %8.1f t/s, %.0f %% of a step is no attention\n",
               spec[i] ? spec[i] : "full (F16)", t, 100 * t / none);
        if (i < 2)
            bar(i ? "tokens/s, 12.5 % as q8 / libllama F16" : "tokens/s, 4-bit full / libllama F16",
                t / best, ">", 2);
    }
    kept_engine_free(e);
    llama_free(x[0]);
    llama_free(x[1]);
}

/* ---- pack -------------------------------------------------------------------------------------
 */

static void bench_pack(const more *m)
{
    const setup *s = &m->s;
    kept_error err;
    char spec[128];
    snprintf(spec, sizeof spec, "full+%s", m->codec);
    kept_strategy *st = parse(spec);
    kept_engine *e = engine_new(s, 0);
    kept_seq *seq = NULL;
    kept_account before, after;
    if (kept_seq_new(e, st, NULL, 1, &seq, &err))
        die("sequence", &err);
    const uint64_t t0 = kept_clock_ns();
    prefill(e, seq, s->tokens, 512 < s->context ? 512 : s->context);
    const double first = (double)(kept_clock_ns() - t0);
    kept_seq_free(seq);
    if (kept_seq_new(e, st, NULL, 1, &seq, &err))
        die("sequence", &err);
    const uint64_t t1 = kept_clock_ns();
    prefill(e, seq, s->tokens, s->context);
    const uint64_t t2 = kept_clock_ns();
    kept_seq_account(seq, &before);
    if (kept_seq_end_prefill(seq, &err))
        die("end of the prompt", &err);
    const double pack = (double)(kept_clock_ns() - t2);
    kept_seq_account(seq, &after);
    /* All but attention grows with the tokens, so what exceeds that is attention (a little less
     * than it: the first chunk attends too). */
    const double attention = (double)(t2 - t1) - first * s->context / 512;
    printf("pack: %d tokens, F16 to %s: %.0f ms, prefill %.0f ms, of it attention %.0f ms; held "
           "%.1f MiB before, %.1f after, %.1f at most\n",
           s->context, m->codec, pack / 1e6, (double)(t2 - t1) / 1e6, attention / 1e6,
           (double)before.kv_bytes / 1048576, (double)after.kv_bytes / 1048576,
           (double)after.peak_bytes / 1048576);
    /* On a busy machine the difference can be anything. */
    bar("packing / attention of one prefill", attention > 0 ? pack / attention : INFINITY, "<",
        0.25);
    bar("peak while packing / full F16 cache",
        (double)after.peak_bytes / (double)(before.kv_bytes + before.meta_bytes), "<", 1.02);
    kept_seq_free(seq);
    kept_engine_free(e);
    kept_strategy_free(st);
}

static void read_args(more *m, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--strict")) {
            m->s.strict = true;
            continue;
        }
        i++;
        if (!strcmp(argv[i - 1], "--model"))
            m->s.path = v;
        else if (!strcmp(argv[i - 1], "--text"))
            m->text = v;
        else if (!strcmp(argv[i - 1], "--codec"))
            m->codec = v;
        else if (!strcmp(argv[i - 1], "--only"))
            m->only = v;
        else if (!strcmp(argv[i - 1], "--context"))
            m->s.context = count(v);
        else if (!strcmp(argv[i - 1], "--kl-context"))
            m->kl_context = count(v);
        else if (!strcmp(argv[i - 1], "--steps"))
            m->s.steps = count(v);
        else if (!strcmp(argv[i - 1], "--threads"))
            m->s.threads = count(v);
        else if (!strcmp(argv[i - 1], "--rounds"))
            m->s.rounds = count(v);
        else {
            fprintf(stderr,
                    "usage: bench_cache [--model FILE] [--text FILE] [--codec NAME] [--only "
                    "kl|speed|pack] [--context N] [--kl-context N] [--steps N] [--threads N] "
                    "[--rounds N] [--strict]\n");
            exit(2);
        }
    }
    if (m->s.rounds > MAX_ROUNDS || m->s.steps > MAX_STEPS) {
        fprintf(stderr, "bench_cache: at most %d rounds, %d steps\n", MAX_ROUNDS, MAX_STEPS);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    kept_error err;
    more m = {.s = {.path = getenv("KEPT_MODEL"),
                    .context = 8192,
                    .steps = 32,
                    .threads = 2,
                    .rounds = 3},
              .text = getenv("KEPT_TEXT"),
              .codec = "k4v3",
              .kl_context = 2048};
    read_args(&m, argc, argv);
    if (!m.s.path || !m.text) {
        printf("skip no model or text: set KEPT_MODEL and KEPT_TEXT or pass --model and --text\n");
        return 77;
    }
    if (kept_model_open(m.s.path, &m.s.model, &err))
        die("model", &err);
    m.s.info = kept_model_get_info(m.s.model);
    const int longest = m.s.context > m.kl_context ? m.s.context : m.kl_context;
    m.s.tokens = malloc(((size_t)longest + MAX_STEPS) * sizeof *m.s.tokens);
    read_text(&m, longest + MAX_STEPS);
    printf("model %s (%s), kernels %s, libllama %s: %s\n", m.s.info->name, m.s.info->weight_type,
           kept_kern_get(NULL)->name, llama_version(), llama_print_system_info());
    struct llama_model *peer = llama_model_load_from_file(m.s.path, llama_model_default_params());
    if (!peer)
        die("libllama does not load the model", NULL);
    if (!m.only || !strcmp(m.only, "kl"))
        bench_kl(&m, peer);
    if (!m.only || !strcmp(m.only, "speed"))
        bench_speed(&m, peer);
    if (!m.only || !strcmp(m.only, "pack"))
        bench_pack(&m);
    llama_model_free(peer);
    free(m.s.tokens);
    kept_model_free(m.s.model);
    return m.s.strict && missed;
}
