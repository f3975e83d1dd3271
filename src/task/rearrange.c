/* rearrange: the same context laid out otherwise (--perturb context-*). A context is pieces with
 * text between them; some pieces are facts, the others fill. What stands before the first piece and
 * behind the last one stays.
 *
 *   context-lines   line breaks become blank lines and the other way round, a space a line break
 *   context-order   what fills in another order; every fact keeps its number among the pieces
 *   context-places  facts and what fills keep their orders; the numbers of pieces between the facts
 *                   are read backwards, so a fact alone at a tenth comes to stand at nine tenths
 *
 * Facts never change their order: a later one may override an earlier one.
 */
#include "task/parts.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST = 3 }; /* pieces that have an order */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* ---- pieces of the user's text --------------------------------------------------------------- */

/* End of the piece at `at`: a blank line, or any line break where `lines`. */
static size_t piece_end(const char *s, size_t at, bool lines)
{
    for (; s[at]; at++)
        if (s[at] == '\n' && (lines || s[at + 1] == '\n'))
            break;
    return at;
}

/* Paragraphs or lines, without the white space around them. *n: how many; out may be NULL. */
static void cut(const char *s, bool lines, kept_piece *out, int *n)
{
    *n = 0;
    for (size_t at = 0; s[at];) {
        while (is_space(s[at]))
            at++;
        size_t end = piece_end(s, at, lines);
        const size_t next = end;
        while (end > at && is_space(s[end - 1]))
            end--;
        if (end > at && out)
            out[*n] = (kept_piece){at, end, false};
        *n += end > at;
        at = next;
    }
}

/* Pieces that share a span become one, which is a fact. */
static void hold(kept_sample *s, const kept_span_chars *span)
{
    int first = -1, n = 0;
    for (int i = 0; i < s->n_pieces; i++) {
        const kept_piece p = s->pieces[i];
        const bool touches = p.begin < span->end && span->begin < p.end;
        if (touches && first >= 0) {
            s->pieces[first].end = p.end;
            continue;
        }
        if (touches) {
            first = n;
            s->pieces[n] = (kept_piece){p.begin, p.end, true};
        } else {
            s->pieces[n] = p;
        }
        n++;
    }
    s->n_pieces = n;
}

/* Paragraphs where there are some, else lines; the first one, which may say what follows, stays. */
static kept_status find_pieces(kept_sample *s, kept_error *err)
{
    int n;
    cut(s->context, false, NULL, &n);
    const bool lines = n <= LEAST;
    if (lines)
        cut(s->context, true, NULL, &n);
    if (n <= LEAST)
        return KEPT_OK;
    s->pieces = kept_calloc((size_t)n, sizeof *s->pieces);
    if (!s->pieces)
        return kept_fail(err, KEPT_NOMEM, "out of memory for a context");
    cut(s->context, lines, s->pieces, &n);
    s->n_pieces = n;
    for (int k = 0; k < s->n_turns; k++)
        for (int i = 0; i < s->turns[k].n_evidence; i++)
            hold(s, &s->turns[k].evidence[i]);
    for (int i = 0; i < s->n_pins; i++)
        hold(s, &s->pins[i]);
    s->n_pieces--;
    memmove(s->pieces, s->pieces + 1, (size_t)s->n_pieces * sizeof *s->pieces);
    return KEPT_OK;
}

/* ---- another layout -------------------------------------------------------------------------- */

/* Whether all that fills is the same text again and again. */
static bool all_alike(const kept_sample *s)
{
    const kept_piece *first = NULL;
    for (int i = 0; i < s->n_pieces; i++) {
        const kept_piece *p = &s->pieces[i];
        if (p->fact)
            continue;
        const size_t n = p->end - p->begin;
        if (first && (n != first->end - first->begin ||
                      memcmp(s->context + p->begin, s->context + first->begin, n) != 0))
            return false;
        first = p;
    }
    return true;
}

/* Which piece stands at each place, where what fills is shuffled; room: [2 n_pieces]. */
static void shuffle_filler(const kept_sample *s, kept_rng *rng, int *order, int *room)
{
    int *place = room, *drawn = room + s->n_pieces, n = 0;
    for (int i = 0; i < s->n_pieces; i++)
        if (!s->pieces[i].fact)
            place[n++] = i;
    kept_shuffle(rng, drawn, n);
    for (int k = 0; k < n; k++)
        order[place[k]] = place[drawn[k]];
}

/* The same where as many pieces precede a fact as came behind its counterpart from the end. */
static void mirror_facts(const kept_sample *s, int *order)
{
    const int n = s->n_pieces;
    int fact = 0, filler = 0;
    for (int i = 0; i < n; i++) {
        const bool is_fact = s->pieces[n - 1 - i].fact;
        int *next = is_fact ? &fact : &filler;
        while (s->pieces[*next].fact != is_fact)
            (*next)++;
        order[i] = (*next)++;
    }
}

