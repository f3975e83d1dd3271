/* strategy: what a strategy needs from the engine, when it acts and how much it may hold. */
#include "policy/parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void kept_strategy_free(kept_strategy *s)
{
    for (int i = 0; s && i < KEPT_MAX_STATES; i++)
        kept_strategy_free(s->state[i]);
    free(s);
}
const char *kept_strategy_name(const kept_strategy *s)
{
    return s->name;
}
const char *kept_strategy_resolved(const kept_strategy *s)
{
    return s->resolved;
}

/* Order of planes in a capture. */
static int compare(kept_plane a, kept_plane b)
{
    if (a.kind != b.kind)
        return a.kind < b.kind ? -1 : 1;
    if (a.window != b.window)
        return a.window < b.window ? -1 : 1;
    return (int)a.split - (int)b.split;
}

int kept_capture_find(const kept_capture *c, kept_plane p)
{
    for (int i = 0; i < c->n_planes; i++)
        if (!compare(c->plane[i], p))
            return i;
    return -1;
}

kept_status kept_capture_add(kept_capture *c, kept_plane p, kept_error *err)
{
    int i = 0;
    if (kept_capture_find(c, p) >= 0)
        return KEPT_OK;
    if (c->n_planes == KEPT_MAX_CAPTURED)
        return kept_fail(err, KEPT_ARGUMENT,
                         "more than %d different kinds and windows of attention are wanted at "
                         "once; use fewer window sizes together",
                         KEPT_MAX_CAPTURED);
    while (i < c->n_planes && compare(c->plane[i], p) < 0)
        i++;
    memmove(&c->plane[i + 1], &c->plane[i], (size_t)(c->n_planes - i) * sizeof p);
    c->plane[i] = p;
    c->n_planes++;
    return KEPT_OK;
}

int kept_strategy_needs_of(const kept_strategy *s)
{
    static const int weight[] = {[KEPT_WEIGHT_L2] = KEPT_NEED_VALUES,
                                 [KEPT_WEIGHT_OUTPUT] = KEPT_NEED_OUTPUT,
                                 [KEPT_WEIGHT_MAX] = KEPT_NEED_VALUES};
    int needs = kept_score_needs(kept_strategy_score(s), s->option[KEPT_AXIS_SCORE]) |
                kept_strategy_wrapper(s)->needs | kept_strategy_allocator(s)->needs;
    if (s->part[KEPT_AXIS_WEIGHT] == &kept_part_values)
        needs |= weight[(int)s->option[KEPT_AXIS_WEIGHT][KEPT_VALUES_KIND]];
    for (int i = 0; i < s->n_states; i++)
        needs |= kept_strategy_needs_of(s->state[i]);
    return kept_strategy_is_full(s) ? 0 : needs;
}

const char *kept_score_trained(const kept_strategy *s)
{
    const kept_score *score = kept_strategy_score(s);
    bool uses = !score->uses_trained || score->uses_trained(s->option[KEPT_AXIS_SCORE]);
    return uses ? score->trained : NULL;
}

const char *kept_allocator_trained(const kept_strategy *s)
{
    return kept_strategy_allocator(s)->trained;
}

const char *kept_codec_trained(const kept_strategy *s)
{
    return kept_form_is(s, &kept_part_calibrated) ? "bits"
           : kept_form_is(s, &kept_part_searched) ? "split"
                                                  : kept_form_trained(s);
}

int kept_strategy_recent(const kept_strategy *s)
{
    const kept_score *score = kept_strategy_score(s);
    const kept_allocator *alloc = kept_strategy_allocator(s);
    int recent = score->recent ? score->recent(s->option[KEPT_AXIS_SCORE]) : 0;
    int other = alloc->recent ? alloc->recent(s->option[KEPT_AXIS_ALLOCATOR]) : 0;
    return other > recent ? other : recent;
}

/* What the parts of s need, and its signal. */
static kept_status own_needs(const kept_strategy *s, kept_capture *cap, kept_error *err)
{
    const kept_score *score = kept_strategy_score(s);
    const kept_merge *merge = kept_strategy_merge(s);
    const double *option = s->option[KEPT_AXIS_SCORE], *with = s->option[KEPT_AXIS_MERGE];
    int recent = kept_strategy_recent(s), other = merge->recent ? merge->recent(with) : 0;
    recent = other > recent ? other : recent;
    other = kept_form_recent(s);
    recent = other > recent ? other : recent;
    cap->n_recent = recent > cap->n_recent ? recent : cap->n_recent;
    cap->query_stats |= (kept_strategy_needs_of(s) & KEPT_NEED_QUERIES) != 0;
    cap->layer_cosine |= (kept_strategy_needs_of(s) & KEPT_NEED_COSINE) != 0;
    const kept_signal *signal = kept_strategy_signal(s);
    kept_status st = score->plane ? kept_capture_add(cap, score->plane(option), err) : KEPT_OK;
    if (!st && merge->plane)
        st = kept_capture_add(cap, merge->plane(with), err);
    if (!st && signal && signal->attention)
        st = kept_capture_add(cap, KEPT_SIGNAL_PLANE, err);
    return st;
}

