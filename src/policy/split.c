/* split: the arithmetic that allocators share, so that none of them loses a slot to rounding. */
#include "kept/policy.h"

#include "policy/select.h"

#include <math.h>
#include <string.h>

#define LEAST_SHARE 1e-30 /* of the largest one: what is less is nothing */

int64_t kept_split_open(const kept_split *s)
{
    int64_t left = s->total;
    for (int i = 0; i < s->n_layers * s->n_heads; i++)
        left -= s->n_protected[i];
    return left > 0 ? left : 0;
}

/* ---- by share ------------------------------------------------------------------------------ */

/* What head i holds at `level` slots per unit of share, in reals, of which the first under[i] are
 * not handed out (under NULL: none). */
static double risen(const kept_split *s, const double *share, const int *under, double level, int i)
{
    return fmin(s->n[i], fmax(0, level * share[i] - (under ? under[i] : 0)));
}

static double risen_all(const kept_split *s, const double *share, const int *under, double level)
{
    double sum = 0;
    for (int i = 0; i < s->n_layers * s->n_heads; i++)
        sum += risen(s, share, under, level, i);
    return sum;
}

/* The lowest level at which the heads hold `slots`: one number answers caps and proportions. */
static double find_level(const kept_split *s, const double *share, const int *under, double slots)
{
    double low = 0, high = 1;
    while (high < 1e300 && risen_all(s, share, under, high) < slots)
        high *= 2;
    for (;;) {
        double mid = low + (high - low) / 2;
        if (mid <= low || mid >= high)
            return high;
        *(risen_all(s, share, under, mid) < slots ? &low : &high) = mid;
    }
}

/* Hands out what rounding down left over: largest remainder first, at most one slot each. */
static void round_up(const kept_split *s, const double *share, const int *under, double level,
                     int64_t left, int *keep)
{
    int n = s->n_layers * s->n_heads;
    memset(s->scratch, 0, (size_t)n * sizeof *s->scratch);
    for (; left > 0; left--) {
        int best = -1;
        double most = -1;
        for (int i = 0; i < n; i++) {
            double over = risen(s, share, under, level, i) - keep[i];
            if (!s->scratch[i] && keep[i] < s->n[i] && over > most) {
                best = i;
                most = over;
            }
        }
        if (best < 0)
            return;
        s->scratch[best] = 1;
        keep[best]++;
    }
}
static void hand_out(const kept_split *s, const double *share, const int *under, int *keep)
{
    int n = s->n_layers * s->n_heads;
    int64_t left = kept_split_open(s), shared = 0;
    for (int i = 0; i < n; i++)
        shared += share[i] > 0 ? s->n[i] : 0;
    if (left < shared) {
        double level = find_level(s, share, under, (double)left);
        for (int i = 0; i < n; i++) {
            keep[i] = (int)risen(s, share, under, level, i);
            left -= keep[i];
        }
        round_up(s, share, under, level, left, keep);
        return;
    }
    left -= shared;
    for (int i = 0; i < n; i++) {
        keep[i] = share[i] > 0 ? s->n[i] : (int)fmin(s->n[i], (double)left);
        left -= share[i] > 0 ? 0 : keep[i];
    }
}

void kept_split_shares(const kept_split *s, const double *share, int *keep)
{
    hand_out(s, share, NULL, keep);
}

/* ---- evenly -------------------------------------------------------------------------------- */

/* What head i holds besides its protected slots when all rise to `level`. */
static int64_t evened(const kept_split *s, const int *cap, int i, int64_t level)
{
    int64_t over = level - s->n_protected[i];
    return over < 0 ? 0 : over < cap[i] ? over : cap[i];
}

void kept_split_fill(const kept_split *s, int first, int n, const int *cap, int64_t slots,
                     int *keep)
{
    int64_t low = 0, high = (int64_t)1 << 33; /* above every level that matters */
    while (high - low > 1) {
        int64_t mid = low + (high - low) / 2, sum = 0;
        for (int i = first; i < first + n; i++)
            sum += evened(s, cap, i, mid);
        *(sum <= slots ? &low : &high) = mid;
    }
    for (int i = first; i < first + n; i++)
        slots -= keep[i] = (int)evened(s, cap, i, low);
    for (int i = first; i < first + n && slots > 0; i++)
        if (evened(s, cap, i, low + 1) > keep[i]) {
            keep[i]++;
            slots--;
        }
}

static double weight(double share)
{
    return share > 0 && isfinite(share) ? share : 0;
}

