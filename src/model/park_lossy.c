/* park_lossy: slots that come back nearly, after KVTC (arXiv 2511.01815): principal components of
 * keys before rotation and of values, a step for each half, entropy coding. src/policy/rest.c has
 * what is different from the paper.
 *
 * A half is K or V of one head. Its lossy rows x, less their mean, are turned into y = B x, B the
 * principal components; y_c is rounded to q_c * step. B is stored in 8 bits a number and made
 * orthonormal again by whoever reads it, so that an error in y is as large in x. What was really
 * needed corrects the goal, a few times. */
#include "model/park_lossy.h"
#include "model/work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define P64 KEPT_PAGE_SLOTS

enum { PASSES = 4, DOTS = 16 };

/* ---- which slots ------------------------------------------------------------------------------
 */

kept_rest kept_park_rest(const kept_seq *s)
{
    return s->named ? kept_strategy_rest(s->named) : (kept_rest){.parks = false};
}

static uint64_t slots_of(const kept_seq *s, const kept_rest *r, int32_t id, int live)
{
    const int32_t *pos = kept_pool_pos(s->engine->pool) + (size_t)id * P64;
    uint64_t mask = 0;
    if (!kept_codec_is_f16(kept_pool_get_page(s->engine->pool, id).c))
        return 0;
    for (int i = 0; i < live; i++)
        if (pos[i] >= r->first && pos[i] < s->n_tokens - r->last)
            mask |= (uint64_t)1 << i;
    return mask;
}

/* Lossy slots of a head into slot (NULL: only counted); 0: too few to pay for a basis. */
static int slots_of_head(const kept_seq *s, const kept_rest *r, int layer, int h, int32_t *slot)
{
    const int n = kept_cache_n(s->cache, layer, h), d = s->engine->model->info.head_size;
    const int32_t *pages = kept_cache_pages(s->cache, layer, h);
    int count = 0;
    for (int p = 0; p * P64 < n && r->bits > 0; p++) {
        const uint64_t mask = slots_of(s, r, pages[p], kept_min(P64, n - p * P64));
        for (int i = 0; i < P64; i++)
            if (mask >> i & 1) {
                if (slot)
                    slot[count] = p * P64 + i;
                count++;
            }
    }
    return count < 2 * d ? 0 : count;
}

bool kept_park_is_lossy(const kept_seq *s, const kept_rest *r, int layer, int h)
{
    return slots_of_head(s, r, layer, h, NULL) > 0;
}

uint64_t kept_park_lossy_slots(const kept_seq *s, const kept_rest *r, int layer, int h, int page,
                               int live)
{
    return slots_of(s, r, kept_cache_pages(s->cache, layer, h)[page], live);
}

/* ---- rotation ---------------------------------------------------------------------------------
 */

/* Factors of the turn to one position after the other. */
typedef struct turn {
    const kept_seq *s;
    int layer, h, n; /* n: pairs */
    int32_t at;
    float freq[KEPT_MAX_HEAD_SIZE / 2];
    double re[KEPT_MAX_HEAD_SIZE / 2], im[KEPT_MAX_HEAD_SIZE / 2];
    double step_re[KEPT_MAX_HEAD_SIZE / 2], step_im[KEPT_MAX_HEAD_SIZE / 2];
} turn;

static void turn_begin(turn *t, const kept_seq *s, int layer, int h)
{
    *t = (turn){.s = s, .layer = layer, .h = h, .n = s->engine->model->n_rope / 2, .at = -2};
    kept_rope_freq(s->engine->model, layer, t->freq);
    for (int j = 0; j < t->n; j++) {
        t->step_re[j] = cos((double)t->freq[j]);
        t->step_im[j] = sin((double)t->freq[j]);
    }
}

static void turn_to(turn *t, int32_t to)
{
    for (int j = 0; j < t->n && to != t->at; j++) {
        if (to == t->at + 1) {
            const double re = t->re[j];
            t->re[j] = re * t->step_re[j] - t->im[j] * t->step_im[j];
            t->im[j] = re * t->step_im[j] + t->im[j] * t->step_re[j];
        } else {
            t->re[j] = cos((double)to * t->freq[j]);
            t->im[j] = sin((double)to * t->freq[j]);
        }
    }
    t->at = to;
}

