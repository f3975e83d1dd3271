/* forms: the codec axis: in which form pages of a layer are kept. forms_check.c says what cannot
 * be, forms_bytes.c what that makes of a budget, forms_pack.c and forms_grade.c pack. */
#include "policy/parts.h"

#include <math.h>
#include <string.h>

#define P64 KEPT_PAGE_SLOTS

const uint8_t kept_graded_keys[] = {KEPT_F16,  KEPT_Q8,   KEPT_Q4,    KEPT_ROT4,
                                    KEPT_ROT3, KEPT_ROT2, KEPT_CHAN4, KEPT_CHAN2};
const uint8_t kept_graded_values[] = {KEPT_F16, KEPT_Q8, KEPT_Q4, KEPT_ROT4, KEPT_ROT3, KEPT_ROT2};
const uint8_t kept_water_codec[] = {KEPT_ROT2, KEPT_ROT3, KEPT_ROT4, KEPT_Q8, KEPT_F16};

static bool packs(const kept_strategy *s)
{
    return s->part[KEPT_AXIS_CODEC] && s->part[KEPT_AXIS_CODEC] != &kept_part_f16;
}

bool kept_form_is(const kept_strategy *s, const kept_part *codec)
{
    return s->part[KEPT_AXIS_CODEC] == codec;
}

bool kept_strategy_packs(const kept_strategy *s)
{
    for (int i = 0; i < s->n_states; i++)
        if (kept_strategy_packs(s->state[i]))
            return true;
    return !s->n_states && packs(s);
}

/* ---- the outermost layers ------------------------------------------------------------------- */

/* Option `edge` of the codec, before `edge-as`; -1: it has none. */
static int edge_option(const kept_strategy *s)
{
    static const struct {
        const kept_part *part;
        int option;
    } has[] = {{&kept_part_store, KEPT_STORE_EDGE},
               {&kept_part_aged, KEPT_AGED_EDGE},
               {&kept_part_ranked, KEPT_RANKED_EDGE},
               {&kept_part_waterfill, KEPT_WATER_EDGE},
               {&kept_part_calibrated, KEPT_CALIBRATED_EDGE}};
    for (size_t i = 0; i < sizeof has / sizeof *has; i++)
        if (kept_form_is(s, has[i].part))
            return has[i].option;
    return -1;
}

bool kept_form_at_edge(const kept_strategy *s, int l, int n_layers, uint8_t *as)
{
    static const uint8_t codec[] = {KEPT_F16, KEPT_Q8}; /* choices of edge-as */
    const double *o = s->option[KEPT_AXIS_CODEC];
    const int at = edge_option(s), edge = at < 0 ? 0 : (int)o[at];
    if (l >= edge && l < n_layers - edge)
        return false;
    *as = codec[(int)o[at + 1]];
    return true;
}

int kept_form_compare(int a, int b, bool v)
{
    enum { USUAL = 64 }; /* the order is the same for every head size */
    const size_t x = kept_codec_half_bytes(a, v, USUAL), y = kept_codec_half_bytes(b, v, USUAL);
    return (x > y) - (x < y);
}

/* ---- forms ---------------------------------------------------------------------------------- */

kept_codecs kept_strategy_form(const kept_strategy *s, int l, int n_layers)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    uint8_t at_edge;
    if (!kept_form_is(s, &kept_part_store))
        return (kept_codecs){KEPT_F16, KEPT_F16};
    if (kept_form_at_edge(s, l, n_layers, &at_edge))
        return (kept_codecs){at_edge, at_edge};
    return kept_form_at((kept_codecs){(uint8_t)o[KEPT_STORE_K], (uint8_t)o[KEPT_STORE_V]}, l,
                        n_layers);
}

int kept_strategy_residual(const kept_strategy *s)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    return kept_form_is(s, &kept_part_store) ? ((int)o[KEPT_STORE_RESIDUAL] + P64 - 1) / P64 : 0;
}

/* Codec of keys at a width. There are no 3 bits with scales per channel. */
static uint8_t water_keys(const kept_strategy *s, int width)
{
    static const uint8_t channel[] = {KEPT_CHAN2, KEPT_CHAN4, KEPT_CHAN4, KEPT_Q8, KEPT_F16};
    return s->option[KEPT_AXIS_CODEC][KEPT_WATER_KEYS] > 0 ? channel[width]
                                                           : kept_water_codec[width];
}

