/* forms_grade: codecs that give pages their form by what their slots scored, at an eviction.
 *
 *   cut      every head is cut to what it keeps; scores follow the slots
 *   arrange  slots of F16 pages in the order of their scores, so that pages are alike inside; the
 *            best ones go to the last page, which is F16 as long as it fills
 *   forms    ranked: a page's rank among those of its head. waterfill: see below
 *   pack     each page into its form, if that is narrower than what it has
 *
 * Reverse water-filling (RDKV, arXiv 2605.08317): a page whose slots are worth w on average gets
 *
 *     b = max(0, 1/2 log2(w^power / level))   bits, rounded to the nearest width that is stored,
 *
 * with one level for all pages of all heads, the lowest that the bytes allow. So each step from one
 * width to the next has a level of its own, log2(w^power) / 2 less the mean of both widths, and
 * taking steps from the highest level down until the bytes are used up is the same as searching for
 * it. 0 bits is eviction: first every head's slots, the protected and then the best, are taken
 * for pages in that order, which says how many each keeps; when they are cut, the pages that there
 * are share the bytes in the same way.
 */
#include "policy/pass.h"
#include "policy/select.h"

#include <math.h>
#include <string.h>

#define P64 KEPT_PAGE_SLOTS

/* Widths: 0 is gone, then the choices of most and least. */
enum { GONE, F16 = KEPT_WATER_F16 + 1, N_WIDTHS };

/* Form of a page of head i at a width. */
static kept_codecs form_at(const kept_pass *p, int i, int width)
{
    return kept_water_form(p->s, i / p->n_heads, p->n_layers, width - 1);
}

static int least(const kept_pass *p, int i)
{
    return kept_water_least(p->s, i / p->n_heads, p->n_layers) + 1;
}

static int most(const kept_pass *p, int i)
{
    return kept_water_most(p->s, i / p->n_heads, p->n_layers) + 1;
}

/* Bits of a number, of keys and values in the mean. */
static double bits_of(const kept_pass *p, int i, int width)
{
    if (width == GONE)
        return 0;
    const kept_codecs c = form_at(p, i, width);
    return (kept_codec_get(c.k)->bits + kept_codec_get(c.v)->bits) / 2.0;
}

/* ---- worth ---------------------------------------------------------------------------------- */

/* What a score is worth: scores count from the lowest of their head where that is negative, and
 * those that heads cannot compare are parts of their head's sum. */
static void find_scale(kept_pass *p, int i)
{
    const float *x = p->value + p->at[i];
    double low = 0, sum = 0;
    for (int k = 0; k < p->n[i]; k++)
        low = fmin(low, x[k]);
    for (int k = 0; k < p->n[i]; k++)
        sum += x[k] - low;
    p->grade.low[i] = low;
    p->grade.scale[i] = p->score->comparable ? 1 : sum > 0 ? 1 / sum : 0;
}

/* Mean worth of the slots that slot[0..n) names. */
static double mean_worth(const kept_pass *p, int i, const int32_t *slot, int n)
{
    double sum = 0;
    for (int k = 0; k < n; k++)
        sum += (p->value[p->at[i] + (size_t)slot[k]] - p->grade.low[i]) * p->grade.scale[i];
    return sum / n;
}

/* ---- water-filling -------------------------------------------------------------------------- */

/* Bytes of a page of head i at a width; rest: slots of what is no whole page, which is F16 or gone.
 */
static double cost(const kept_pass *p, int i, int page, int width)
{
    const int D = p->e->head_size, rest = p->grade.rest[page];
    if (width == GONE)
        return 0;
    return rest ? 4.0 * D * rest : (double)kept_codec_page_bytes(form_at(p, i, width), D);
}

static int wider(const kept_pass *p, int i, int page, int width)
{
    return p->grade.rest[page] ? F16 : width == GONE ? least(p, i) : width + 1;
}

/* Lists the steps of a page of head i from the width it has up to `top`; returns how many there are
 * now. */
static int add_steps(kept_pass *p, int i, int page, int top, int n)
{
    const double power = p->s->option[KEPT_AXIS_CODEC][KEPT_WATER_POWER];
    const double worth = p->grade.worth[page];
    for (int width = p->grade.width[page]; width < top;) {
        const int next = wider(p, i, page, width);
        const double bits = p->grade.rest[page] ? 16 : bits_of(p, i, next);
        const double level =
            worth > 0 ? power * log2(worth) / 2 - (bits_of(p, i, width) + bits) / 2 : -1e30;
        const uint32_t tie = UINT32_MAX - (uint32_t)(page * N_WIDTHS + next);
        p->grade.step[n++] = (uint64_t)kept_float_order((float)level) << 32 | tie;
        width = next;
    }
    return n;
}

