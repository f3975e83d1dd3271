/* test_train: every kind on a small random model: the same bytes on any number of threads and after
 * being stopped anywhere; files that fit and files that do not; the regression against its normal
 * equations in double precision; the threshold while decoding. */
#include "model/ahead.h"
#include "train_rig.h"

static int n_steps[N_JOBS];

static void every_kind_twice(void)
{
    for (int i = 0; i < N_JOBS; i++) {
        kept_train_options o = options(i, made(i));
        kept_train_report r = make(&o, KEPT_OK);
        CHECK(!r.was_there && !r.resumed && !r.stale);
        n_steps[i] = r.n_steps;
        if (r.file)
            CHECK_STR(kept_trained_kind(r.file), job[i].kind);
        kept_trained_free(r.file);
        r = make(&o, KEPT_OK); /* it is there */
        CHECK(r.was_there);
        kept_trained_free(r.file);
        o.out = file("two.kept");
        o.n_threads = 2;
        r = make(&o, KEPT_OK);
        CHECK(!r.was_there);
        kept_trained_free(r.file);
        if (!same_bytes(made(i), o.out)) {
            fprintf(stderr, "%s differs on two threads\n", job[i].kind);
            test_failed = 1;
        }
        unlink(o.out);
    }
}

/* Stops when the step with number `at` begins. */
typedef struct stopper {
    int at, seen;
    char last[64];
} stopper;

static bool stop_at(void *ctx, double done, const char *what)
{
    stopper *s = ctx;
    CHECK(done >= 0 && done <= 1);
    s->seen += strcmp(s->last, what) != 0;
    snprintf(s->last, sizeof s->last, "%s", what);
    return s->seen <= s->at;
}

static void stopped_anywhere_goes_on(void)
{
    char ckpt[128];
    for (int i = 0; i < N_JOBS; i++)
        for (int at = 1; at < n_steps[i]; at += 2) {
            stopper s = {.at = at};
            kept_train_options o = options(i, file("cut.kept"));
            if (at > 1 && !!strcmp(job[i].kind, "kvzap") &&
                (at != 5 || !!strcmp(job[i].kind, "ranker")))
                continue; /* after the first document, in the middle of kvzap and of ranker */
            snprintf(ckpt, sizeof ckpt, "%s.ckpt", o.out);
            o.progress = stop_at;
            o.ctx = &s;
            make(&o, KEPT_CANCELLED);
            CHECK(!access(ckpt, F_OK) && access(o.out, F_OK));
            o.progress = NULL;
            o.n_threads = 2;
            kept_train_report r = make(&o, KEPT_OK);
            CHECK_INT(r.resumed, at);
            CHECK(access(ckpt, F_OK));
            kept_trained_free(r.file);
            if (!same_bytes(made(i), o.out)) {
                fprintf(stderr, "%s differs after it was stopped at step %d\n", job[i].kind, at);
                test_failed = 1;
            }
            unlink(o.out);
        }
}

/* A checkpoint of other arguments, or a damaged one, is not gone on from. */
static void stale_checkpoints_are_thrown_away(void)
{
    char ckpt[128];
    for (int damaged = 0; damaged < 2; damaged++) {
        stopper s = {.at = 1};
        kept_train_options o = options(4, file("cut.kept"));
        snprintf(ckpt, sizeof ckpt, "%s.ckpt", o.out);
        o.progress = stop_at;
        o.ctx = &s;
        o.seed = damaged ? 5 : 6;
        make(&o, KEPT_CANCELLED);
        if (damaged)
            CHECK(!truncate(ckpt, 1000));
        o.progress = NULL;
        o.seed = 5;
        kept_train_report r = make(&o, KEPT_OK);
        CHECK(r.stale && !r.resumed);
        kept_trained_free(r.file);
        CHECK(same_bytes(made(4), o.out));
        unlink(o.out);
    }
}

enum { NEEDED = 10 };

/* The arrays that readers look for; see docs/add-a-strategy.md. */
static const char *const needed[N_JOBS][NEEDED + 1] = {
    {"alpha"},
    {"score"},
    {"filter"},
    {"mean", "modulus"},
    {"mean", "cov"},
    {"ratio", "keep"},
    {"w1.0", "b1.1"},
    {"w1.0", "b1.1", "w2.0", "b2.1"},
    {"w1", "b1", "w2", "b2"},
    {"k-q8", "k-rot4", "k-rot3", "k-rot2", "v-q8", "v-rot4", "v-rot3", "v-rot2"},
    {"budget", "kl"},
    {"k", "v", "flat", "k2", "v2", "k4", "v4"},
    {"k-zero", "k-scale", "k4", "k3", "k4s", "k3s", "v4", "v3", "v4s", "v3s"}};

