/* split: the arithmetic that allocators share, so that none of them loses a slot to rounding. */
#include "kept/policy.h"

#include "policy/select.h"

#include <math.h>
#include <string.h>

int64_t kept_split_open(const kept_split *s)
{
    int64_t left = s->total;
    for (int i = 0; i < s->n_layers * s->n_heads; i++)
        left -= s->n_protected[i];
    return left > 0 ? left : 0;
}

/* ---- by share ------------------------------------------------------------------------------ */

/* What heads hold when slots rise to `level` per unit of share, in reals. */
static double filled(const kept_split *s, const double *share, double level)
{
    double sum = 0;
    for (int i = 0; i < s->n_layers * s->n_heads; i++)
        sum += fmin(s->n[i], level * share[i]);
    return sum;
}

/* The lowest level at which the heads hold `slots`: one number answers caps and proportions. */
static double find_level(const kept_split *s, const double *share, double slots)
{
    double low = 0, high = 1;
    while (high < 1e300 && filled(s, share, high) < slots)
        high *= 2;
    for (;;) {
        double mid = low + (high - low) / 2;
        if (mid <= low || mid >= high)
            return high;
        *(filled(s, share, mid) < slots ? &low : &high) = mid;
    }
}

/* Hands out what rounding down left over: largest remainder first, at most one slot each. */
static void round_up(const kept_split *s, const double *share, double level, int64_t left,
                     int *keep)
{
    int n = s->n_layers * s->n_heads;
    memset(s->scratch, 0, (size_t)n * sizeof *s->scratch);
    for (; left > 0; left--) {
        int best = -1;
        double most = -1;
        for (int i = 0; i < n; i++) {
            double over = level * share[i] - keep[i];
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

void kept_split_shares(const kept_split *s, const double *share, int *keep)
{
    int n = s->n_layers * s->n_heads;
    int64_t left = kept_split_open(s), shared = 0;
    for (int i = 0; i < n; i++)
        shared += share[i] > 0 ? s->n[i] : 0;
    if (left < shared) {
        double level = find_level(s, share, (double)left);
        for (int i = 0; i < n; i++) {
            keep[i] = (int)fmin(s->n[i], floor(level * share[i]));
            left -= keep[i];
        }
        round_up(s, share, level, left, keep);
        return;
    }
    left -= shared;
    for (int i = 0; i < n; i++) {
        keep[i] = share[i] > 0 ? s->n[i] : (int)fmin(s->n[i], (double)left);
        left -= share[i] > 0 ? 0 : keep[i];
    }
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
