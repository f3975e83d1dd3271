/* Parked sequences: what is resumed goes on as the sequence would have, bit for bit, whatever it
 * records; its pages are back in the pool meanwhile; and bytes that are not such a sequence, or not
 * for this engine, are refused before anything is taken. */
#include "engine_util.h"
#include "mkgguf.h"
#include "model/engine.h"
#include "test.h"

#include <unistd.h>
#include <zstd.h>

enum { N_PROMPT = 300, N_STEPS = 24 };

static kept_model *model[3]; /* llama, another llama, gemma3 with windows */
static int32_t *tokens;

static util_run start(int m, int max_tokens, size_t pool)
{
    util_run r = {.n_vocab = kept_model_get_info(model[m])->n_vocab};
    kept_engine_options o = {
        .n_threads = 1, .max_tokens = max_tokens, .max_seqs = 4, .pool_bytes = pool};
    CHECK_INT(kept_engine_new(model[m], &o, &r.engine, &r.err), KEPT_OK);
    return r;
}

static kept_strategy *parse(const char *spec)
{
    kept_strategy *s = NULL;
    CHECK_INT(kept_strategy_parse(spec, &s, NULL), KEPT_OK);
    return s;
}

/* A sequence that has read the prompt and some tokens, with packed pages if asked for. */
static kept_seq *begin(util_run *r, const kept_strategy *st, bool packed)
{
    kept_seq *s = NULL;
    float *out = malloc((size_t)N_STEPS * (size_t)r->n_vocab * sizeof *out);
    CHECK_INT(kept_seq_new(r->engine, st, NULL, 3, &s, &r->err), KEPT_OK);
    CHECK_INT(kept_seq_pin(s, 10, 14), KEPT_OK);
    CHECK_INT(kept_seq_mark(s, 0, 6, KEPT_CLASS_TEMPLATE), KEPT_OK);
    CHECK_INT(util_prefill(r, s, tokens, N_PROMPT, 128, NULL), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &r->err), KEPT_OK);
    CHECK_INT(util_decode(r, s, tokens + N_PROMPT, 5, out), KEPT_OK);
    const kept_codecs form[] = {{KEPT_Q8, KEPT_ROT4}, {KEPT_CHAN4, KEPT_TOK4}};
    for (int h = 0; packed && h < 2; h++)
        for (int l = 0; l < 2; l++)
            CHECK_INT(kept_cache_pack(s->cache, l, h, form[h], 1, NULL), KEPT_OK);
    free(out);
    return s;
}

static uint64_t free_pages(const util_run *r)
{
    kept_pool_account a;
    kept_engine_pool(r->engine, &a);
    return a.n_free_pages;
}

/* Logits of the next tokens. */
static float *go_on(util_run *r, kept_seq *s)
{
    float *out = malloc((size_t)N_STEPS * (size_t)r->n_vocab * sizeof *out);
    CHECK_INT(util_decode(r, s, tokens + N_PROMPT + 5, N_STEPS, out), KEPT_OK);
    return out;
}