/* t without array `name` (bad 0), with a float too many (1), with one that is not finite (2), of
 * another model (3). */
static kept_trained *spoil(int i, const kept_trained *t, const char *name, int bad)
{
    kept_trained *u = NULL;
    char sha[65];
    snprintf(sha, sizeof sha, "%s", kept_trained_model_sha256(t));
    sha[3] = bad == 3 ? (sha[3] == '0' ? '1' : '0') : sha[3];
    CHECK_INT(kept_trained_new(job[i].kind, sha, &u, NULL), KEPT_OK);
    for (int k = 0; k < 2 * info.n_layers || needed[i][k % NEEDED]; k++) {
        static const char *const each[] = {"w1", "b1", "w2", "b2"};
        bool kvzap = !strcmp(job[i].kind, "kvzap");
        char own[16];
        snprintf(own, sizeof own, "%s.%d", each[k % 4], k / 4);
        if (kvzap ? k >= 4 * info.n_layers : k >= NEEDED || !needed[i][k])
            break;
        const char *array = kvzap ? own : needed[i][k];
        size_t n;
        const float *x = kept_trained_array(t, array, &n);
        bool this = !strcmp(array, name);
        if (!x || (this && bad == 0))
            continue;
        float *copy = calloc(n + 1, sizeof *copy);
        memcpy(copy, x, n * sizeof *x);
        if (this && bad == 2)
            copy[n / 2] = NAN;
        CHECK_INT(kept_trained_put(u, array, copy, n + (this && bad == 1), NULL), KEPT_OK);
        free(copy);
    }
    return u;
}

/* A file of the same arguments that readers would refuse, such as one of an older version, is made
 * again. */
static void unfit_files_are_made_again(void)
{
    static const char *const notes[] = {"arguments", "text"};
    kept_trained *t = load(2), *u = spoil(2, t, "filter", 1);
    const kept_train_options o = options(2, file("unfit.kept"));
    for (int i = 0; i < 2; i++)
        CHECK_INT(kept_trained_set_note(u, notes[i], kept_trained_note(t, notes[i]), NULL),
                  KEPT_OK);
    CHECK_INT(kept_trained_save(u, o.out, NULL), KEPT_OK);
    kept_train_report r = make(&o, KEPT_OK);
    CHECK(!r.was_there && same_bytes(made(2), o.out));
    kept_trained_free(r.file);
    r = make(&o, KEPT_OK);
    CHECK(r.was_there);
    kept_trained_free(r.file);
    kept_trained_free(t);
    kept_trained_free(u);
    unlink(o.out);
}

static void files_fit_or_are_refused(void)
{
    kept_engine_options eo = {.n_threads = 1, .max_tokens = 64};
    kept_engine *e = NULL;
    CHECK_INT(kept_engine_new(model, &eo, &e, NULL), KEPT_OK);
    for (int i = 0; i < N_JOBS; i++) {
        kept_trained *t = load(i);
        kept_error err = {.text = ""};
        if (!t)
            continue;
        CHECK_INT(kept_engine_add_trained(e, t, &err), KEPT_OK);
        for (int k = 0; k < NEEDED && needed[i][k]; k++)
            for (int bad = 0; bad < 4; bad++) {
                kept_trained *u = spoil(i, t, needed[i][k], bad);
                err.text[0] = 0;
                kept_status st = kept_engine_add_trained(e, u, &err);
                if (st != KEPT_ARGUMENT || !strstr(err.text, job[i].kind) ||
                    (bad == 3 && !strstr(err.text, "SHA-256"))) {
                    fprintf(stderr, "%s.%s, %d: %d %s\n", job[i].kind, needed[i][k], bad, st,
                            err.text);
                    test_failed = 1;
                }
                kept_trained_free(u);
            }
        CHECK_INT(kept_engine_add_trained(e, t, &err), KEPT_OK); /* nothing dangles */
        kept_trained_free(t);
        kept_engine_free(e);
        CHECK_INT(kept_engine_new(model, &eo, &e, NULL), KEPT_OK);
    }
    kept_engine_free(e);
}

/* ---- kvzap --------------------------------------------------------------------------------- */

typedef struct tape {
    float *x; /* [n_layers][LENGTH][n_embd] */
} tape;

