/* Sparse reading: which pages a decode step attends to, and that it attends to these and to nothing
 * else. The oracle of choices is a double-precision reading of the papers' formulas over the keys
 * and the query that the sequence holds; that of what is attended to is a cache from which the
 * other pages were really dropped. */
#include "engine_util.h"
#include "mkgguf.h"
#include "model/engine.h"
#include "model/work.h"
#include "policy/parts.h"
#include "test.h"

#include <unistd.h>

enum { N_PROMPT = 505, N_STEPS = 20, N_ALL = N_PROMPT + N_STEPS, MAX_PAGES = 20 };

typedef struct fixture {
    char *path;
    kept_model *model;
    const kept_model_info *info;
    int32_t *tokens; /* [N_ALL] */
} fixture;

static fixture fix_new(const char *arch, int n_layers, int head_size)
{
    fixture f = {.path = mkgguf_temp()};
    kept_error err;
    mkgguf_spec s = mkgguf_default(arch);
    s.n_layers = n_layers;
    s.head_size = head_size;
    s.n_ctx = 2048;
    s.qk_gain = 3; /* peaked attention: choices matter */
    s.sliding_window = !strcmp(arch, "gemma3") ? 128 : 0;
    if (!f.path || mkgguf_write(f.path, &s) || kept_model_open(f.path, &f.model, &err)) {
        fprintf(stderr, "no model\n");
        exit(1);
    }
    f.info = kept_model_get_info(f.model);
    f.tokens = util_tokens(N_ALL, f.info->n_vocab, 7);
    return f;
}

static void fix_end(fixture *f)
{
    unlink(f->path);
    free(f->path);
    free(f->tokens);
    kept_model_free(f->model);
}

static util_run start(const fixture *f, int threads)
{
    util_run r = {.n_vocab = f->info->n_vocab};
    kept_engine_options o = {
        .n_threads = threads, .max_tokens = 1200, .max_seqs = 8, .pool_bytes = (size_t)64 << 20};
    CHECK_INT(kept_engine_new(f->model, &o, &r.engine, &r.err), KEPT_OK);
    return r;
}

/* A sequence of spec that has read the prompt. */
static kept_seq *prompted(util_run *r, const fixture *f, const char *spec,
                          const kept_capture *capture, kept_strategy **st)
{
    kept_seq *s = NULL;
    CHECK_INT(kept_strategy_parse(spec, st, &r->err), KEPT_OK);
    CHECK_INT(kept_seq_new(r->engine, *st, capture, 1, &s, &r->err), KEPT_OK);
    CHECK_INT(util_prefill(r, s, f->tokens, N_PROMPT, 256, NULL), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &r->err), KEPT_OK);
    return s;
}

static float *decode(util_run *r, const fixture *f, kept_seq *s, int n)
{
    float *out = malloc((size_t)n * (size_t)r->n_vocab * sizeof *out);
    CHECK_INT(util_decode(r, s, f->tokens + N_PROMPT, n, out), KEPT_OK);
    return out;
}

/* ---- the choice ------------------------------------------------------------------------------ */

static void pick_takes_the_best(void)
{
    float score[40], work[40];
    int32_t list[40];
    uint64_t seed = 5;
    for (int round = 0; round < 3000; round++) {
        const int n = 1 + round % 40, k = 1 + round / 40 % n;
        for (int i = 0; i < n; i++) { /* many ties */
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            score[i] = (float)(seed >> 33) / 4e8f;
            score[i] = round % 3 ? floorf(score[i]) : score[i];
        }
        kept_read_pick(score, n, k, work, list);
        int at = 0;
        for (int i = 0; i < n; i++) {
            int better = 0;
            for (int j = 0; j < n; j++)
                better += score[j] > score[i] || (score[j] == score[i] && j > i);
            if (better < k)
                CHECK_INT(list[at++], i);
        }
        CHECK_INT(at, k);
    }
}

/* Score of a page of 64 keys [64][d] for one query, by the paper. */
typedef double page_score(const float *key, const float *q, int d);

