/* Pages of coefficients inside the engine, with directions made for the test: what sequences hold
 * is the projection, in double, of what a full cache holds, at the positions and frequencies of the
 * model; bytes, forks and parking; trained files that do not belong. */
#include "engine_util.h"
#include "kept/park.h"
#include "lowrank_rig.h"
#include "mkgguf.h"
#include "model/engine.h"
#include "policy/strategy.h"

#include <unistd.h>

enum { D = 64, N_PROMPT = 203, CHUNK = 64, ROOM = 320, N_DECODE = 16 };

static kept_model *model;
static const kept_model_info *info;
static int32_t *tokens;
static kept_trained *basis;

static void put(kept_trained *t, const char *name, int basis_of, int v)
{
    const size_t size = (size_t)D * D, heads = (size_t)(info->n_layers * info->n_kv_heads);
    float *x = malloc(heads * size * sizeof *x);
    for (size_t h = 0; h < heads; h++) /* heads of a layer have the same */
        memcpy(x + h * size, the.u[(h / (size_t)info->n_kv_heads) % 4][basis_of][v],
               size * sizeof *x);
    CHECK_INT(kept_trained_put(t, name, x, heads * size, NULL), KEPT_OK);
    free(x);
}

/* The rig's directions as a trained file. Those of keys are in places there, in channels here. */
static kept_trained *make_file(const char *sha256)
{
    kept_trained *t = NULL;
    CHECK_INT(kept_trained_new("basis", sha256, &t, NULL), KEPT_OK);
    put(t, "k", KEPT_BASIS_LOW, 0);
    put(t, "v", KEPT_BASIS_LOW, 1);
    put(t, "flat", KEPT_BASIS_FLAT, 0);
    put(t, "k2", KEPT_BASIS_PAIR, 0);
    put(t, "v2", KEPT_BASIS_PAIR, 1);
    put(t, "k4", KEPT_BASIS_QUAD, 0);
    put(t, "v4", KEPT_BASIS_QUAD, 1);
    return t;
}

static kept_engine *start_engine(void)
{
    kept_engine *e = NULL;
    kept_error err;
    const kept_engine_options o = {.n_threads = 2,
                                   .max_tokens = ROOM,
                                   .max_batch_tokens = CHUNK,
                                   .pool_bytes = 300 * kept_page_bytes(D),
                                   .max_seqs = 4};
    CHECK_INT(kept_engine_new(model, &o, &e, &err), KEPT_OK);
    CHECK_INT(kept_engine_add_trained(e, basis, &err), KEPT_OK);
    return e;
}

static kept_seq *read_prompt(kept_engine *e, const kept_strategy *st)
{
    kept_seq *s = NULL;
    kept_error err;
    CHECK_INT(kept_seq_new(e, st, NULL, 3, &s, &err), KEPT_OK);
    CHECK_INT(kept_seq_prefill(s, tokens, N_PROMPT, CHUNK, 0, &err), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &err), KEPT_OK);
    return s;
}

/* x [n][D] of n layers becomes what coefficients along the first r directions say, in double. A
 * direction of the file is in channels. */
static void project(const kept_engine *e, int codec, bool v, int first, int n, int32_t pos,
                    double *x)
{
    const int r = kept_codec_channels(codec, D), b = kept_codec_get(codec)->basis;
    const bool turned = !v && b != KEPT_BASIS_FLAT, neox = e->model->rope_neox;
    double c[D] = {0};
    for (int sign = -1; sign < 2; sign += 2) {
        for (int l = 0; l < n && turned; l++)
            for (int j = 0; j < D / 2; j++) {
                double *p = x + l * D + (neox ? j : 2 * j), *q = neox ? p + D / 2 : p + 1, a = *p;
                const double t = sign * (double)pos * (double)e->rope_freq[j];
                *p = cos(t) * a - sin(t) * *q;
                *q = sin(t) * a + cos(t) * *q;
            }
        if (sign > 0)
            return;
        for (int i = 0; i < r; i++)
            for (int k = 0; k < n * D; k++)
                c[i] += (double)the.u[first % 4 + k / D][b][v][i * D + k % D] * x[k];
        for (int k = 0; k < n * D; k++) {
            x[k] = 0;
            for (int i = 0; i < r; i++)
                x[k] += c[i] * (double)the.u[first % 4 + k / D][b][v][i * D + k % D];
        }
    }
}

