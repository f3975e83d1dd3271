/* text: blocks, sides, documents and fingerprints. The contracts are in text.h. */
#include "train/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_BLOCK = 4096, MAX_BLOCK = 65536, BLOCKS = 64 };

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* ---- blocks ------------------------------------------------------------------------------- */

static kept_status cut(kept_train_text *t, const char *path, kept_error *err)
{
    size_t n = t->text.n, at = 0;
    int held = 0;
    t->block = n / BLOCKS < MIN_BLOCK ? MIN_BLOCK : n / BLOCKS > MAX_BLOCK ? MAX_BLOCK : n / BLOCKS;
    t->begin = kept_calloc(n / t->block + 2, sizeof *t->begin);
    t->held = kept_calloc(n / t->block + 2, 1);
    if (!t->begin || !t->held)
        return kept_fail(err, KEPT_NOMEM, "no memory for %s", path);
    while (at < n) {
        size_t end = at + t->block < n ? at + t->block : n;
        while (end < n && !is_space(t->text.s[end]))
            end++;
        t->held[t->n_blocks] = kept_hash64(t->text.s + at, end - at, 0) % KEPT_SPLIT_EVERY == 0;
        held += t->held[t->n_blocks];
        t->begin[++t->n_blocks] = at = end;
    }
    if (!held || held == t->n_blocks)
        return kept_fail(err, KEPT_ARGUMENT,
                         "%s is too short to be split into text to train on and text held out: %d "
                         "blocks of %zu bytes; give a longer text",
                         path, t->n_blocks, t->block);
    return KEPT_OK;
}

kept_status kept_train_text_open(const char *path, kept_train_text *t, kept_error *err)
{
    *t = (kept_train_text){0};
    kept_status st = kept_buf_read_file(path, &t->text, err);
    if (!st)
        st = kept_sha256_file(path, t->sha256, err);
    if (!st)
        st = cut(t, path, err);
    if (st)
        kept_train_text_close(t);
    return st;
}

void kept_train_text_close(kept_train_text *t)
{
    kept_buf_free(&t->text);
    free(t->begin);
    free(t->held);
    *t = (kept_train_text){0};
}

kept_status kept_train_text_write_held(const kept_train_text *t, const char *path, kept_error *err)
{
    FILE *f = fopen(path, "wb");
    bool bad = !f;
    for (int i = 0; f && i < t->n_blocks; i++) {
        size_t n = t->begin[i + 1] - t->begin[i];
        if (t->held[i])
            bad |= fwrite(t->text.s + t->begin[i], 1, n, f) != n || fputs("\n", f) < 0;
    }
    bad |= f && fclose(f);
    return bad ? kept_fail(err, KEPT_IO, "cannot write %s: %s", path, strerror(errno)) : KEPT_OK;
}

/* ---- documents ---------------------------------------------------------------------------- */

/* Blocks of one side in the order that the seed draws. Returns how many. */
static int draw_order(const kept_train_text *t, bool held, uint64_t seed, int *order)
{
    kept_rng rng;
    int n = 0;
    for (int i = 0; i < t->n_blocks; i++)
        if (t->held[i] == held)
            order[n++] = i;
    kept_rng_init(&rng, kept_hash64(&seed, sizeof seed, held ? 2 : 1));
    for (int i = n - 1; i > 0; i--) {
        int j = (int)kept_rng_below(&rng, (uint32_t)i + 1), x = order[i];
        order[i] = order[j];
        order[j] = x;
    }
    return n;
}

typedef struct drawing {
    const kept_train_text *t;
    const kept_model *m;
    int length, bos;
    int *order, *n_tokens; /* blocks and their tokens, -1: not counted yet */
    int n_blocks;
} drawing;

/* Document `run` of the k-th block into out; *there: false where the block is too short. */
static kept_status take(drawing *d, int k, int run, int32_t *out, bool *there, kept_error *err)
{
    int b = d->order[k], body = d->length - d->bos, n;
    int32_t *tokens;
    *there = false;
    if (d->n_tokens[k] >= 0 && (int64_t)(run + 1) * body > d->n_tokens[k])
        return KEPT_OK;
    kept_status st =
        kept_prompt_tokens(d->m, d->t->text.s + d->t->begin[b], d->t->begin[b + 1] - d->t->begin[b],
                           false, false, &tokens, &n, err);
    if (st)
        return st;
    d->n_tokens[k] = n;
    if ((int64_t)(run + 1) * body <= n) {
        if (d->bos)
            out[0] = kept_token_bos(d->m);
        memcpy(out + d->bos, tokens + (size_t)run * (size_t)body, (size_t)body * sizeof *out);
        *there = true;
    }
    free(tokens);
    return KEPT_OK;
}