static double quest_score(const float *key, const float *q, int d)
{
    double sum = 0;
    for (int c = 0; c < d; c++) {
        double best = -INFINITY;
        for (int i = 0; i < 64; i++)
            best = fmax(best, (double)q[c] * (double)key[i * d + c]);
        sum += best; /* the greatest product is that of the least or the greatest key */
    }
    return sum;
}

static double mean_score(const float *key, const float *q, int d)
{
    double sum = 0;
    for (int i = 0; i < 64; i++)
        for (int c = 0; c < d; c++)
            sum += (double)q[c] * (double)key[i * d + c] / 64;
    return sum;
}

/* Half of the channels, those with the largest |q|. */
static double rocket_score(const float *key, const float *q, int d)
{
    double sum = 0;
    for (int c = 0; c < d; c++) {
        int larger = 0;
        double best = -INFINITY;
        for (int j = 0; j < d; j++)
            larger += fabsf(q[j]) > fabsf(q[c]);
        for (int i = 0; i < 64; i++)
            best = fmax(best, (double)q[c] * (double)key[i * d + c]);
        sum += larger < d / 2 ? best : 0;
    }
    return sum;
}

enum { MAX, SUM, SOFT };

/* What biases [64] (base 2) add to the score of a page: a bound takes the greatest, a mean key
 * stands for the mean weight. */
static double bias_score(page_score *fn, const float *bias, double scale)
{
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < 64; i++) {
        most = fmax(most, bias[i]);
        sum += exp2(bias[i]) / 64;
    }
    return (fn == mean_score ? log(sum) : most * log(2)) / scale;
}

/* Scores of n pages over the query heads q [group][d]. bias [n][64], or NULL. */
static void naive_scores(page_score *fn, int gqa, const float *key, const float *q, int group,
                         int d, int n, double scale, const float *bias, double *out)
{
    double x[MAX_PAGES];
    for (int g = 0; g < group; g++) {
        double sum = 0;
        for (int p = 0; p < n; p++) {
            x[p] = fn(key + (size_t)p * 64 * (size_t)d, q + g * d, d) +
                   (bias ? bias_score(fn, bias + 64 * p, scale) : 0);
            sum += exp(scale * x[p]);
        }
        for (int p = 0; p < n; p++) {
            const double y = gqa == SOFT ? exp(scale * x[p]) / sum : x[p];
            out[p] = !g ? y : gqa == MAX ? fmax(out[p], y) : out[p] + y;
        }
    }
}

/* After a decode step of s: the last layer's choices are those of the formula. Pages whose scores
 * are nearer than rounding may stand for each other. */
static void check_choices(const kept_seq *s, page_score *fn, int gqa, int n_read)
{
    const kept_engine *e = s->engine;
    const kept_model_info *info = &e->model->info;
    const int d = info->head_size, group = info->n_heads / info->n_kv_heads;
    const int layer = info->n_layers - 1;
    float *key = malloc((size_t)N_ALL * (size_t)d * sizeof *key);
    const float *q = s->recent + (size_t)layer * (size_t)(info->n_heads * d);
    for (int h = 0; h < info->n_kv_heads; h++) {
        const int n = kept_cache_n(s->cache, layer, h), pages = (n + 63) / 64;
        const int32_t *list = e->reads + e->work.read[h];
        double score[MAX_PAGES], worst = INFINITY, best = -INFINITY;
        bool read[MAX_PAGES] = {false};
        CHECK(e->work.read[h] != SIZE_MAX);
        kept_cache_read(s->cache, layer, h, NULL, key, NULL);
        static float bias[N_ALL];
        if (s->bias_plane >= 0)
            kept_cache_read_state(s->cache, layer, h, s->bias_plane, bias);
        naive_scores(fn, gqa, key, q + h * group * d, group, d, pages - 1, e->model->attn_scale,
                     s->bias_plane < 0 ? NULL : bias, score);
        for (int i = 0; i < n_read; i++) {
            CHECK(list[i] < pages && (!i || list[i] > list[i - 1]));
            read[list[i]] = true;
        }
        CHECK_INT(list[n_read - 1], pages - 1); /* the newest */
        for (int p = 0; p < pages - 1; p++) {
            worst = read[p] ? fmin(worst, score[p]) : worst;
            best = read[p] ? best : fmax(best, score[p]);
        }
        CHECK(worst >= best - 1e-3 * fabs(best));
        CHECK(best > -INFINITY); /* something was left out */
    }
    free(key);
}

