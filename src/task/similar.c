/* similar: the two measures of likeness that benchmarks take from Python packages, step by step as
 * the packages compute them, for their values depend on it.
 *
 *   ROUGE-L   package `rouge` 1.0.1, rouge_l_summary_level: words are sets, the union of the
 * longest common subsequences over all pairs of sentences, F = 2pr / (p + r + 1e-8). Where the
 *             package recurses too deep (sentences of some 500 words) and LongBench takes 0, this
 *             gives the value.
 *   ratio     difflib.SequenceMatcher of the standard library with autojunk: 2 matches / length.
 */
#include "task/metric.h"

#include <stdlib.h>
#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

/* ---- ROUGE-L --------------------------------------------------------------------------------- */

/* Sentences as word ids; equal words have equal ids, [0, n_words) over output and answer. */
typedef struct sentence {
    int *word;
    int n;
} sentence;

typedef struct sides {
    sentence *s[2]; /* [n] output, answer */
    int n[2];
    const char **text; /* [n_words] */
    size_t *len;
    int n_words, cap;
    int *pool, n_pool; /* ids of all sentences */
    int *slot;         /* open addressing into text, -1: free */
    int n_slots;
} sides;

static void sides_free(sides *x)
{
    free(x->s[0]);
    free(x->s[1]);
    free(x->text);
    free(x->len);
    free(x->pool);
    free(x->slot);
}

static int intern(sides *x, const char *s, size_t n)
{
    int i = (int)(kept_hash64(s, n, 0) % (uint64_t)x->n_slots);
    for (; x->slot[i] >= 0; i = (i + 1) % x->n_slots) {
        const int w = x->slot[i];
        if (x->len[w] == n && !memcmp(x->text[w], s, n))
            return w;
    }
    x->text[x->n_words] = s;
    x->len[x->n_words] = n;
    return x->slot[i] = x->n_words++;
}

/* One stretch between full stops. Without words it holds the empty word, as " ".split(" ") does. */
static void add_sentence(sides *x, int side, const char *s, size_t n)
{
    sentence *out = &x->s[side][x->n[side]++];
    *out = (sentence){x->pool + x->n_pool, 0};
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && !is_space(s[end]))
            end++;
        if (end > i)
            out->word[out->n++] = intern(x, s + i, end - i);
        i = end + 1;
    }
    if (!out->n)
        out->word[out->n++] = intern(x, "", 0);
    x->n_pool += out->n;
}

static bool sides_init(sides *x, const char *output, const char *answer)
{
    const char *text[2] = {output, answer};
    const size_t all = strlen(output) + strlen(answer) + 4;
    if (all > 1 << 24)
        return false;
    x->n_slots = (int)all * 2;
    x->text = kept_calloc(all, sizeof *x->text);
    x->len = kept_calloc(all, sizeof *x->len);
    x->pool = kept_calloc(all, sizeof *x->pool);
    x->slot = kept_calloc((size_t)x->n_slots, sizeof *x->slot);
    x->s[0] = kept_calloc(all, sizeof *x->s[0]);
    x->s[1] = kept_calloc(all, sizeof *x->s[1]);
    if (!x->text || !x->len || !x->pool || !x->slot || !x->s[0] || !x->s[1])
        return false;
    for (int i = 0; i < x->n_slots; i++)
        x->slot[i] = -1;
    for (int side = 0; side < 2; side++)
        for (const char *s = text[side]; *s;) {
            const size_t n = strcspn(s, ".");
            if (n)
                add_sentence(x, side, s, n);
            s += n + (s[n] == '.');
        }
    return true;
}

/* Marks the words of the common subsequence that the package's recursion finds. */
static bool mark_common(const sentence *ref, const sentence *out, bool *in_union)
{
    const size_t w = (size_t)out->n + 1;
    int *t = kept_calloc(((size_t)ref->n + 1) * w, sizeof *t);
    if (!t)
        return false;
    for (size_t i = 1; i <= (size_t)ref->n; i++)
        for (size_t j = 1; j < w; j++) {
            const int up = t[(i - 1) * w + j], left = t[i * w + j - 1];
            const bool same = ref->word[i - 1] == out->word[j - 1];
            t[i * w + j] = same ? t[(i - 1) * w + j - 1] + 1 : up > left ? up : left;
        }
    for (size_t i = (size_t)ref->n, j = w - 1; i && j;) {
        if (ref->word[i - 1] == out->word[j - 1]) {
            in_union[ref->word[i - 1]] = true;
            i--;
            j--;
        } else if (t[(i - 1) * w + j] > t[i * w + j - 1]) {
            i--;
        } else {
            j--;
        }
    }
    free(t);
    return true;
}

static int distinct(const sides *x, int side)
{
    bool *seen = kept_calloc((size_t)x->n_words, sizeof *seen);
    int n = 0;
    for (int s = 0; seen && s < x->n[side]; s++)
        for (int i = 0; i < x->s[side][s].n; i++) {
            bool *mark = &seen[x->s[side][s].word[i]];
            n += !*mark;
            *mark = true;
        }
    free(seen);
    return n;
}