/* Takes steps from the highest level down while the bytes last. */
static void take_steps(kept_pass *p, int n, double bytes)
{
    kept_order_keys(p->grade.step, n, p->grade.sorting);
    for (int k = 0; k < n; k++) {
        const uint32_t at = UINT32_MAX - (uint32_t)p->grade.step[k];
        const int page = (int)(at / N_WIDTHS), width = (int)(at % N_WIDTHS);
        const int i = p->grade.head[page];
        const double more = cost(p, i, page, width) - cost(p, i, page, p->grade.width[page]);
        if (more > bytes)
            return;
        bytes -= more;
        p->grade.width[page] = (uint8_t)width;
    }
}

/* Slots of head i, protected ones first, then by score, into order. */
static void order_slots(kept_pass *p, int i, int32_t *order)
{
    const uint8_t *guard = p->mask + p->at[i];
    int32_t *sorted = p->grade.from;
    int n = 0;
    kept_cache_read(p->e->cache, p->layer[i / p->n_heads], i % p->n_heads, p->slot_pos, NULL, NULL);
    kept_order_scores(p->value + p->at[i], p->slot_pos, p->n[i], sorted, p->work);
    for (int first = 1; first >= 0; first--)
        for (int k = 0; k < p->n[i]; k++)
            if (guard[sorted[k]] == first)
                order[n++] = sorted[k];
}

void kept_grade_split(kept_pass *p)
{
    kept_grading *g = &p->grade;
    double bytes =
        kept_form_spends(p->s, p->n_layers, p->n_heads, p->e->head_size, p->e->full_tokens);
    int page = 0, n = 0;
    for (int i = 0; i < p->n_all; i++) {
        g->first[i] = page;
        find_scale(p, i);
        order_slots(p, i, p->order);
        for (int at = 0; at < p->n[i]; at += P64, page++) {
            const int m = p->n[i] - at < P64 ? p->n[i] - at : P64;
            g->rest[page] = (uint8_t)(m < P64 ? m : 0);
            g->worth[page] = mean_worth(p, i, p->order + at, m);
            g->head[page] = i;
            g->width[page] = (uint8_t)(at < p->n_guard[i] ? wider(p, i, page, GONE) : GONE);
            bytes -= cost(p, i, page, g->width[page]);
            n = add_steps(p, i, page, g->rest[page] ? F16 : most(p, i), n);
        }
    }
    take_steps(p, n, bytes);
    for (int i = 0; i < p->n_all; i++) {
        int keep = 0;
        for (int k = g->first[i], at = 0; at < p->n[i]; at += P64, k++)
            keep += g->width[k] == GONE ? 0 : g->rest[k] ? g->rest[k] : P64;
        p->keep[i] = keep - p->n_guard[i];
    }
}

/* ---- after the cut -------------------------------------------------------------------------- */

void kept_grade_note(kept_pass *p, int i)
{
    const float *x = p->value + p->at[i];
    kept_cache_read(p->e->cache, p->layer[i / p->n_heads], i % p->n_heads, p->slot_pos, NULL, NULL);
    find_scale(p, i);
    for (int k = 0; k < p->n[i]; k++)
        p->grade.by_pos[p->slot_pos[k]] = x[k];
}

void kept_grade_find(kept_pass *p, int i)
{
    const int layer = p->layer[i / p->n_heads], head = i % p->n_heads;
    p->n[i] = kept_cache_n(p->e->cache, layer, head);
    kept_cache_read(p->e->cache, layer, head, p->slot_pos, NULL, NULL);
    for (int k = 0; k < p->n[i]; k++)
        p->value[p->at[i] + (size_t)k] = p->grade.by_pos[p->slot_pos[k]];
}

static kept_codecs form_now(const kept_pass *p, int i, int page)
{
    const kept_cache *c = p->e->cache;
    return kept_cache_form(c, p->layer[i / p->n_heads], i % p->n_heads, page);
}

/* Which slot of head i comes where: packed ones stay. */
static void plan_order(kept_pass *p, int i)
{
    int32_t *from = p->grade.from, *best = p->order;
    const int n = p->n[i], full = n / P64 * P64;
    int rest = n - full, at = 0;
    kept_cache_read(p->e->cache, p->layer[i / p->n_heads], i % p->n_heads, p->slot_pos, NULL, NULL);
    kept_order_scores(p->value + p->at[i], p->slot_pos, n, best, p->work);
    for (int k = 0; k < full; k++)
        from[k] = kept_codec_is_f16(form_now(p, i, k / P64)) ? -1 : k;
    for (int k = 0; k < n; k++) {
        const int slot = best[k];
        if (slot < full && from[slot] == slot && !kept_codec_is_f16(form_now(p, i, slot / P64)))
            continue;
        if (rest > 0) {
            from[n - rest--] = slot;
            continue;
        }
        while (from[at] >= 0)
            at++;
        from[at++] = slot;
    }
}