/* The key of a slot to position 0, or from there. */
static void turn_key(turn *t, int slot, float *x, bool back)
{
    const kept_seq *s = t->s;
    const int32_t id = kept_cache_pages(s->cache, t->layer, t->h)[slot / P64];
    int32_t pos = kept_pool_pos(s->engine->pool)[(size_t)id * P64 + (size_t)(slot % P64)];
    if (s->rope_plane >= 0 && !s->engine->model->info.windowed[t->layer]) {
        const float shift = kept_cache_state(s->cache, t->layer, t->h, s->rope_plane, slot);
        pos += fabsf(shift) < 1e9f ? (int32_t)shift : 0; /* a file may say anything */
    }
    turn_to(t, pos);
    for (int j = 0; j < t->n; j++) {
        const bool neox = s->engine->model->rope_neox;
        float *a = x + (neox ? j : 2 * j), *b = x + (neox ? j + t->n : 2 * j + 1), old = *a;
        const float re = (float)t->re[j], im = (float)(back ? -t->im[j] : t->im[j]);
        *a = re * old - im * *b;
        *b = im * old + re * *b;
    }
}

/* ---- rows -------------------------------------------------------------------------------------
 */

int kept_lossy_rows(const kept_lossy *j, int layer, int h, bool v, float *x, int32_t *slot)
{
    const int n = slots_of_head(j->s, j->rest, layer, h, slot), d = j->d;
    const int32_t *pages = kept_cache_pages(j->s->cache, layer, h);
    float page[P64 * KEPT_MAX_HEAD_SIZE];
    turn t;
    if (!v)
        turn_begin(&t, j->s, layer, h);
    for (int i = 0, have = -1; i < n; i++) {
        float *row = x + (size_t)i * (size_t)d;
        if (slot[i] / P64 != have) {
            have = slot[i] / P64;
            const kept_packed from = kept_pool_get_page(j->s->engine->pool, pages[have]);
            j->s->engine->kern->get(from.at, d, 0, P64, v ? NULL : page, v ? page : NULL);
        }
        for (int c = 0; c < d; c++) {
            const float y = page[slot[i] % P64 * d + c];
            row[c] = y > 65504 ? 65504 : y < -65504 ? -65504 : y == y ? y : 0;
        }
        if (!v)
            turn_key(&t, slot[i], row, true);
    }
    return n;
}

static kept_half *half_at(const kept_lossy *j, int layer, int h, bool v)
{
    return &j->halves[((size_t)layer * (size_t)j->n_kv + (size_t)h) * 2 + v];
}

/* ---- writing ----------------------------------------------------------------------------------
 */

/* Room for the rows of a half: x [n][D], y [DOTS][n]. */
typedef struct room {
    float *x, *y;
    int32_t *slot, *q;
} room;

static bool room_new(room *r, size_t n, size_t d)
{
    r->x = malloc(n * d * sizeof *r->x);
    r->y = malloc(n * DOTS * sizeof *r->y);
    r->slot = malloc(n * sizeof *r->slot);
    r->q = malloc(n * sizeof *r->q);
    return r->x && r->y && r->slot && r->q;
}

static void room_free(room *r)
{
    free(r->x);
    free(r->y);
    free(r->slot);
    free(r->q);
}

static void write_half(kept_lossy *j, kept_streams *s, int layer, int h, bool v, const room *m)
{
    float *x = m->x, *y = m->y;
    int32_t *q = m->q;
    const kept_half *f = half_at(j, layer, h, v);
    const int d = j->d;
    const uint16_t r = (uint16_t)f->r;
    (void)kept_lossy_rows(j, layer, h, v, x, m->slot);
    for (int i = 0; i < f->n * d; i++)
        x[i] -= f->mean[i % d];
    kept_streams_put(s, KEPT_PARK_TABLE, &r, sizeof r);
    kept_streams_put(s, KEPT_PARK_TABLE, &f->step, sizeof f->step);
    for (int c = 0; c < d; c++) {
        const kept_f16 mean = kept_f32_to_f16(f->mean[c]);
        kept_streams_put(s, KEPT_PARK_TABLE, &mean, sizeof mean);
    }
    for (int c = 0; c < f->r; c++) {
        const uint8_t class = (uint8_t)kept_park_class(sqrt(fmax(f->var[c], 0)) / f->step);
        if (c % DOTS == 0)
            j->s->engine->kern->dots(kept_min(DOTS, f->r - c), f->n, d, f->basis + c * d, x, y,
                                     f->n);
        for (int i = 0; i < f->n; i++) {
            const float most = 1e9f, z = y[(size_t)(c % DOTS) * (size_t)f->n + (size_t)i] / f->step;
            q[i] = (int32_t)lrintf(z > most ? most : z < -most ? -most : z);
        }
        kept_streams_put(s, KEPT_PARK_TABLE, &class, 1);
        if (!f->given)
            kept_streams_put(s, KEPT_PARK_TABLE, f->stored + c * d, (size_t)d);
        kept_streams_put_row(s, class, q, (size_t)f->n);
    }
}

static int most_rows(const kept_lossy *j, int layer)
{
    int most = 0;
    for (int h = 0; h < j->n_kv; h++)
        most = kept_max(most, kept_cache_n(j->s->cache, layer, h));
    return most;
}