static void choices_are_the_formulas(void)
{
    static const struct {
        const char *spec;
        page_score *fn;
        int gqa, n_read; /* of 8 pages */
    } all[] = {
        {"full+quest(share=0.5,skip=0)", quest_score, MAX, 4},
        {"full+quest(share=0,pages=5,skip=1,gqa=sum)", quest_score, SUM, 5},
        {"full+landmarks(share=0.55)", mean_score, SOFT, 5},
        {"full+landmarks(gqa=max,pages=2)", mean_score, MAX, 2},
        {"full+rocket(share=0.5)", rocket_score, SUM, 4},
        {"snapkv+summary+quest(share=0.5,skip=0)@98%", quest_score, MAX, 4}, /* biases */
        {"snapkv+summary+landmarks(share=0.5)@98%", mean_score, SOFT, 4},
    };
    static const int sizes[] = {64, 80, 128};
    const kept_capture recent = {.n_recent = 1};
    for (int k = 0; k < 3; k++) {
        fixture f = fix_new("llama", 2, sizes[k]);
        util_run r = start(&f, 1);
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            kept_strategy *st;
            kept_seq *s = prompted(&r, &f, all[i].spec, &recent, &st);
            for (int l = 0; l < 2 && s->bias_plane >= 0; l++) /* large ones, which decide */
                for (int h = 0; h < f.info->n_kv_heads; h++)
                    for (int t = 0; t < kept_cache_n(s->cache, l, h); t++)
                        kept_cache_set_state(s->cache, l, h, s->bias_plane, t,
                                             (float)(t % 97 == h ? 5 + t % 7 : -(t % 3)));
            free(decode(&r, &f, s, 3));
            check_choices(s, all[i].fn, all[i].gqa, all[i].n_read);
            kept_seq_free(s);
            kept_strategy_free(st);
        }
        kept_engine_free(r.engine);
        fix_end(&f);
    }
}

/* Layers that do not choose read what the last one chose, as long as a head holds as many pages. */
static void layers_share_a_choice(void)
{
    fixture f = fix_new("llama", 5, 64);
    util_run r = start(&f, 2);
    kept_strategy *st[2];
    kept_seq *s[2];
    kept_account a[2];
    const int n_kv = f.info->n_kv_heads;
    const char *const specs[] = {"full+quest(share=0.5,skip=1,every=3)",
                                 "full+quest(share=0.5,skip=1)"};
    for (int i = 0; i < 2; i++) {
        s[i] = prompted(&r, &f, specs[i], NULL, &st[i]);
        free(decode(&r, &f, s[i], 1));
        kept_seq_account(s[i], &a[i]);
        /* Layer 1 reads all before it in both, so it chooses alike; layer 4 is the next to. */
        if (i == 0)
            for (int h = 0; h < n_kv; h++)
                CHECK_INT(r.engine->work.chosen[h], 4);
    }
    /* Notes of 7 pages, judged in layers 1 and 4 in place of 1, 2, 3 and 4. */
    CHECK_INT(a[1].read_bytes - a[0].read_bytes, (uint64_t)(2 * n_kv * 7 * 256));
    for (int i = 0; i < 2; i++) {
        kept_seq_free(s[i]);
        kept_strategy_free(st[i]);
    }
    /* Layer 2 (of 0, 1, 2) has no choice of its own: its list is that of layer 1. */
    fix_end(&f);
    kept_engine_free(r.engine);
    f = fix_new("llama", 3, 64);
    r = start(&f, 1);
    s[0] = prompted(&r, &f, "full+quest(share=0.5,skip=1,every=2)", NULL, &st[0]);
    free(decode(&r, &f, s[0], 1));
    for (int h = 0; h < n_kv; h++) {
        const int32_t *list = r.engine->reads + r.engine->work.read[h];
        const int32_t *known = r.engine->chosen + (size_t)h * r.engine->chosen_stride;
        CHECK_INT(r.engine->work.chosen[h], 1);
        CHECK(!memcmp(list, known, 4 * sizeof *list));
        CHECK_INT(list[3], 7);
    }
    kept_seq_free(s[0]);
    kept_strategy_free(st[0]);
    kept_engine_free(r.engine);
    fix_end(&f);
}