static void check_held(const kept_seq *s, const kept_seq *full, kept_codecs form)
{
    static float is[2][ROOM * D], was[4][2][ROOM * D];
    int32_t pos[ROOM];
    const int g = kept_codec_layers(form);
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++) {
            const int first = l / g * g;
            const int n = first + g <= info->n_layers ? g : info->n_layers - first;
            double worst = 0;
            kept_cache_read(s->cache, l, h, pos, is[0], is[1]);
            for (int k = 0; k < n; k++)
                kept_cache_read(full->cache, first + k, h, NULL, was[k][0], was[k][1]);
            for (int i = 0; i < N_PROMPT; i += 7)
                for (int v = 0; v < 2; v++) {
                    double x[4 * D], error = 0, length = 0;
                    for (int k = 0; k < n * D; k++)
                        x[k] = (double)was[k / D][v][i * D + k % D];
                    if (i < N_PROMPT / P64 * P64)
                        project(s->engine, v ? form.v : form.k, v, first, n, pos[i], x);
                    for (int d = 0; d < D; d++) {
                        const double y = x[(l - first) * D + d];
                        error += pow((double)is[v][i * D + d] - y, 2);
                        length += y * y;
                    }
                    worst = fmax(worst, sqrt(error / length));
                }
            CHECK(worst < 2e-3);
        }
}

static void stored(void)
{
    static const struct {
        const char *spec;
        kept_codecs form;
    } row[] = {{"full+palu50", {KEPT_LOW50, KEPT_LOW50}},
               {"full+store(k=low25,v=low75)", {KEPT_LOW25, KEPT_LOW75}},
               {"full+store(k=flat50,v=f16)", {KEPT_FLAT50, KEPT_F16}},
               {"full+palu50+layers", {KEPT_LOW50, KEPT_LOW50}},
               {"full+xkv50", {KEPT_PAIR100, KEPT_PAIR100}},
               {"full+xkv12+layers", {KEPT_QUAD50, KEPT_QUAD50}}};
    kept_engine *e = start_engine();
    kept_seq *full = read_prompt(e, NULL);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        kept_strategy *st = NULL;
        kept_account a;
        uint64_t kv, meta;
        CHECK_INT(kept_strategy_parse(row[i].spec, &st, NULL), KEPT_OK);
        kept_seq *s = read_prompt(e, st);
        if (row[i].form.v == KEPT_F16) { /* values stay */
            static float k[ROOM * D], v[2][ROOM * D];
            kept_cache_read(s->cache, 1, 0, NULL, k, v[0]);
            kept_cache_read(full->cache, 1, 0, NULL, k, v[1]);
            CHECK(!memcmp(v[0], v[1], N_PROMPT * D * sizeof(float)));
        } else {
            check_held(s, full, row[i].form);
        }
        kept_seq_account(s, &a);
        kept_cache_walk(s->cache, &kv, &meta);
        CHECK_INT(a.kv_bytes, kv);
        CHECK_INT(a.meta_bytes, meta);
        CHECK(meta > (uint64_t)(info->n_layers * info->n_kv_heads * D * 4 * 16));
        CHECK_INT(kv, kept_strategy_bytes(st, info->n_layers, info->n_kv_heads, D,
                                          (uint64_t)kept_seq_held(s).slots));
        kept_seq_free(s);
        kept_strategy_free(st);
    }
    kept_seq_free(full);
    kept_engine_free(e);
}

/* All directions: logits of the full cache but for rounding; a fork has the bits of its source. */
static void decoded(void)
{
    const size_t v = (size_t)info->n_vocab;
    float *out[4];
    kept_strategy *st = NULL;
    kept_engine *e = start_engine();
    util_run r = {.engine = e, .n_vocab = info->n_vocab};
    CHECK_INT(kept_strategy_parse("full+store(k=low100)", &st, NULL), KEPT_OK);
    kept_seq *full = read_prompt(e, NULL), *low = read_prompt(e, st), *fork = NULL;
    CHECK_INT(kept_seq_fork(low, st, NULL, 3, &fork, NULL), KEPT_OK);
    kept_seq *s[] = {full, low, fork};
    for (int i = 0; i < 3; i++) {
        out[i] = calloc(N_DECODE * v, sizeof(float));
        CHECK_INT(util_decode(&r, s[i], tokens + N_PROMPT, N_DECODE, out[i]), KEPT_OK);
    }
    const double rms = util_compare(out[0], out[1], N_DECODE, info->n_vocab).rel_rms;
    printf("# all directions: %.2g\n", rms);
    CHECK(rms > 0 && rms < 2e-3);
    CHECK(!memcmp(out[1], out[2], N_DECODE * v * sizeof(float)));
    for (int i = 0; i < 3; i++) {
        kept_seq_free(s[i]);
        free(out[i]);
    }
    kept_strategy_free(st);
    kept_engine_free(e);
}