static void write_layer(void *arg, int lane, int layer)
{
    kept_lossy *j = arg;
    room m;
    kept_streams s = {.failed = !room_new(&m, (size_t)most_rows(j, layer) + 1, (size_t)j->d)};
    (void)lane;
    free(j->out[layer]);
    j->out[layer] = NULL;
    for (int h = 0; h < j->n_kv && !s.failed; h++)
        for (int v = 0; v < 2; v++)
            if (half_at(j, layer, h, v)->n)
                write_half(j, &s, layer, h, v, &m);
    if (s.failed || !kept_streams_pack(&s, &j->out[layer], &j->size[layer]))
        j->failed = true;
    kept_streams_free(&s);
    room_free(&m);
}

/* Calibrated components of a half: a sequence whose strategy wants them was refused without. */
static const float *directions_of(const kept_engine *e, size_t head, bool v)
{
    const size_t size = (size_t)e->model->info.head_size * (size_t)e->model->info.head_size;
    size_t n;
    return kept_trained_array(kept_hidden_file(e, "basis"), v ? "v" : "k", &n) + head * size;
}

static bool job_begin(kept_lossy *j, kept_seq *s, const kept_rest *r)
{
    const kept_model_info *info = &s->engine->model->info;
    const size_t layers = (size_t)info->n_layers, d = (size_t)info->head_size;
    const size_t n = layers * (size_t)info->n_kv_heads * 2;
    /* mean, var (as two floats each), basis, stored (a quarter of a float each) */
    const size_t each = d + 2 * d + d * d + d * d / 4;
    *j = (kept_lossy){.s = s, .rest = r, .n_kv = info->n_kv_heads, .d = info->head_size};
    j->halves = kept_calloc(n, sizeof *j->halves);
    j->numbers = kept_calloc(n * each, sizeof *j->numbers);
    j->rates = kept_rates_new();
    j->out = kept_calloc(layers, sizeof *j->out);
    j->size = kept_calloc(layers, sizeof *j->size);
    if (!j->halves || !j->numbers || !j->rates || !j->out || !j->size)
        return false;
    for (size_t i = 0; i < n; i++) {
        float *at = j->numbers + i * each;
        j->halves[i].var = (double *)(void *)at;
        j->halves[i].mean = at + 2 * d;
        j->halves[i].basis = at + 3 * d;
        j->halves[i].stored = (int8_t *)(void *)(at + 3 * d + d * d);
        if (r->calibrated)
            j->halves[i].given = directions_of(s->engine, i / 2, i % 2);
    }
    return true;
}

static void job_end(kept_lossy *j, bool wrote)
{
    for (int l = 0; wrote && j->out && l < j->s->engine->model->info.n_layers; l++)
        free(j->out[l]);
    free(j->halves);
    free(j->numbers);
    free(j->rates);
    free(j->out);
    free(j->size);
}

/* Writes all layers until they take the bits that there are. */
static void write_layers(kept_lossy *j)
{
    const int layers = j->s->engine->model->info.n_layers;
    double numbers = 0;
    for (int i = 0; i < layers * j->n_kv * 2; i++)
        numbers += (double)j->halves[i].n * j->d;
    const double want = numbers * j->rest->bits;
    double goal = want, last_goal = 0, last = 0;
    for (int pass = 0; pass < PASSES && !j->failed && (!pass || numbers > 0); pass++) {
        double got = 0;
        kept_lossy_fit(j, goal);
        kept_engine_each(j->s->engine, layers, write_layer, j);
        for (int l = 0; l < layers; l++)
            got += 8.0 * (double)j->size[l];
        if (got <= want && got > 0.98 * want)
            break;
        /* In proportion first, then by what the last step changed. */
        double slope = pass ? (got - last) / (goal - last_goal) : got / goal;
        slope = slope > 0.5 && slope < 2 ? slope : 1;
        last_goal = goal;
        last = got;
        goal += (0.992 * want - got) / slope;
        goal = goal > 0.1 * want ? goal : 0.1 * want;
    }
}