static kept_status draw(drawing *d, int n, int32_t *out, bool held, kept_error *err)
{
    int got = 0;
    for (int run = 0, any = 1; any && got < n; run++) {
        any = 0;
        for (int k = 0; k < d->n_blocks && got < n; k++) {
            bool there;
            kept_status st = take(d, k, run, out + (size_t)got * (size_t)d->length, &there, err);
            if (st)
                return st;
            got += there;
            any |= there;
        }
    }
    if (got < n)
        return kept_fail(err, KEPT_ARGUMENT,
                         "the text has %d documents of %d tokens to %s, %d are wanted; give a "
                         "longer text or fewer --tokens",
                         got, d->length, held ? "hold out" : "train on", n);
    return KEPT_OK;
}

kept_status kept_train_text_documents(const kept_train_text *t, const kept_model *m, bool held,
                                      uint64_t seed, int n, int length, int32_t **tokens,
                                      kept_error *err)
{
    drawing d = {.t = t, .m = m, .length = length, .bos = kept_token_bos(m) >= 0};
    kept_status st = KEPT_NOMEM;
    *tokens = kept_calloc((size_t)n * (size_t)length + 1, sizeof **tokens);
    d.order = kept_calloc((size_t)t->n_blocks + 1, sizeof *d.order);
    d.n_tokens = kept_calloc((size_t)t->n_blocks + 1, sizeof *d.n_tokens);
    if (*tokens && d.order && d.n_tokens) {
        d.n_blocks = draw_order(t, held, seed, d.order);
        for (int i = 0; i < d.n_blocks; i++)
            d.n_tokens[i] = -1;
        st = draw(&d, n, *tokens, held, err);
    } else {
        kept_fail(err, st, "no memory for %d documents", n);
    }
    free(d.order);
    free(d.n_tokens);
    if (st) {
        free(*tokens);
        *tokens = NULL;
    }
    return st;
}

/* ---- fingerprint -------------------------------------------------------------------------- */

enum { WORDS = 13, SAMPLE = 8 };

static void push(kept_shingles *s, uint32_t hash)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 1024;
        uint32_t *more = realloc(s->hash, cap * sizeof *more);
        if (!more) {
            s->failed = true;
            return;
        }
        s->hash = more;
        s->cap = cap;
    }
    s->hash[s->n++] = hash;
}

/* Words are runs of letters, digits and bytes above 127, without case, so that line breaks and
 * quotes do not hide a copy. */
static bool in_word(unsigned char c)
{
    return isalnum(c) || c >= 128;
}

void kept_shingles_add(kept_shingles *s, const char *text, size_t n)
{
    uint64_t ring[WORDS];
    size_t words = 0;
    for (size_t i = 0; i < n;) {
        while (i < n && !in_word((unsigned char)text[i]))
            i++;
        uint64_t word = 1469598103934665603u;
        size_t from = i;
        for (; i < n && in_word((unsigned char)text[i]); i++)
            word = (word ^ (unsigned)tolower((unsigned char)text[i])) * 1099511628211u;
        if (i == from)
            break;
        ring[words++ % WORDS] = word;
        if (words < WORDS)
            continue;
        uint64_t run[WORDS];
        for (size_t k = 0; k < WORDS; k++)
            run[k] = ring[(words + k) % WORDS];
        uint64_t hash = kept_hash64(run, sizeof run, 0);
        if (hash % SAMPLE == 0)
            push(s, (uint32_t)(hash >> 40));
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void kept_shingles_sort(kept_shingles *s)
{
    size_t n = 0;
    if (s->n)
        qsort(s->hash, s->n, sizeof *s->hash, compare);
    for (size_t i = 0; i < s->n; i++)
        if (!n || s->hash[i] != s->hash[n - 1])
            s->hash[n++] = s->hash[i];
    s->n = n;
}

void kept_shingles_free(kept_shingles *s)
{
    free(s->hash);
    *s = (kept_shingles){0};
}

size_t kept_shingles_common(const kept_shingles *a, const kept_shingles *b)
{
    size_t n = 0, i = 0, k = 0;
    while (i < a->n && k < b->n) {
        n += a->hash[i] == b->hash[k];
        if (a->hash[i] < b->hash[k])
            i++;
        else
            k++;
    }
    return n;
}