/* Values that nobody weighs: fewer bytes, and nearly the same logits. */
static void values_left_out(void)
{
    fixture f = fix_new("llama", 3, 64);
    util_run r = start(&f, 2);
    static const char *const specs[] = {"full", "full+sparse-v(below=60)",
                                        "full+sparse-v(below=2)"};
    float *out[3];
    kept_account a[3];
    for (int i = 0; i < 3; i++) {
        kept_strategy *st;
        kept_seq *s = prompted(&r, &f, specs[i], NULL, &st);
        out[i] = decode(&r, &f, s, 4);
        kept_seq_account(s, &a[i]);
        kept_seq_free(s);
        kept_strategy_free(st);
    }
    const size_t size = 4 * (size_t)r.n_vocab * sizeof *out[0];
    CHECK(!memcmp(out[0], out[1], size)); /* no page is as idle as that */
    CHECK_INT(a[0].read_bytes, a[1].read_bytes);
    CHECK(memcmp(out[0], out[2], size));
    CHECK(a[2].read_bytes < a[0].read_bytes && a[2].read_bytes >= a[0].read_bytes / 2);
    for (int i = 0; i < 3; i++)
        free(out[i]);
    kept_engine_free(r.engine);
    fix_end(&f);
}

/* ---- what is attended to --------------------------------------------------------------------- */

/* One layer, so that choices can be read off and a twin be made that holds nothing else: it gives
 * the same logits bit for bit. */
static void attends_to_these_alone(void)
{
    fixture f = fix_new("llama", 1, 64);
    util_run r = start(&f, 2);
    kept_strategy *st, *none;
    kept_seq *s = prompted(&r, &f, "full+quest(share=0.5,skip=0)", NULL, &st);
    kept_seq *twin = prompted(&r, &f, "full", NULL, &none);
    float *a = decode(&r, &f, s, 1);
    for (int h = 0; h < f.info->n_kv_heads; h++) {
        uint8_t keep[512] = {0};
        for (int i = 0; i < 4; i++)
            memset(keep + 64 * r.engine->reads[r.engine->work.read[h] + (size_t)i], 1, 64);
        CHECK_INT(kept_cache_retain(twin->cache, 0, h, keep), KEPT_OK);
    }
    float *b = decode(&r, &f, twin, 1);
    CHECK(!memcmp(a, b, (size_t)r.n_vocab * sizeof *a));
    kept_seq_free(s);
    kept_seq_free(twin);
    kept_strategy_free(st);
    kept_strategy_free(none);
    free(a);
    free(b);
    kept_engine_free(r.engine);
    fix_end(&f);
}

static bool same_logits(util_run *x, util_run *y, const fixture *f, const char *one,
                        const char *other)
{
    kept_strategy *st[2];
    kept_seq *s = prompted(x, f, one, NULL, &st[0]), *t = prompted(y, f, other, NULL, &st[1]);
    float *a = decode(x, f, s, N_STEPS), *b = decode(y, f, t, N_STEPS);
    const bool same = !memcmp(a, b, (size_t)N_STEPS * (size_t)x->n_vocab * sizeof *a);
    kept_seq_free(s);
    kept_seq_free(t);
    for (int i = 0; i < 2; i++)
        kept_strategy_free(st[i]);
    free(a);
    free(b);
    return same;
}

/* All pages: the bits of the full cache. Some: the same for any number of threads, and not those of
 * the full cache. Windowed layers read all. */