static void record(void *ctx, const kept_seq *s, int layer, int32_t pos0, int n, const float *x)
{
    tape *t = ctx;
    (void)s;
    memcpy(t->x + (size_t)(layer * LENGTH + pos0) * (size_t)info.n_embd, x,
           (size_t)(n * info.n_embd) * sizeof *x);
}

/* Hidden states and log kvzip-plus scores [n_layers][n_heads][LENGTH] of a document. */
static void observe(const int32_t *tokens, float *x, double *y)
{
    const kept_plane plus = {.kind = KEPT_PLANE_ECHO_PLUS};
    const kept_capture cap = {.n_planes = 1, .plane = {plus}};
    kept_engine_options eo = {.n_threads = 1, .max_tokens = 1024};
    util_run r = {.n_vocab = info.n_vocab};
    tape t = {x};
    kept_seq *s = NULL;
    CHECK_INT(kept_engine_new(model, &eo, &r.engine, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, NULL, &cap, 1, &s, &r.err), KEPT_OK);
    kept_engine_tap(r.engine, record, &t);
    CHECK_INT(util_prefill(&r, s, tokens, LENGTH, LENGTH, NULL), KEPT_OK);
    kept_engine_tap(r.engine, NULL, NULL);
    CHECK_INT(kept_seq_echo(s, &r.err), KEPT_OK);
    for (int l = 0; l < info.n_layers; l++)
        for (int h = 0; h < info.n_kv_heads; h++) {
            float p[LENGTH];
            int32_t pos[LENGTH];
            CHECK_INT(kept_seq_plane(s, l, h, plus, p, LENGTH), LENGTH);
            kept_seq_positions(s, l, h, pos, LENGTH);
            for (int i = 0; i < LENGTH; i++)
                y[(l * info.n_kv_heads + h) * LENGTH + pos[i]] = log(fmax(p[i], 1e-9));
        }
    kept_seq_free(s);
    kept_engine_free(r.engine);
}

/* The weights that were written are where the ridge objective is flat: its gradient, in double, is
 * nothing beside the gradient at zero weights. */
static void check_flat(const kept_trained *t, const float *x[2], double *const y[2], int l, int h)
{
    int E = info.n_embd, n = 2 * LENGTH;
    char name[16];
    size_t size;
    snprintf(name, sizeof name, "w1.%d", l);
    const float *w = kept_trained_array(t, name, &size) + h * E;
    snprintf(name, sizeof name, "b1.%d", l);
    const float *b = kept_trained_array(t, name, &size) + h;
    double *mean = calloc((size_t)E, 8), *dev = calloc((size_t)E, 8), *rest = calloc((size_t)n, 8);
    double bias = 0, all = 0, flat = 0, slope = 0, y_mean = 0;
    for (int i = 0; i < E; i++) { /* of the first document */
        for (int k = 0; k < LENGTH; k++)
            mean[i] += (double)x[0][(l * LENGTH + k) * E + i] / LENGTH;
        for (int k = 0; k < LENGTH; k++)
            dev[i] += pow(x[0][(l * LENGTH + k) * E + i] - mean[i], 2) / LENGTH;
        dev[i] = sqrt(dev[i]);
    }
    for (int k = 0; k < n; k++) {
        const float *row = x[k / LENGTH] + (l * LENGTH + k % LENGTH) * E;
        double said = b[0], is = y[k / LENGTH][(l * info.n_kv_heads + h) * LENGTH + k % LENGTH];
        for (int i = 0; i < E; i++)
            said += (double)w[i] * row[i];
        rest[k] = said - is;
        bias += rest[k];
        y_mean += is / n;
    }
    for (int i = 0; i < E; i++) {
        double g = 0.01 * n * w[i] * dev[i], zero = 0;
        for (int k = 0; k < n; k++) {
            double z = (x[k / LENGTH][(l * LENGTH + k % LENGTH) * E + i] - mean[i]) / dev[i];
            g += rest[k] * z;
            zero += (y_mean - y[k / LENGTH][(l * info.n_kv_heads + h) * LENGTH + k % LENGTH]) * z;
        }
        flat += g * g;
        slope += zero * zero;
        all += fabs((double)w[i]);
    }
    CHECK(all > 0 && slope > 0);
    CHECK(sqrt(flat / slope) < 1e-3);
    CHECK(fabs(bias) < 1e-3 * n);
    free(mean);
    free(dev);
    free(rest);
}