kept_status kept_strategy_needs(const kept_strategy *s, kept_capture *cap, kept_error *err)
{
    kept_status st = own_needs(s, cap, err);
    for (int i = 0; i < s->n_states && !st; i++)
        st = own_needs(s->state[i], cap, err);
    return st;
}

kept_status kept_capture_union(const kept_strategy *const *s, int n, kept_capture *out,
                               kept_error *err)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < n; i++) {
        kept_status st = s[i] ? kept_strategy_needs(s[i], out, err) : KEPT_OK;
        if (st)
            return st;
    }
    return KEPT_OK;
}

kept_when kept_strategy_when(const kept_strategy *s)
{
    /* Options -1: the schedule has none of these. */
    static const struct {
        const kept_part *part;
        kept_when when;
        int every, slack;
    } schedules[] = {
        {&kept_part_prefill, {.prompt = true}, -1, -1},
        {&kept_part_decode, {.prompt = true}, KEPT_DECODE_EVERY, KEPT_DECODE_SLACK},
        {&kept_part_chunks,
         {.prompt = true, .chunks = true},
         KEPT_CHUNKS_DECODE,
         KEPT_CHUNKS_SLACK},
        {&kept_part_turns, {.prompt = true, .turns = true}, -1, -1},
        {&kept_part_pressure, {.pressure = true}, -1, -1},
        {&kept_part_layers, {.prompt = true, .layers = true}, -1, -1},
    };
    const double *option = s->option[KEPT_AXIS_SCHEDULE];
    kept_when w = {0};
    for (size_t i = 0; i < sizeof schedules / sizeof *schedules && !kept_strategy_is_idle(s); i++)
        if (schedules[i].part == s->part[KEPT_AXIS_SCHEDULE]) {
            w = schedules[i].when;
            w.every = schedules[i].every >= 0 ? (int)option[schedules[i].every] : 0;
            w.slack = schedules[i].slack >= 0 ? (int)option[schedules[i].slack] : 0;
        }
    return w;
}

bool kept_strategy_acts_again(const kept_strategy *s)
{
    const kept_when w = kept_strategy_when(s);
    for (int i = 0; i < s->n_states; i++)
        if (kept_strategy_acts_again(s->state[i]))
            return true;
    return w.every || w.turns || w.pressure || kept_controller_acts(kept_strategy_controller(s));
}

bool kept_strategy_reads_marks(const kept_strategy *s)
{
    for (int i = 0; i < s->n_states; i++)
        if (kept_strategy_reads_marks(s->state[i]))
            return true;
    return !kept_strategy_is_full(s) &&
           (int)s->option[KEPT_AXIS_PROTECTION][KEPT_PROTECT_TEMPLATE] != KEPT_TEMPLATE_OFF;
}

bool kept_strategy_acts_on_chunks(const kept_strategy *s)
{
    for (int i = 0; i < s->n_states; i++)
        if (kept_strategy_acts_on_chunks(s->state[i]))
            return true;
    return kept_strategy_when(s).chunks;
}

int kept_strategy_decode_every(const kept_strategy *s)
{
    return kept_strategy_when(s).every;
}

