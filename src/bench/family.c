/* family: see family.h. */
#include "bench/family.h"
#include "bench/doc.h"

#include <stdlib.h>

typedef struct place {
    int ladder, i;
    double held;
} place;

static int by_place(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->ladder != y->ladder)
        return x->ladder < y->ladder ? -1 : 1;
    if (x->held != y->held)
        return x->held > y->held ? -1 : 1;
    return (x->i > y->i) - (x->i < y->i);
}

/* Adjusted p of one side; worse: the ladders are climbed from their small ends. */
static bool adjust(const kept_family *f, bool worse, double *out)
{
    const size_t n = (size_t)f->n;
    place *order = kept_calloc(n + 1, sizeof *order);
    double *p = kept_calloc(2 * n + 1, sizeof *p), *adjusted = p ? p + n : NULL;
    int *ladder = kept_calloc(n + 1, sizeof *ladder);
    bool ok = order && p && ladder;
    for (int i = 0; ok && i < f->n; i++) {
        const double held = isfinite(f->member[i].held) ? f->member[i].held : 0;
        order[i] = (place){f->member[i].ladder, i, worse ? -held : held};
    }
    if (ok)
        qsort(order, n, sizeof *order, by_place);
    for (int k = 0; ok && k < f->n; k++) {
        const kept_member *m = &f->member[order[k].i];
        p[k] = worse ? m->p_worse : m->p_better;
        ladder[k] = order[k].ladder;
    }
    ok = ok && kept_holm_ladders(p, ladder, f->n, adjusted);
    for (int k = 0; ok && k < f->n; k++)
        out[order[k].i] = adjusted[k];
    free(order);
    free(p);
    free(ladder);
    return ok;
}

kept_status kept_family_correct(kept_family *f, double level, kept_error *err)
{
    const double alpha = 1 - level;
    double *better = kept_calloc(2 * (size_t)f->n + 1, sizeof *better);
    double *worse = better ? better + f->n : NULL;
    if (!better || !adjust(f, false, better) || !adjust(f, true, worse)) {
        free(better);
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    }
    for (int i = 0; i < f->n; i++) {
        json_t *r = json_array_get(f->rows, (size_t)i);
        kept_verdict v = f->member[i].verdict;
        const bool lost = f->n > 1 && ((v == KEPT_NON_INFERIOR && !(better[i] <= alpha)) ||
                                       (v == KEPT_WORSE && !(worse[i] <= alpha)));
        v = lost ? KEPT_INCONCLUSIVE : v;
        kept_doc_put(r, "p_inferior_holm", better[i]);
        json_object_set_new(r, "verdict", json_string(kept_verdict_text(v)));
        if (v != KEPT_INCONCLUSIVE)
            json_object_set_new(r, "more", json_integer(0));
        else
            kept_doc_put(r, "more", f->member[i].more > 0 ? f->member[i].more : NAN);
    }
    free(better);
    return KEPT_OK;
}