static void the_regression_solves_its_equations(void)
{
    kept_train_text text;
    kept_error err = {.text = ""};
    int32_t *docs = NULL;
    kept_trained *t = load(6);
    CHECK_INT(kept_train_text_open(text_path, &text, &err), KEPT_OK);
    CHECK_INT(kept_train_text_documents(&text, model, false, 5, 2, LENGTH, &docs, &err), KEPT_OK);
    size_t nx = (size_t)(info.n_layers * LENGTH * info.n_embd);
    size_t ny = (size_t)(info.n_layers * info.n_kv_heads * LENGTH);
    float *a = calloc(nx, sizeof *a), *b = calloc(nx, sizeof *b);
    double *c = calloc(ny, sizeof *c), *d = calloc(ny, sizeof *d);
    observe(docs, a, c);
    observe(docs + LENGTH, b, d);
    for (int l = 0; t && l < info.n_layers; l++)
        for (int h = 0; h < info.n_kv_heads; h++)
            check_flat(t, (const float *[]){a, b}, (double *const[]){c, d}, l, h);
    free(a);
    free(b);
    free(c);
    free(d);
    free(docs);
    kept_train_text_close(&text);
    kept_trained_free(t);
}

/* kvzap-threshold while decoding: a head holds the sinks, the recent window, and of the others
 * those whose prediction reaches the threshold. */
static void threshold_while_decoding(void)
{
    enum { N = 200, MORE = 40, RECENT = 32 };
    const kept_plane said = {.kind = KEPT_PLANE_PREDICTED};
    const kept_capture cap = {.n_planes = 1, .plane = {said}};
    kept_engine_options eo = {.n_threads = 1, .max_tokens = 512};
    util_run r = {.n_vocab = info.n_vocab};
    kept_trained *t = load(7);
    const char *half = t ? kept_trained_note(t, "threshold-50") : NULL;
    int32_t *tokens = util_tokens(N + MORE, info.n_vocab, 3), dropped = 0, stayed = 0;
    float *logits = calloc((size_t)(MORE * info.n_vocab), sizeof *logits);
    char spec[96];
    kept_strategy *s = NULL;
    kept_seq *cut = NULL, *full = NULL;
    float at = half ? strtof(half, NULL) : 0;
    CHECK(half != NULL);
    snprintf(spec, sizeof spec, "kvzap-threshold(at=%.3f,recent=%d)+decode(every=1)@100%%",
             (double)at, RECENT);
    CHECK_INT(kept_strategy_parse(spec, &s, &r.err), KEPT_OK);
    CHECK_INT(kept_engine_new(model, &eo, &r.engine, &r.err), KEPT_OK);
    CHECK_INT(kept_engine_add_trained(r.engine, t, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, s, &cap, 1, &cut, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, cut, tokens, N, 100, NULL), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, NULL, &cap, 1, &full, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, full, tokens, N, 100, NULL), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(cut, &r.err), KEPT_OK);
    CHECK_INT(util_decode(&r, cut, tokens + N, MORE, logits), KEPT_OK);
    for (int l = 0; l < info.n_layers; l++)
        for (int h = 0; h < info.n_kv_heads; h++) {
            float p[N + MORE], q[N + MORE];
            int32_t pos[N + MORE], old[N + MORE];
            bool here[N + MORE] = {false};
            int n = kept_seq_plane(cut, l, h, said, q, N + MORE);
            kept_seq_positions(cut, l, h, pos, N + MORE);
            CHECK_INT(kept_seq_plane(full, l, h, said, p, N), N);
            kept_seq_positions(full, l, h, old, N);
            for (int i = 0; i < n; i++) {
                here[pos[i]] = true;
                bool guarded = pos[i] < 4 || pos[i] >= N + MORE - RECENT;
                CHECK(guarded || q[i] >= at);
                stayed += !guarded;
            }
            for (int i = 0; i < N; i++) /* the prompt's were predicted on the full cache */
                if (old[i] >= 4 && old[i] < N + MORE - RECENT) {
                    CHECK_INT(here[old[i]], p[i] >= at);
                    dropped += !here[old[i]];
                }
            for (int i = N + MORE - RECENT; i < N + MORE; i++)
                CHECK(here[i]);
        }
    CHECK(dropped > 0 && stayed > 0);
    kept_seq_free(cut);
    kept_seq_free(full);
    kept_engine_free(r.engine);
    kept_strategy_free(s);
    kept_trained_free(t);
    free(tokens);
    free(logits);
}

/* ---- ranker -------------------------------------------------------------------------------- */