kept_status kept_strategy_check(const kept_strategy *s, kept_error *err)
{
    for (int i = 0; i < s->n_states; i++) {
        kept_status st = kept_strategy_check(s->state[i], err);
        if (st)
            return st;
    }
    kept_status wrong = s->n_states ? KEPT_OK : kept_form_check(s, err);
    if (wrong)
        return wrong;
    const kept_score *score = kept_strategy_score(s);
    const kept_allocator *alloc = kept_strategy_allocator(s);
    const kept_when w = kept_strategy_when(s);
    const kept_plane_kind kind =
        score->plane ? score->plane(s->option[KEPT_AXIS_SCORE]).kind : KEPT_PLANE_MASS;
    const bool ahead =
        kind == KEPT_PLANE_ECHO || kind == KEPT_PLANE_ECHO_PLUS || kind == KEPT_PLANE_FUTURE;
    if (ahead && (w.chunks || w.layers || w.pressure))
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' must have read the whole prompt before it can evict, so it cannot "
                         "evict by '%s'; use the schedule prefill or decode",
                         score->part.name, s->part[KEPT_AXIS_SCHEDULE]->name);
    if (w.layers && !alloc->layerwise && !alloc->cascades)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' must see every layer before it can cut one, so it cannot evict by "
                         "'%s'; use the schedule prefill, or an allocator such as uniform or cake",
                         alloc->part.name, s->part[KEPT_AXIS_SCHEDULE]->name);
    if (w.layers && !alloc->layerwise && kept_strategy_merge(s)->merge)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' cuts layers again and again while the prompt is read, and what '%s' "
                         "merged would be dropped; use an allocator such as uniform or ada, or the "
                         "schedule prefill",
                         alloc->part.name, s->part[KEPT_AXIS_MERGE]->name);
    return KEPT_OK;
}

bool kept_strategy_biases(const kept_strategy *s)
{
    for (int i = 0; i < s->n_states; i++)
        if (kept_strategy_biases(s->state[i]))
            return true;
    return !kept_strategy_is_full(s) &&
           kept_merge_biases(kept_strategy_merge(s), s->option[KEPT_AXIS_MERGE]);
}

bool kept_strategy_renumbers(const kept_strategy *s)
{
    return !kept_strategy_is_full(s) && s->part[KEPT_AXIS_POSITION] == &kept_part_rerotated;
}

bool kept_strategy_moves_keys(const kept_strategy *s)
{
    for (int i = 0; i < s->n_states; i++)
        if (kept_strategy_moves_keys(s->state[i]))
            return true;
    return kept_strategy_renumbers(s) ||
           (!kept_strategy_is_full(s) && s->part[KEPT_AXIS_POSITION] == &kept_part_slot);
}

bool kept_strategy_is_plain(const kept_strategy *s)
{
    return kept_strategy_is_idle(s) &&
           s->part[KEPT_AXIS_READ] == kept_part_default(KEPT_AXIS_READ) &&
           s->part[KEPT_AXIS_REST] == kept_part_default(KEPT_AXIS_REST);
}

int kept_strategy_note_blocks(const kept_strategy *s, int head_size)
{
    return (kept_strategy_read(s)->note * head_size + KEPT_NOTE_BLOCK - 1) / KEPT_NOTE_BLOCK;
}

double kept_strategy_skips(const kept_strategy *s)
{
    return kept_strategy_read(s)->skips ? exp2(-s->option[KEPT_AXIS_READ][0]) : 0;
}

bool kept_strategy_chooses(const kept_strategy *s, int layer)
{
    const double *option = s->option[KEPT_AXIS_READ];
    return (layer - (int)option[KEPT_READ_SKIP]) % (int)option[KEPT_READ_EVERY] == 0;
}

int kept_strategy_pages_read(const kept_strategy *s, int layer, int n)
{
    const double *option = s->option[KEPT_AXIS_READ];
    if (!kept_strategy_read(s)->note || layer < option[KEPT_READ_SKIP])
        return n;
    const double least = option[KEPT_READ_PAGES], part = ceil(option[KEPT_READ_SHARE] * n);
    const double most = part > least ? part : least;
    return most < n ? (int)most : n;
}

int64_t kept_strategy_budget_slots(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                                   int32_t full_tokens)
{
    int64_t heads = (int64_t)n_layers * n_heads, full = heads * full_tokens, most = 0;
    for (int i = 0; i < s->n_states; i++) {
        int64_t n =
            kept_strategy_budget_slots(s->state[i], n_layers, n_heads, head_size, full_tokens);
        most = n > most ? n : most;
    }
    if (s->n_states)
        return most;
    const double slot = 4.0 * head_size; /* K and V in two bytes per channel */
    switch (s->budget_kind) {
    case KEPT_BUDGET_NONE:
        break;
    case KEPT_BUDGET_PERCENT: /* the product first: it is exact for whole percents */
        if (kept_strategy_packs(s))
            return kept_form_slots(s, n_layers, n_heads, head_size,
                                   s->budget * (double)full / 100 * slot);
        return (int64_t)floor(s->budget * (double)full / 100);
    case KEPT_BUDGET_TOKENS:
        return (int64_t)s->budget * heads;
    case KEPT_BUDGET_BYTES:
        if (kept_strategy_packs(s))
            return kept_form_slots(s, n_layers, n_heads, head_size, s->budget);
        return (int64_t)floor(s->budget / slot);
    }
    return full;
}