static void bits(void)
{
    static const char *const specs[] = {"full+quest(share=0.3,skip=0)",
                                        "h2o+decode(every=3)+quest(pages=2,skip=1)@50%",
                                        "streaming+decode(every=7)+landmarks(pages=2)@250"};
    static const char *const all[][2] = {{"full+landmarks(pages=9,share=0)", "full"},
                                         {"full+rocket(skip=200)", "full"},
                                         {"h2o+decode+quest(share=1)@50%", "h2o+decode@50%"}};
    static const char *const archs[] = {"llama", "gemma3"};
    for (int k = 0; k < 2; k++) {
        fixture f = fix_new(archs[k], k ? 7 : 3, 64);
        util_run one = start(&f, 1), two = start(&f, 2);
        CHECK(same_logits(&one, &one, &f, "full+quest(share=1)", "full"));
        CHECK(same_logits(&one, &two, &f, specs[0], specs[0]));
        CHECK(!same_logits(&one, &one, &f, specs[0], "full"));
        for (int i = 0; i < 3 && !k; i++) {
            CHECK(same_logits(&one, &one, &f, all[i][0], all[i][1]));
            CHECK(same_logits(&one, &two, &f, specs[i], specs[i]));
        }
        kept_engine_free(one.engine);
        kept_engine_free(two.engine);
        fix_end(&f);
    }
}

/* ---- accounts -------------------------------------------------------------------------------- */

/* Bytes held and read, to the byte, and that mass goes to the pages that were read alone. */
static void accounts(void)
{
    fixture f = fix_new("llama", 3, 64);
    util_run r = start(&f, 2);
    const kept_plane mass = {.kind = KEPT_PLANE_MASS, .window = INT32_MAX};
    const kept_capture capture = {.n_planes = 1, .plane = {mass}};
    kept_strategy *st[2];
    kept_seq *s = prompted(&r, &f, "full+quest(share=0.5,skip=1)", &capture, &st[0]);
    kept_seq *full = prompted(&r, &f, "full", &capture, &st[1]);
    kept_account a, b;
    uint64_t kv, meta;
    const int n_kv = f.info->n_kv_heads, group = f.info->n_heads / n_kv;
    const uint64_t heads = (uint64_t)(3 * n_kv), page = kept_page_bytes(64);
    static float before[N_ALL], after[N_ALL];
    kept_seq_account(s, &a);
    kept_seq_account(full, &b);
    CHECK_INT(a.kv_bytes, b.kv_bytes);
    /* 8 pages with a note of 256 bytes, and its place in a list sized for 1200 + 64 slots. */
    CHECK_INT(a.meta_bytes, b.meta_bytes + heads * (8 * 256 + 20 * 4));
    CHECK_INT(a.read_bytes + a.n_reads + b.read_bytes + b.n_reads, 0);
    kept_seq_plane(s, 2, 0, mass, before, N_ALL);
    free(decode(&r, &f, s, 1));
    kept_seq_plane(s, 2, 0, mass, after, N_ALL);
    const int32_t *list = r.engine->reads + r.engine->work.read[0];
    double sum = 0;
    for (int i = 0; i < N_PROMPT; i++) {
        bool read = false;
        for (int k = 0; k < 4; k++)
            read |= list[k] == i / 64;
        CHECK(read ? after[i] >= before[i] : after[i] == before[i]);
        sum += (double)after[i] - (double)before[i];
    }
    CHECK_NEAR(sum + (double)after[N_PROMPT], group, 2e-3);
    free(decode(&r, &f, full, 1));
    kept_seq_account(s, &a);
    kept_seq_account(full, &b);
    CHECK_INT(a.n_reads, 1);
    CHECK_INT(b.read_bytes, heads * 8 * page);
    CHECK_INT(a.read_bytes, heads / 3 * 8 * page + heads / 3 * 2 * (4 * page + 7 * 256));
    kept_cache_account(s->cache, &a);
    kept_cache_walk(s->cache, &kv, &meta);
    CHECK_INT(a.kv_bytes, kv);
    CHECK_INT(a.meta_bytes, meta);
    kept_seq_free(s);
    kept_seq_free(full);
    for (int i = 0; i < 2; i++)
        kept_strategy_free(st[i]);
    kept_engine_free(r.engine);
    fix_end(&f);
}