/* What it keeps of the future is nearer to the oracle than what chance keeps. */
static void the_ranker_beats_chance(void)
{
    kept_trained *t = load(8);
    static const char *const keys[] = {"held-out-of-oracle-25", "held-out-of-oracle-12.5"};
    for (int b = 0; t && b < 2; b++) {
        double ranker = 0, h2o = 0, snapkv = 0, chance = 0;
        const char *note = kept_trained_note(t, keys[b]);
        CHECK(note != NULL);
        CHECK_INT(sscanf(note ? note : "", "ranker %lf, h2o %lf, snapkv %lf, random %lf", &ranker,
                         &h2o, &snapkv, &chance),
                  4);
        CHECK(ranker > chance && ranker <= 1 && chance > 0 && h2o <= 1 && snapkv <= 1);
    }
    CHECK(t && kept_trained_note(t, "held-out-r2") && kept_trained_note(t, "held-out-spearman"));
    kept_trained_free(t);
}

/* Square errors of forms (Max 1960 for rot4, rot3, rot2: 0.0095, 0.0345, 0.1175 of the mean square)
 * turn into losses of about those proportions, head by head, for keys and for values; 8 bits lose
 * next to nothing. */
static void bits_cost_what_they_should(void)
{
    kept_trained *t = load(9);
    size_t n;
    for (int v = 0; v < 2; v++) {
        const float *q8 = kept_trained_array(t, v ? "v-q8" : "k-q8", &n);
        const float *rot4 = kept_trained_array(t, v ? "v-rot4" : "k-rot4", &n);
        const float *rot3 = kept_trained_array(t, v ? "v-rot3" : "k-rot3", &n);
        const float *rot2 = kept_trained_array(t, v ? "v-rot2" : "k-rot2", &n);
        CHECK_INT(n, info.n_layers * info.n_kv_heads);
        for (size_t i = 0; i < n; i++) {
            CHECK(q8[i] > 0 && q8[i] < 0.02f * rot4[i]);
            CHECK(rot4[i] < 0.05f && rot3[i] > 2 * rot4[i] && rot3[i] < 6 * rot4[i]);
            CHECK(rot2[i] > 2 * rot3[i] && rot2[i] < 6 * rot3[i]);
        }
    }
    kept_trained_free(t);
}

static double product(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Directions are orthonormal, those of a pair over both layers of it; what they hold of all squares
 * falls with their number, and all directions of a layer alone hold all of it, before rotation and
 * after: a rotation keeps lengths. */
static void directions_are_orthonormal(void)
{
    static const struct {
        const char *name;
        int layers;
    } row[] = {{"k", 1}, {"v", 1}, {"flat", 1}, {"k2", 2}, {"v2", 2}};
    kept_trained *t = load(11);
    const int D = info.head_size, H = info.n_kv_heads;
    for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
        size_t n;
        char note[32];
        double share[4] = {0};
        const float *u = kept_trained_array(t, row[k].name, &n);
        CHECK_INT(n, info.n_layers * H * D * D);
        for (int h = 0; h < H; h++)
            for (int i = 0; i < D; i++)
                for (int j = 0; j <= i; j++) {
                    double sum = 0;
                    for (int l = 0; l < row[k].layers; l++)
                        sum += product(u + ((l * H + h) * D + i) * D, u + ((l * H + h) * D + j) * D,
                                       D);
                    CHECK_NEAR(sum, i == j, 1e-5);
                }
        snprintf(note, sizeof note, "energy-%s", row[k].name);
        CHECK_INT(sscanf(kept_trained_note(t, note), "%lf %lf %lf %lf", &share[0], &share[1],
                         &share[2], &share[3]),
                  4);
        CHECK(share[0] > share[1] && share[1] > share[2] && share[2] > share[3] && share[3] > 0.25);
        CHECK(row[k].layers > 1 ? share[0] > 0.5 && share[0] < 1 : fabs(share[0] - 1) < 1e-4);
    }
    kept_trained_free(t);
}

int main(void)
{
    rig_open();
    RUN(every_kind_twice);
    RUN(stopped_anywhere_goes_on);
    RUN(stale_checkpoints_are_thrown_away);
    RUN(files_fit_or_are_refused);
    RUN(unfit_files_are_made_again);
    RUN(bits_cost_what_they_should);
    RUN(directions_are_orthonormal);
    RUN(the_regression_solves_its_equations);
    RUN(threshold_while_decoding);
    RUN(the_ranker_beats_chance);
    rig_close();
    TEST_END();
}
