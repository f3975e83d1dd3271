/* anytime: verdicts that hold whenever one looks. See stats.h. */
#include "bench/stats.h"

#include <math.h>

#define MOST 0.5 /* of the bet that could lose everything */

/* Approximate GRAPA (Waudby-Smith and Ramdas 2024, section B.3) against a mean of null, from what
 * came before, with their prior of one observation of 1/2 and a variance of 1/4. */
static double bet(const kept_capital *c, double null, double side)
{
    const double mean = (0.5 + c->sum) / (c->n + 1);
    const double off = side * (mean - null);
    const double lambda = off / (c->spread / (c->n + 1) + off * off);
    return fmin(fmax(lambda, 0), MOST / (side > 0 ? null : 1 - null));
}

kept_capital kept_capital_new(void)
{
    return (kept_capital){.spread = 0.25, .verdict = KEPT_INCONCLUSIVE};
}

kept_verdict kept_capital_add(kept_capital *c, double diff, double margin, double alpha)
{
    const double y = fmin(fmax((diff + 1) / 2, 0), 1), null = (1 - margin) / 2;
    for (int k = 0; k < 2; k++) {
        const double side = k ? -1 : 1;
        c->log_capital[k] += log1p(side * bet(c, null, side) * (y - null));
    }
    c->n++;
    c->sum += y;
    const double mean = (0.5 + c->sum) / (c->n + 1);
    c->spread += (y - mean) * (y - mean);
    if (c->verdict == KEPT_INCONCLUSIVE)
        for (int k = 0; k < 2; k++)
            if (c->log_capital[k] >= log(1 / alpha)) {
                c->verdict = k ? KEPT_WORSE : KEPT_NON_INFERIOR;
                c->settled_at = c->n;
                break;
            }
    return c->verdict;
}