kept_status kept_park_save_lossy(kept_io *x, kept_seq *s, const kept_rest *r)
{
    const int layers = s->engine->model->info.n_layers;
    kept_lossy j;
    bool ok = job_begin(&j, s, r);
    if (ok) {
        kept_engine_each(s->engine, layers * j.n_kv * 2, kept_lossy_model, &j);
        write_layers(&j);
    }
    ok &= !j.failed;
    uint64_t mark = r->calibrated ? kept_directions_mark(s->engine) : 0;
    kept_io_bytes(x, &mark, sizeof mark);
    for (int l = 0; l < layers && ok; l++) {
        uint64_t n = j.size[l];
        kept_io_bytes(x, &n, sizeof n);
        kept_io_bytes(x, j.out[l], (size_t)n);
    }
    job_end(&j, true);
    return ok ? KEPT_OK : KEPT_NOMEM;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static bool read_half(kept_lossy *j, kept_streams *s, int layer, int h, bool v, const room *m)
{
    float *x = m->x;
    int32_t *q = m->q;
    kept_half *f = half_at(j, layer, h, v);
    const int d = j->d;
    uint8_t class[KEPT_MAX_HEAD_SIZE];
    uint16_t r;
    kept_streams_get(s, KEPT_PARK_TABLE, &r, sizeof r);
    kept_streams_get(s, KEPT_PARK_TABLE, &f->step, sizeof f->step);
    for (int c = 0; c < d; c++) {
        kept_f16 mean;
        kept_streams_get(s, KEPT_PARK_TABLE, &mean, sizeof mean);
        f->mean[c] = kept_f16_to_f32(mean);
    }
    if (r > d || s->failed)
        return false;
    for (int c = 0; c < r; c++) {
        kept_streams_get(s, KEPT_PARK_TABLE, &class[c], 1);
        if (!f->given)
            kept_streams_get(s, KEPT_PARK_TABLE, f->stored + c * d, (size_t)d);
        if (class[c] >= KEPT_PARK_CLASSES)
            return false;
    }
    if (f->given)
        memcpy(f->basis, f->given, (size_t)(r * d) * sizeof *f->basis);
    else
        kept_lossy_basis(f, r, d);
    for (int i = 0; i < f->n; i++)
        memcpy(x + (size_t)i * (size_t)d, f->mean, (size_t)d * sizeof *x);
    for (int c = 0; c < r; c++) {
        kept_streams_get_row(s, class[c], q, (size_t)f -> n);
        for (int i = 0; i < f->n; i++) {
            const float y = (float)q[i] * f->step;
            for (int k = 0; k < d && q[i]; k++)
                x[(size_t)i * (size_t)d + (size_t)k] += y * f->basis[c * d + k];
        }
    }
    turn t;
    if (!v)
        turn_begin(&t, j->s, layer, h);
    for (int i = 0; i < f->n; i++) {
        float *row = x + (size_t)i * (size_t)d;
        if (!v)
            turn_key(&t, m->slot[i], row, false);
        (void)kept_cache_set_row(j->s->cache, layer, h, m->slot[i], v ? NULL : row, v ? row : NULL);
    }
    return !s->failed;
}

static void read_layer(void *arg, int lane, int layer)
{
    kept_lossy *j = arg;
    const size_t n = (size_t)most_rows(j, layer) + 1, d = (size_t)j->d;
    room m;
    kept_streams s = {.failed = false};
    /* Two bytes a number at most, one of four bytes besides, and bases. */
    const size_t most = (size_t)j->n_kv * 2 * (d * (6 * n + 3) + d * d + 6);
    (void)lane;
    if (!room_new(&m, n, d))
        j->failed = true;
    else if (!kept_streams_unpack(&s, j->out[layer], j->size[layer], most))
        j->bad = true;
    for (int i = 0; i < 2 * j->n_kv && !j->failed && !j->bad; i++) {
        kept_half *f = half_at(j, layer, i / 2, i % 2);
        f->n = slots_of_head(j->s, j->rest, layer, i / 2, m.slot);
        if (f->n && !read_half(j, &s, layer, i / 2, i % 2, &m))
            j->bad = true;
    }
    for (int i = 0; i < KEPT_PARK_STREAMS; i++)
        j->bad |= s.at[i] != s.n[i];
    kept_streams_free(&s);
    room_free(&m);
}

kept_status kept_park_load_lossy(kept_io *x, kept_seq *s, const kept_rest *r)
{
    const int layers = s->engine->model->info.n_layers;
    uint64_t mark = 0;
    kept_io_bytes(x, &mark, sizeof mark);
    if (mark != (r->calibrated ? kept_directions_mark(s->engine) : 0))
        return r->calibrated ? KEPT_ARGUMENT : KEPT_FORMAT;
    kept_lossy j;
    bool ok = job_begin(&j, s, r), sound = true;
    for (int l = 0; l < layers && ok && sound; l++) {
        uint64_t n = 0;
        kept_io_bytes(x, &n, sizeof n);
        sound = !x->failed && n <= x->n - x->at;
        j.out[l] = x->p + x->at;
        j.size[l] = sound ? (size_t)n : 0;
        x->at += j.size[l];
    }
    if (ok && sound)
        kept_engine_each(s->engine, layers, read_layer, &j);
    ok &= !j.failed;
    sound &= !j.bad;
    job_end(&j, false);
    return !ok ? KEPT_NOMEM : sound ? KEPT_OK : KEPT_FORMAT;
}