/* A page whose key is rewritten gets a new note. */
static void rewritten_key(void)
{
    kept_pool *pool;
    kept_cache *c;
    float row[64] = {0}, big[64] = {[3] = 9}, scratch[64 * 64 + KEPT_NOTE_BLOCK];
    CHECK_INT(kept_pool_new(64, 8, 64, &pool, NULL), KEPT_OK);
    CHECK_INT(kept_cache_new(pool, kept_kern_get(NULL), 1, 1, 0, 200, &c, NULL), KEPT_OK);
    CHECK_INT(kept_cache_set_notes(c, 1), KEPT_OK);
    CHECK_INT(kept_cache_reserve(c, 0, 0, 65), KEPT_OK);
    for (int i = 0; i < 65; i++)
        kept_cache_put(c, 0, 0, i, row, row, i);
    kept_cache_commit(c, 0, 0, 65);
    kept_cache_refresh_notes(c, 0, 0, 1, kept_read_quest.describe, scratch);
    CHECK_INT(kept_cache_note(c, 0, 0, 0, 0)[64 + 3], 0);
    CHECK_INT(kept_cache_set_row(c, 0, 0, 40, big, NULL), KEPT_OK);
    kept_cache_refresh_notes(c, 0, 0, 1, kept_read_quest.describe, scratch);
    CHECK_INT(kept_cache_note(c, 0, 0, 0, 0)[64 + 3], kept_f32_to_f16(9));
    kept_cache_free(c);
    kept_pool_free(pool);
}

/* A branch of a sequence that evicted once for all goes on as it would have itself. */
static void branches(void)
{
    fixture f = fix_new("llama", 3, 64);
    util_run r = start(&f, 2);
    kept_strategy *st, *again;
    kept_seq *s = prompted(&r, &f, "snapkv+slot+quest(pages=2,skip=0)@50%", NULL, &st), *copy;
    CHECK_INT(kept_strategy_parse(kept_strategy_resolved(st), &again, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_fork(s, again, NULL, 1, &copy, &r.err), KEPT_OK);
    float *a = decode(&r, &f, s, N_STEPS), *b = decode(&r, &f, copy, N_STEPS);
    CHECK(!memcmp(a, b, (size_t)N_STEPS * (size_t)r.n_vocab * sizeof *a));
    kept_account x, y;
    kept_seq_account(s, &x);
    kept_seq_account(copy, &y);
    CHECK(x.read_bytes > 0);
    CHECK_INT(x.read_bytes, y.read_bytes);
    kept_seq_free(s);
    kept_seq_free(copy);
    kept_strategy_free(st);
    kept_strategy_free(again);
    free(a);
    free(b);
    kept_engine_free(r.engine);
    fix_end(&f);
}

/* Specs that cannot be, and where and why. */
static void refusals(void)
{
    static const struct {
        const char *spec;
        int at;
        const char *why;
    } all[] = {
        {"full+qest", 5, "did you mean 'quest'?"},
        {"full+quest@20%", 10, "no budget"},
        {"full+quest+rocket", 11, "sets the read, which 'quest' at character 5"},
        {"full+quest(shar=1)", 11, "did you mean 'share'?"},
        {"full+quest(share=1.5)", 17, "a number in 0..1"},
        {"h2o+landmarks(pages=0)@20%", 20, "integer in 1..1048576"},
        {"full+rocket(gqa=mean)", 16, "choice of option 'gqa'"},
        {"full+quest+ada", 11, "no allocator"},
        {"quest", 0, "no score"},
        {"adaptive(calm=full+quest,tight=h2o@20%)", 19, "belongs behind the brackets"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        kept_strategy *s = NULL;
        kept_error err = {"", 0};
        CHECK_INT(kept_strategy_parse(all[i].spec, &s, &err), KEPT_ARGUMENT);
        CHECK_INT(err.at, all[i].at);
        if (!strstr(err.text, all[i].why)) {
            fprintf(stderr, "%s: %s\n", all[i].spec, err.text);
            test_failed = 1;
        }
    }
}

int main(void)
{
    RUN(refusals);
    RUN(pick_takes_the_best);
    RUN(choices_are_the_formulas);
    RUN(layers_share_a_choice);
    RUN(values_left_out);
    RUN(attends_to_these_alone);
    RUN(bits);
    RUN(accounts);
    RUN(rewritten_key);
    RUN(branches);
    TEST_END();
}
