/* overlap: nothing is evaluated on what it was trained on. */
#include "train/text.h"
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

/* Refused from so much of the smaller side on. Texts repeat themselves, so a few runs of words are
 * no proof; a document of 2,000 tokens that is shared shows some 150. */
enum { LEAST = 8 };
#define LEAST_SHARE 0.02

static kept_status refuse(const kept_trained *t, const char *file, const char *how, kept_error *err)
{
    const char *name = kept_trained_note(t, "text-name"), *kind = kept_trained_kind(t);
    return kept_fail(err, KEPT_ARGUMENT,
                     "the trained file '%s' was trained on %s%s, and %s %s; evaluate on another "
                     "text, or on what training left out (--held-out FILE writes it)",
                     kind, how, name ? name : "a text", file,
                     *how ? "shares text with it" : "is that text");
}

/* The fingerprint that t keeps. False: out of memory. */
static bool stored(const kept_trained *t, kept_shingles *s)
{
    size_t n;
    const float *x = kept_trained_array(t, "text-shingles", &n);
    s->hash = kept_calloc(n + 1, sizeof *s->hash);
    for (size_t i = 0; s->hash && i < n; i++)
        s->hash[i] = x[i] >= 0 && x[i] < 16777216.0f ? (uint32_t)x[i] : 0;
    s->n = s->hash ? n : 0;
    return s->hash != NULL;
}

kept_status kept_train_check_text(const kept_trained *t, const char *file, kept_error *err)
{
    char hex[65];
    kept_buf text = {0};
    kept_shingles mine = {0}, theirs = {0};
    const char *sha = kept_trained_note(t, "text");
    if (!sha)
        return KEPT_OK;
    kept_status st = kept_sha256_file(file, hex, err);
    if (!st && !strcmp(hex, sha))
        return refuse(t, file, "", err);
    if (!st)
        st = kept_buf_read_file(file, &text, err);
    if (st)
        return st;
    kept_shingles_add(&theirs, text.s ? text.s : "", text.n);
    kept_shingles_sort(&theirs);
    if (!stored(t, &mine) || theirs.failed) {
        st = kept_fail(err, KEPT_NOMEM, "no memory to compare %s with what was trained on", file);
    } else {
        size_t both = kept_shingles_common(&mine, &theirs);
        size_t least = mine.n < theirs.n ? mine.n : theirs.n;
        if (both >= LEAST && (double)both >= LEAST_SHARE * (double)least)
            st = refuse(t, file, "a part of ", err);
    }
    kept_buf_free(&text);
    kept_shingles_free(&mine);
    kept_shingles_free(&theirs);
    return st;
}