/* Line breaks of what separates two pieces said otherwise. */
static void put_breaks(kept_buf *b, const char *s, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        size_t run = 0;
        while (i + run < n && s[i + run] == '\n')
            run++;
        if (!run) {
            kept_buf_add(b, s + i, 1);
            continue;
        }
        kept_buf_puts(b, run == 1 ? "\n\n" : "\n");
        any = true;
        i += run - 1;
    }
    if (!any && n && b->n && b->s[b->n - 1] == ' ')
        b->s[b->n - 1] = '\n';
}

/* Where a span came to stand: with the piece that holds it, else with the text around. */
static void move_span(const kept_sample *s, const size_t *to, size_t tail, kept_span_chars *span)
{
    for (int i = 0; i < s->n_pieces; i++) {
        const kept_piece *p = &s->pieces[i];
        if (span->begin < p->begin || span->end > p->end)
            continue;
        span->end += to[i] - p->begin;
        span->begin += to[i] - p->begin;
        return;
    }
    const size_t last = s->pieces[s->n_pieces - 1].end;
    if (span->begin >= last) {
        span->begin += tail - last;
        span->end += tail - last;
    }
}

/* Evidence, pins and depths of the new text of n bytes. */
static void move_spans(kept_sample *s, const size_t *to, size_t tail, size_t n)
{
    for (int i = 0; i < s->n_pins; i++)
        move_span(s, to, tail, &s->pins[i]);
    for (int k = 0; k < s->n_turns; k++) {
        kept_turn *t = &s->turns[k];
        size_t first = n;
        for (int i = 0; i < t->n_evidence; i++) {
            move_span(s, to, tail, &t->evidence[i]);
            first = t->evidence[i].begin < first ? t->evidence[i].begin : first;
        }
        if (t->depth >= 0 && t->n_evidence)
            t->depth = (double)first / (double)n;
    }
}

/* The pieces in `order`, with what separated the places between them. */
static kept_status rewrite(kept_sample *s, const int *order, bool breaks, kept_error *err)
{
    const int n = s->n_pieces;
    size_t *to = kept_calloc((size_t)n, sizeof *to);
    kept_buf b = {0};
    if (!to)
        return kept_fail(err, KEPT_NOMEM, "out of memory for a context");
    kept_buf_add(&b, s->context, s->pieces[0].begin);
    for (int i = 0; i < n; i++) {
        const kept_piece *p = &s->pieces[order[i]];
        const size_t gap = i + 1 < n ? s->pieces[i + 1].begin - s->pieces[i].end : 0;
        to[order[i]] = b.n;
        kept_buf_add(&b, s->context + p->begin, p->end - p->begin);
        if (breaks)
            put_breaks(&b, s->context + s->pieces[i].end, gap);
        else
            kept_buf_add(&b, s->context + s->pieces[i].end, gap);
    }
    const size_t tail = b.n;
    kept_buf_puts(&b, s->context + s->pieces[n - 1].end);
    if (b.failed) {
        free(to);
        kept_buf_free(&b);
        return kept_fail(err, KEPT_NOMEM, "out of memory for a context");
    }
    move_spans(s, to, tail, b.n);
    free(to);
    s->plain = s->context;
    s->context = b.s;
    return KEPT_OK;
}

static kept_status refuse(const kept_task *t, int i, const char *why, kept_error *err)
{
    return kept_fail(err, KEPT_ARGUMENT, "sample %d of %s: --perturb %s %s", i, t->label,
                     t->perturb, why);
}

kept_status kept_rearrange(const kept_task *t, int i, kept_sample *s, kept_error *err)
{
    const bool reorders = !strcmp(t->perturb, "context-order");
    const bool moves = !strcmp(t->perturb, "context-places");
    int n_facts = 0;
    kept_status st = KEPT_OK;
    if (!s->pieces && t->type->open == kept_jsonl_open && !s->raw)
        st = find_pieces(s, err);
    if (st)
        return st;
    for (int k = 0; k < s->n_pieces; k++)
        n_facts += s->pieces[k].fact;
    if (s->n_pieces < LEAST)
        return refuse(t, i, "finds no lines or paragraphs that could be laid out otherwise", err);
    if (reorders && all_alike(s))
        return refuse(t, i,
                      "has no other order: what fills the context is all the same "
                      "(--haystack FILE)",
                      err);
    if (moves && !n_facts)
        return refuse(t, i, "finds no fact to move", err);
    int *order = kept_calloc(3 * (size_t)s->n_pieces, sizeof *order);
    if (!order)
        return kept_fail(err, KEPT_NOMEM, "out of memory for a context");
    kept_rng rng;
    kept_rng_init(&rng, kept_hash64("layout", 6, kept_task_sample_seed(t, i)));
    for (int k = 0; k < s->n_pieces; k++)
        order[k] = k;
    if (reorders)
        shuffle_filler(s, &rng, order, order + s->n_pieces);
    if (moves)
        mirror_facts(s, order);
    st = rewrite(s, order, !reorders && !moves, err);
    free(order);
    return st;
}