static void check_resumed(int m, const char *spec, bool packed)
{
    util_run r = start(m, 512, (size_t)32 << 20);
    kept_strategy *st = parse(spec);
    const uint64_t empty = free_pages(&r);
    kept_seq *s = begin(&r, st, packed);
    float *want = go_on(&r, s);
    kept_account before, after;
    void *data = NULL;
    size_t n = 0;
    kept_seq_free(s);
    s = begin(&r, st, packed);
    kept_seq_account(s, &before);
    const uint64_t evicted = before.n_evicted;
    CHECK_INT(kept_seq_park(s, &data, &n, &r.err), KEPT_OK);
    CHECK_INT(free_pages(&r), empty);
    CHECK(n > 0 && n < before.kv_bytes + before.meta_bytes);
    CHECK_INT(kept_seq_resume(r.engine, st, data, n, &s, &r.err), KEPT_OK);
    kept_seq_account(s, &after);
    CHECK_INT(after.kv_bytes, before.kv_bytes);
    CHECK_INT(after.meta_bytes, before.meta_bytes);
    CHECK_INT(after.peak_bytes, before.peak_bytes);
    CHECK_INT(after.n_evicted, evicted);
    CHECK(after.byte_steps == before.byte_steps);
    float *got = go_on(&r, s);
    if (memcmp(want, got, (size_t)N_STEPS * (size_t)r.n_vocab * sizeof *want)) {
        fprintf(stderr, "%s does not go on as before\n", spec);
        test_failed = 1;
    }
    kept_seq_free(s);
    CHECK_INT(free_pages(&r), empty);
    free(want);
    free(got);
    free(data);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

static void goes_on_bit_for_bit(void)
{
    check_resumed(0, "full", false);
    check_resumed(0, "full", true);
    check_resumed(0, "full+quest(share=0.5,pages=1,skip=0)", false);
    check_resumed(0, "snapkv+ada@50%", false); /* done when it is parked */
    check_resumed(0, "h2o+decode(every=3)+protect(template=keep)@40%", true);
    check_resumed(0, "snapkv(gqa=max)+decode(every=4)@100", false);
    check_resumed(0, "random+decode(every=4)@100", false);
    check_resumed(0, "streaming+decode(every=4)@100", false); /* keys that moved */
    check_resumed(0, "window+rerotated+decode(every=4)@100", false);
    check_resumed(0, "expected-attention+decode(every=4)@100", false); /* query statistics */
    check_resumed(0, "redundancy+squeeze+decode(every=4)@100", false); /* queries, cosines */
    check_resumed(0, "snapkv+summary@50%", false);                     /* biases of merged slots */
    check_resumed(0, "h2o+matching+decode(every=4)+park@40%", false);
    check_resumed(0, "full+park", true);
    check_resumed(2, "full", false);
    check_resumed(2, "h2o+decode(every=5)@40%", false);
}

/* The engine refuses data [n] for such a reason and keeps every page. */
static void check_refused(util_run *r, const kept_strategy *st, const void *data, size_t n,
                          kept_status want)
{
    const uint64_t before = free_pages(r);
    kept_seq *s = NULL;
    kept_error err = {.text = ""};
    CHECK_INT(kept_seq_resume(r->engine, st, data, n, &s, &err), want);
    CHECK(!s && err.text[0]);
    CHECK_INT(free_pages(r), before);
}

static void refusals(void)
{
    util_run r = start(0, 512, (size_t)32 << 20), small = start(0, 200, (size_t)32 << 20);
    util_run tight = start(0, 512, (size_t)12 * kept_page_bytes(64));
    util_run other = start(1, 512, (size_t)32 << 20);
    kept_strategy *st = parse("h2o@50%"), *not_it = parse("h2o@40%");
    kept_strategy *controlled = parse("adaptive(calm=full,tight=h2o)@50%");
    void *data = NULL;
    size_t n = 0;
    CHECK_INT(kept_seq_park(begin(&r, st, false), &data, &n, &r.err), KEPT_OK);
    uint8_t *bytes = data;
    for (size_t i = 0; i < n; i += i < 200 ? 1 : n / 40) { /* one bit is another */
        bytes[i] ^= 4;
        check_refused(&r, st, data, n, KEPT_FORMAT);
        bytes[i] ^= 4;
    }
    for (size_t i = 0; i < n; i += n / 30)
        check_refused(&r, st, data, i, KEPT_FORMAT);
    check_refused(&r, not_it, data, n, KEPT_ARGUMENT);
    check_refused(&r, NULL, data, n, KEPT_ARGUMENT);
    check_refused(&other, st, data, n, KEPT_ARGUMENT);
    check_refused(&small, st, data, n, KEPT_ARGUMENT);
    check_refused(&tight, st, data, n, KEPT_FULL);
    kept_seq *s = begin(&r, controlled, false);
    void *none = NULL;
    size_t none_n = 0;
    CHECK_INT(kept_seq_park(s, &none, &none_n, &r.err), KEPT_UNSUPPORTED);
    free(go_on(&r, s)); /* it is as it was */
    kept_seq_free(s);
    CHECK_INT(kept_seq_resume(r.engine, st, data, n, &s, &r.err), KEPT_OK);
    kept_seq_free(s);
    free(data);
    kept_strategy_free(st);
    kept_strategy_free(not_it);
    kept_strategy_free(controlled);
    kept_engine_free(r.engine);
    kept_engine_free(small.engine);
    kept_engine_free(tight.engine);
    kept_engine_free(other.engine);
}

/* Frames whose checksum fits but whose content is any: refused, or sound enough to go on with. */
static void alter(const char *spec, bool packed)
{
    enum { N_MODEL = 14 + 65 };
    util_run r = start(0, 512, (size_t)8 << 20);
    kept_strategy *st = parse(spec);
    void *data = NULL;
    size_t n = 0;
    int resumed = 0, refused = 0;
    CHECK_INT(kept_seq_park(begin(&r, st, packed), &data, &n, &r.err), KEPT_OK);
    const char *bytes = data;
    const size_t size = (size_t)ZSTD_getFrameContentSize(bytes + N_MODEL, n - N_MODEL - 64);
    uint8_t *raw = malloc(size), *copy = malloc(size);
    char *whole = malloc(N_MODEL + ZSTD_compressBound(size) + 65);
    CHECK_INT(ZSTD_decompress(raw, size, bytes + N_MODEL, n - N_MODEL - 64), size);
    uint64_t seed = 1;
    for (int i = 0; i < 300; i++) {
        memcpy(copy, raw, size);
        for (int k = 0; k < 3; k++) { /* most of what counts is in front, or between pages */
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            const size_t range = i % 3 == 0 ? 220 : i % 3 == 1 ? 4200 : size;
            const size_t at = (seed >> 33) % range;
            copy[i % 2 ? at : size - 1 - at] ^= (uint8_t)(1u << (seed >> 20 & 7));
        }
        const size_t cut = i % 10 == 9 ? (seed >> 33) % size : size;
        memcpy(whole, bytes, N_MODEL);
        const size_t frame = ZSTD_compress(whole + N_MODEL, ZSTD_compressBound(size), copy, cut, 1);
        kept_sha256(whole, N_MODEL + frame, whole + N_MODEL + frame);
        kept_seq *s = NULL;
        if (kept_seq_resume(r.engine, st, whole, N_MODEL + frame + 64, &s, &r.err)) {
            CHECK(!s && r.err.text[0]);
            refused++;
            continue;
        }
        float out[4096];
        CHECK(r.n_vocab <= 4096);
        resumed += !util_decode(&r, s, tokens, 1, out);
        kept_seq_free(s);
    }
    printf("# %d resumed, %d refused\n", resumed, refused);
    CHECK(resumed > 20 && refused > 50);
    free(raw);
    free(copy);
    free(whole);
    free(data);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

static void altered_frames(void)
{
    alter("h2o+decode(every=2)@50%", true);
    alter("h2o+decode(every=2)+park(bits=3,first=0,last=8)@90%", false);
}

/* What a parked sequence says of itself, and that nothing else says anything. */
static void looks(void)
{
    util_run r = start(0, 512, (size_t)8 << 20);
    kept_strategy *st = parse("h2o+park(bits=3)@50%");
    void *data = NULL;
    size_t n = 0;
    kept_parked about;
    char hex[65];
    CHECK_INT(kept_seq_park(begin(&r, st, false), &data, &n, &r.err), KEPT_OK);
    CHECK_INT(kept_parked_look(data, n, &about, &r.err), KEPT_OK);
    CHECK_STR(about.spec, kept_strategy_resolved(st));
    CHECK_INT(about.n_tokens, N_PROMPT + 5);
    CHECK_INT(kept_model_sha256(model[0], hex, &r.err), KEPT_OK);
    CHECK_STR(about.model_sha256, hex);
    for (size_t i = 0; i < n; i += n / 20)
        CHECK_INT(kept_parked_look(data, i, &about, &r.err), KEPT_FORMAT);
    ((uint8_t *)data)[n / 2] ^= 1;
    CHECK_INT(kept_parked_look(data, n, &about, &r.err), KEPT_FORMAT);
    free(data);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

int main(void)
{
    char *path[3];
    kept_error err;
    for (int i = 0; i < 3; i++) {
        mkgguf_spec spec = mkgguf_default(i == 2 ? "gemma3" : "llama");
        spec.seed = (uint64_t)i + 1;
        spec.sliding_window = i == 2 ? 100 : 0;
        path[i] = mkgguf_temp();
        if (!path[i] || mkgguf_write(path[i], &spec) || kept_model_open(path[i], &model[i], &err)) {
            fprintf(stderr, "no model\n");
            return 1;
        }
    }
    tokens = util_tokens(N_PROMPT + 5 + N_STEPS, kept_model_get_info(model[0])->n_vocab, 9);
    RUN(goes_on_bit_for_bit);
    RUN(refusals);
    RUN(altered_frames);
    RUN(looks);
    for (int i = 0; i < 3; i++) {
        unlink(path[i]);
        free(path[i]);
        kept_model_free(model[i]);
    }
    free(tokens);
    TEST_END();
}