kept_codecs kept_water_form(const kept_strategy *s, int l, int n_layers, int width)
{
    const int values = width - (int)s->option[KEPT_AXIS_CODEC][KEPT_WATER_LAG];
    uint8_t v = kept_water_codec[values > 0 ? values : 0], as;
    if (kept_form_at_edge(s, l, n_layers, &as) && kept_form_compare(v, as, true) < 0)
        v = as;
    return (kept_codecs){water_keys(s, width), v};
}

int kept_water_least(const kept_strategy *s, int l, int n_layers)
{
    int least = (int)s->option[KEPT_AXIS_CODEC][KEPT_WATER_LEAST];
    uint8_t as;
    while (kept_form_at_edge(s, l, n_layers, &as) &&
           kept_form_compare(water_keys(s, least), as, false) < 0)
        least++;
    return least;
}

int kept_water_most(const kept_strategy *s, int l, int n_layers)
{
    const int most = (int)s->option[KEPT_AXIS_CODEC][KEPT_WATER_MOST];
    const int least = kept_water_least(s, l, n_layers);
    return most > least ? most : least;
}

kept_codecs kept_form_narrowest(const kept_strategy *s, int l, int n_layers)
{
    return kept_form_is(s, &kept_part_waterfill)
               ? kept_water_form(s, l, n_layers, kept_water_least(s, l, n_layers))
               : kept_strategy_form(s, l, n_layers);
}

bool kept_form_grades(const kept_strategy *s)
{
    return kept_form_is(s, &kept_part_ranked) || kept_form_is(s, &kept_part_waterfill);
}

/* A ladder of forms, with pages up to either cut in the first and the second. key, value: [3]
 * choices. */
static kept_rungs ladder(const double *key, const double *value, const double cut[2], int n)
{
    kept_rungs r = {.pages = {(int)fmin(n, fmin(cut[0], cut[1]))}};
    for (int i = 0; i < 3; i++)
        r.form[i] = (kept_codecs){kept_graded_keys[(int)key[i]], kept_graded_values[(int)value[i]]};
    r.pages[1] = (int)fmin(n, cut[1]) - r.pages[0];
    r.pages[2] = n - r.pages[0] - r.pages[1];
    return r;
}

/* As many pages of each rung, none narrower than the outermost layers allow. */
static kept_rungs raise(const kept_strategy *s, int l, int n_layers, kept_rungs r)
{
    uint8_t as;
    if (!kept_form_at_edge(s, l, n_layers, &as))
        return r;
    for (int i = 0; i < 3; i++) {
        r.form[i].k = kept_form_compare(r.form[i].k, as, false) < 0 ? as : r.form[i].k;
        r.form[i].v = kept_form_compare(r.form[i].v, as, true) < 0 ? as : r.form[i].v;
    }
    return r;
}

#define FUZZ 1e-9 /* so that a part of n that is whole in decimals is whole */

kept_rungs kept_form_rungs(const kept_strategy *s, int l, int n_layers, int n)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    double cut[2];
    if (kept_form_is(s, &kept_part_aged)) {
        for (int i = 0; i < 2; i++) {
            const double at = o[KEPT_AGED_MID_AFTER + i];
            cut[i] = (int)o[KEPT_AGED_IN] == KEPT_AGED_TOKENS ? ceil(at / P64)
                                                              : floor(at / 100 * n + FUZZ);
        }
        return raise(s, l, n_layers, ladder(o + KEPT_AGED_NEW, o + KEPT_AGED_NEW_V, cut, n));
    }
    if (kept_form_is(s, &kept_part_ranked)) {
        cut[0] = floor(o[KEPT_RANKED_TOP_PART] * n + FUZZ);
        cut[1] = floor((o[KEPT_RANKED_TOP_PART] + o[KEPT_RANKED_MID_PART]) * n + FUZZ);
        return raise(s, l, n_layers, ladder(o + KEPT_RANKED_TOP, o + KEPT_RANKED_TOP_V, cut, n));
    }
    const kept_codecs f16 = {KEPT_F16, KEPT_F16};
    const int wide = kept_strategy_residual(s) < n ? kept_strategy_residual(s) : n;
    return (kept_rungs){{f16, f16, kept_form_narrowest(s, l, n_layers)}, {wide, 0, n - wide}};
}