/* Worth of every full page of head i as it will be. */
static void weigh_pages(kept_pass *p, int i)
{
    plan_order(p, i);
    for (int k = 0; k < p->n[i] / P64; k++) {
        p->grade.rest[p->grade.first[i] + k] = 0;
        p->grade.worth[p->grade.first[i] + k] = mean_worth(p, i, p->grade.from + k * P64, P64);
    }
}

/* The widest that a page can still have, which is what it has unless it is F16; GONE: it is
 * narrower than all of them, and stays. */
static int widest(const kept_pass *p, int i, int page)
{
    const kept_codecs now = form_now(p, i, page);
    const size_t bytes = kept_codec_page_bytes(now, p->e->head_size);
    int width = most(p, i);
    while (width >= least(p, i) &&
           kept_codec_page_bytes(form_at(p, i, width), p->e->head_size) > bytes)
        width--;
    return width < least(p, i) ? GONE : width;
}

static void fill_pages(kept_pass *p)
{
    kept_grading *g = &p->grade;
    double bytes =
        kept_form_spends(p->s, p->n_layers, p->n_heads, p->e->head_size, p->e->full_tokens);
    int n = 0;
    for (int i = 0; i < p->n_all; i++) {
        bytes -= 4.0 * p->e->head_size * (p->n[i] % P64);
        for (int k = 0; k < p->n[i] / P64; k++) {
            const int page = g->first[i] + k, top = widest(p, i, k);
            g->head[page] = i;
            g->width[page] = (uint8_t)(top == GONE ? GONE : least(p, i));
            bytes -= top == GONE ? (double)kept_codec_page_bytes(form_now(p, i, k), p->e->head_size)
                                 : cost(p, i, page, g->width[page]);
            n = add_steps(p, i, page, top, n);
        }
    }
    take_steps(p, n, bytes);
}

/* The pages of head i by rank; of equal ones the first is better. */
static void rank_pages(kept_pass *p, int i)
{
    const int n = p->n[i] / P64, first = p->grade.first[i];
    const kept_rungs r = kept_form_rungs(p->s, i / p->n_heads, p->n_layers, n);
    for (int k = 0; k < n; k++)
        p->grade.step[k] =
            (uint64_t)kept_float_order((float)p->grade.worth[first + k]) << 32 | (uint32_t)(n - k);
    kept_order_keys(p->grade.step, n, p->grade.sorting);
    for (int k = 0; k < n; k++)
        p->grade.width[first + n - (int)(uint32_t)p->grade.step[k]] =
            (uint8_t)(k < r.pages[0]                ? 0
                      : k < r.pages[0] + r.pages[1] ? 1
                                                    : 2);
}

static kept_status pack_head(kept_pass *p, int i)
{
    const int layer = p->layer[i / p->n_heads], head = i % p->n_heads, n = p->n[i] / P64;
    const bool ranked = kept_form_is(p->s, &kept_part_ranked);
    const kept_rungs r = kept_form_rungs(p->s, i / p->n_heads, p->n_layers, n);
    plan_order(p, i);
    /* Where shared pages cannot be copied, pages are less alike, and the bytes are the same. */
    (void)kept_cache_arrange(p->e->cache, layer, head, p->grade.from);
    for (int k = 0; k < n; k++) {
        const int width = p->grade.width[p->grade.first[i] + k];
        if (!ranked && width == GONE) /* it is narrower than any width */
            continue;
        const kept_codecs form = ranked ? r.form[width] : form_at(p, i, width);
        kept_status st = kept_cache_narrow(p->e->cache, layer, head, k, form);
        if (st)
            return st;
    }
    return KEPT_OK;
}

kept_status kept_grade_pack(kept_pass *p)
{
    kept_status st = KEPT_OK;
    for (int i = 0, page = 0; i < p->n_all; page += p->n[i++] / P64) {
        p->grade.first[i] = page;
        weigh_pages(p, i);
        if (kept_form_is(p->s, &kept_part_ranked))
            rank_pages(p, i);
    }
    if (!kept_form_is(p->s, &kept_part_ranked))
        fill_pages(p);
    for (int i = 0; i < p->n_all && !st; i++)
        st = pack_head(p, i);
    return st;
}