double kept_rouge_l(const char *output, const char *answer)
{
    sides x = {0};
    double f = 0;
    bool *in_union = NULL;
    if (!sides_init(&x, output, answer) || !x.n[0] || !x.n[1])
        goto out;
    in_union = kept_calloc((size_t)x.n_words, sizeof *in_union);
    bool ok = in_union;
    for (int r = 0; r < x.n[1]; r++)
        for (int o = 0; o < x.n[0] && ok; o++)
            ok = mark_common(&x.s[1][r], &x.s[0][o], in_union);
    int common = 0;
    for (int i = 0; i < x.n_words && ok; i++)
        common += in_union[i];
    const int n = distinct(&x, 0), m = distinct(&x, 1);
    if (ok && n && m) {
        const double p = (double)common / n, r = (double)common / m;
        f = 2.0 * ((p * r) / (p + r + 1e-8));
    }
out:
    free(in_union);
    sides_free(&x);
    return f;
}

/* ---- difflib --------------------------------------------------------------------------------- */

typedef struct matcher {
    uint32_t *a, *b;
    int na, nb;
    int *next;      /* [nb] next place of the same character in b, -1: none */
    int *first;     /* [na] first place of a[i] in b, -1: none or popular */
    int *row[2];    /* [nb + 1] lengths of matches that end at b[j - 1] */
    int (*todo)[4]; /* ranges left to search */
} matcher;

/* Code points of s; a byte that is no UTF-8 stands for itself. */
static int decode(const char *s, uint32_t *out)
{
    int n = 0;
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        const int len = *p < 0xc0 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
        uint32_t c = len == 1 ? *p : *p & (0x7fu >> len);
        int i = 1;
        for (; i < len && (p[i] & 0xc0) == 0x80; i++)
            c = c << 6 | (p[i] & 0x3f);
        out[n++] = i == len ? c : *p;
        p += i == len ? len : 1;
    }
    return n;
}

/* Links equal characters of b; those in more than a hundredth of 200 and more are left out. */
static void index_b(matcher *m)
{
    for (int j = 0; j < m->nb; j++)
        m->next[j] = -1;
    for (int i = 0; i < m->na; i++) {
        int count = 0, last = -1;
        m->first[i] = -1;
        for (int j = 0; j < m->nb; j++) {
            if (m->b[j] != m->a[i])
                continue;
            if (last < 0)
                m->first[i] = j;
            else
                m->next[last] = j;
            last = j;
            count++;
        }
        if (m->nb >= 200 && count > m->nb / 100 + 1)
            m->first[i] = -1;
    }
}

/* Longest block a[i..i+k) = b[j..j+k) inside the ranges of r: the first in a, then in b; then grown
 * over characters that the index leaves out. Returns k. */
static int longest(matcher *m, const int r[4], int *bi, int *bj)
{
    int best = 0;
    *bi = r[0];
    *bj = r[2];
    memset(m->row[0], 0, ((size_t)m->nb + 1) * sizeof(int));
    for (int i = r[0]; i < r[1]; i++) {
        int *prev = m->row[0], *now = m->row[1];
        memset(now, 0, ((size_t)m->nb + 1) * sizeof(int));
        for (int j = m->first[i]; j >= 0 && j < r[3]; j = m->next[j]) {
            if (j < r[2])
                continue;
            const int k = now[j + 1] = prev[j] + 1;
            if (k > best) {
                *bi = i - k + 1;
                *bj = j - k + 1;
                best = k;
            }
        }
        m->row[0] = now;
        m->row[1] = prev;
    }
    for (; *bi > r[0] && *bj > r[2] && m->a[*bi - 1] == m->b[*bj - 1]; best++) {
        --*bi;
        --*bj;
    }
    while (*bi + best < r[1] && *bj + best < r[3] && m->a[*bi + best] == m->b[*bj + best])
        best++;
    return best;
}

static int matches(matcher *m)
{
    int n = 0, left = 1;
    const int whole[4] = {0, m->na, 0, m->nb};
    memcpy(m->todo[0], whole, sizeof whole);
    while (left) {
        int r[4], i, j;
        memcpy(r, m->todo[--left], sizeof r);
        const int k = longest(m, r, &i, &j);
        n += k;
        if (k && r[0] < i && r[2] < j)
            memcpy(m->todo[left++], (int[4]){r[0], i, r[2], j}, sizeof r);
        if (k && i + k < r[1] && j + k < r[3])
            memcpy(m->todo[left++], (int[4]){i + k, r[1], j + k, r[3]}, sizeof r);
    }
    return n;
}

double kept_difflib_ratio(const char *a, const char *b)
{
    const size_t la = strlen(a), lb = strlen(b);
    if (la + lb > 1 << 20)
        return 0;
    matcher m = {
        .a = kept_calloc(la + 1, sizeof *m.a),
        .b = kept_calloc(lb + 1, sizeof *m.b),
        .next = kept_calloc(lb + 1, sizeof *m.next),
        .first = kept_calloc(la + 1, sizeof *m.first),
        .row = {kept_calloc(lb + 2, sizeof(int)), kept_calloc(lb + 2, sizeof(int))},
        .todo = kept_calloc(la + 2, sizeof *m.todo),
    };
    double ratio = 0;
    if (m.a && m.b && m.next && m.first && m.row[0] && m.row[1] && m.todo) {
        m.na = decode(a, m.a);
        m.nb = decode(b, m.b);
        index_b(&m);
        ratio = m.na + m.nb ? 2.0 * matches(&m) / (m.na + m.nb) : 1;
    }
    void *blocks[] = {m.a, m.b, m.next, m.first, m.row[0], m.row[1], m.todo};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    return ratio;
}