void kept_split_layers(const kept_split *s, const double *share, int *open)
{
    int n[KEPT_MAX_LAYERS], n_protected[KEPT_MAX_LAYERS], scratch[KEPT_MAX_LAYERS];
    double part[KEPT_MAX_LAYERS], most = 0;
    kept_split layers = {.n_layers = s->n_layers,
                         .n_heads = 1,
                         .n = n,
                         .n_protected = n_protected,
                         .total = s->total,
                         .scratch = scratch};
    for (int l = 0; l < s->n_layers; l++)
        most = fmax(most, weight(share[l]));
    for (int l = 0; l < s->n_layers; l++) {
        part[l] = most > 0 ? weight(share[l]) / most : 1;
        part[l] = part[l] < LEAST_SHARE ? 0 : part[l];
        n[l] = n_protected[l] = 0;
        for (int i = l * s->n_heads; i < (l + 1) * s->n_heads; i++) {
            n[l] += s->n[i];
            n_protected[l] += s->n_protected[i];
        }
    }
    hand_out(&layers, part, n_protected, open);
}

/* ---- by score ------------------------------------------------------------------------------ */

/* Candidates of head i that score at least `bits`, or its floor if that is more. */
static int count(const kept_split *s, int i, uint64_t bits, int floor_)
{
    int c = 0;
    for (int k = 0; k < s->n[i]; k++)
        c += kept_float_order(s->score[i][k]) >= bits;
    return c > floor_ ? c : floor_;
}

void kept_split_top(const kept_split *s, int first, int n, int64_t slots, int *keep)
{
    /* The highest threshold that still admits `slots` candidates, by bisection over float bits. */
    uint64_t low = 0, high = (uint64_t)UINT32_MAX + 1;
    while (high - low > 1) {
        uint64_t mid = low + (high - low) / 2;
        int64_t sum = 0;
        for (int i = first; i < first + n; i++)
            sum += count(s, i, mid, keep[i]);
        *(sum >= slots ? &low : &high) = mid;
    }
    for (int i = first; i < first + n; i++)
        slots -= count(s, i, low + 1, keep[i]);
    for (int i = first; i < first + n; i++) {
        int sure = count(s, i, low + 1, keep[i]), tied = count(s, i, low, keep[i]) - sure;
        int take = slots > tied ? tied : slots > 0 ? (int)slots : 0;
        keep[i] = sure + take;
        slots -= take;
    }
}

/* ---- by coverage --------------------------------------------------------------------------- */

/* Sum of what head i scores above low, over slots that score at least `at`; *n: how many. */
static double sum_above(const kept_split *s, int i, double low, double at, int *n)
{
    double sum = 0;
    *n = 0;
    for (int k = 0; k < s->n[i]; k++)
        if (s->score[i][k] >= at) {
            sum += s->score[i][k] - low;
            ++*n;
        }
    return sum;
}

int kept_split_cover(const kept_split *s, int i, double part)
{
    double low = 0, top = 0;
    int n;
    for (int k = 0; k < s->n[i]; k++) {
        low = fmin(low, s->score[i][k]);
        top = fmax(top, s->score[i][k]);
    }
    double want = part * sum_above(s, i, low, low, &n), from = low, to = nextafter(top, INFINITY);
    for (;;) { /* the highest score such that it and all above it carry enough is in [from, to) */
        double mid = from + (to - from) / 2;
        if (mid <= from || mid >= to)
            break;
        *(sum_above(s, i, low, mid, &n) >= want ? &from : &to) = mid;
    }
    int most;
    sum_above(s, i, low, from, &most);
    want -= sum_above(s, i, low, to, &n);
    if (from > low && want > 0) /* slots that tie at from; not one more for the sum's rounding */
        n += (int)ceil(want / (from - low) * (1 - 1e-12));
    return n < most ? n : most;
}

/* ---- by table ------------------------------------------------------------------------------ */

const float *kept_split_table(const kept_split *s, const char *name, int row, int n_rows)
{
    size_t n = 0, heads = (size_t)s->n_heads;
    const float *x = s->trained ? kept_trained_array(s->trained, name, &n) : NULL;
    size_t n_layers = n_rows > 0 ? n / ((size_t)n_rows * heads) : 0; /* of the model */
    if (!x || n != n_layers * (size_t)n_rows * heads || row < 0 || row >= n_rows)
        return NULL;
    if (!s->layer || s->n_layers < 1 || (size_t)s->layer[s->n_layers - 1] >= n_layers)
        return NULL;
    return x + (size_t)row * n_layers * heads;
}