static void parked(void)
{
    kept_strategy *st = NULL, *shared = NULL;
    kept_error err;
    void *data = NULL;
    size_t n = 0;
    static float k[2][ROOM * D], v[2][ROOM * D];
    CHECK_INT(kept_strategy_parse("full+palu50", &st, NULL), KEPT_OK);
    CHECK_INT(kept_strategy_parse("full+xkv50", &shared, NULL), KEPT_OK);
    kept_engine *e = start_engine();
    kept_seq *s = read_prompt(e, shared), *back = NULL;
    CHECK_INT(kept_seq_park(s, &data, &n, &err), KEPT_UNSUPPORTED);
    CHECK(strstr(err.text, "cannot be parked; store k=low50") != NULL);
    kept_seq_free(s);
    s = read_prompt(e, st);
    kept_cache_read(s->cache, 1, 1, NULL, k[0], v[0]);
    CHECK_INT(kept_seq_park(s, &data, &n, &err), KEPT_OK);
    CHECK_INT(kept_seq_resume(e, st, data, n, &back, &err), KEPT_OK);
    kept_cache_read(back->cache, 1, 1, NULL, k[1], v[1]);
    CHECK(!memcmp(k[0], k[1], N_PROMPT * D * sizeof(float)));
    CHECK(!memcmp(v[0], v[1], N_PROMPT * D * sizeof(float)));
    /* Another file: not while sequences are alive, and pages of the first are no pages of it. */
    the.u[0][KEPT_BASIS_LOW][0][0] += 0.5f;
    kept_trained *other = make_file(kept_trained_model_sha256(basis));
    CHECK_INT(kept_engine_add_trained(e, other, &err), KEPT_ARGUMENT);
    kept_seq_free(back);
    CHECK_INT(kept_engine_add_trained(e, other, &err), KEPT_OK);
    CHECK_INT(kept_seq_resume(e, st, data, n, &back, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "other directions") != NULL);
    the.u[0][KEPT_BASIS_LOW][0][0] -= 0.5f;
    free(data);
    kept_engine_free(e);
    kept_trained_free(other);
    kept_strategy_free(st);
    kept_strategy_free(shared);
}

static void refused(void)
{
    kept_engine *e = NULL;
    kept_error err;
    kept_seq *s;
    kept_strategy *st = NULL;
    char sha256[65];
    const kept_engine_options o = {.max_tokens = ROOM, .pool_bytes = 300 * kept_page_bytes(D)};
    memset(sha256, 'a', 64);
    sha256[64] = 0;
    kept_trained *other = make_file(sha256);
    CHECK_INT(kept_strategy_parse("full+palu50", &st, NULL), KEPT_OK);
    CHECK_INT(kept_engine_new(model, &o, &e, &err), KEPT_OK);
    CHECK_INT(kept_engine_add_trained(e, other, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "aaaaaaaaaaaa") != NULL);
    CHECK_INT(kept_seq_new(e, st, NULL, 3, &s, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "make it with: kept calibrate basis MODEL") != NULL);
    kept_engine_free(e);
    kept_trained_free(other);
    kept_strategy_free(st);
}

static void open_model(const char *arch)
{
    char path[] = "/tmp/kept-low-XXXXXX", sha256[65];
    kept_error err;
    mkgguf_spec spec = mkgguf_default(arch);
    const int fd = mkstemp(path);
    CHECK(fd >= 0 && !close(fd) && mkgguf_write(path, &spec) == 0);
    CHECK_INT(kept_model_open(path, &model, &err), KEPT_OK);
    info = kept_model_get_info(model);
    CHECK_INT(info->head_size, D);
    CHECK_INT(kept_model_sha256(model, sha256, &err), KEPT_OK);
    unlink(path);
    tokens = util_tokens(ROOM, info->n_vocab, 5);
    basis = make_file(sha256);
}

static void close_model(void)
{
    kept_trained_free(basis);
    free(tokens);
    kept_model_free(model);
}

int main(void)
{
    start(D, D, true);
    open_model("llama");
    RUN(stored);
    RUN(decoded);
    RUN(parked);
    RUN(refused);
    close_model();
    open_model("qwen2");
    RUN(stored);
    close_model();
    stop();
    TEST_END();
}
