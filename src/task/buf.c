/* buf: growing text, and files that are checked once to be UTF-8 so that nobody downstream has to.
 */
#include "task/parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(kept_buf *b, size_t more)
{
    if (b->failed || more >= SIZE_MAX / 2 - b->n) {
        b->failed = true;
        return false;
    }
    const size_t need = b->n + more + 1;
    if (need <= b->cap)
        return true;
    const size_t cap = need < b->cap * 2 ? b->cap * 2 : need + 64;
    char *s = realloc(b->s, cap);
    if (!s) {
        b->failed = true;
        return false;
    }
    b->s = s;
    b->cap = cap;
    return true;
}

void kept_buf_add(kept_buf *b, const char *s, size_t n)
{
    if (!reserve(b, n))
        return;
    memcpy(b->s + b->n, s, n);
    b->n += n;
    b->s[b->n] = 0;
}

void kept_buf_puts(kept_buf *b, const char *s)
{
    kept_buf_add(b, s, strlen(s));
}

void kept_buf_free(kept_buf *b)
{
    free(b->s);
    *b = (kept_buf){0};
}

/* Length of the well-formed sequence at s (RFC 3629: no surrogates, no overlong forms), or 0. */
static size_t sequence_length(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80)
        return s[0] != 0;
    const size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

size_t kept_utf8_check(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        const size_t step = sequence_length((const unsigned char *)s + i, n - i);
        if (!step)
            return i;
        i += step;
    }
    return n;
}

static kept_status read_all(const char *path, kept_buf *out, kept_error *err)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return kept_fail(err, KEPT_IO, "cannot open %s: %s", path, strerror(errno));
    kept_status st = KEPT_OK;
    for (;;) {
        if (!reserve(out, 1 << 16)) {
            st = kept_fail(err, KEPT_NOMEM, "out of memory reading %s", path);
            break;
        }
        const size_t got = fread(out->s + out->n, 1, out->cap - out->n - 1, f);
        out->n += got;
        if (out->n > KEPT_FILE_MAX) {
            st = kept_fail(err, KEPT_IO, "%s is larger than %zu MiB", path, KEPT_FILE_MAX >> 20);
            break;
        }
        if (!got) {
            if (ferror(f))
                st = kept_fail(err, KEPT_IO, "cannot read %s: %s", path, strerror(errno));
            break;
        }
    }
    fclose(f);
    if (out->s)
        out->s[out->n] = 0;
    return st;
}

kept_status kept_buf_read_file(const char *path, kept_buf *out, kept_error *err)
{
    kept_status st = read_all(path, out, err);
    if (!st && out->n >= 3 && !memcmp(out->s, "\xef\xbb\xbf", 3)) {
        memmove(out->s, out->s + 3, out->n - 2);
        out->n -= 3;
    }
    if (!st) {
        const size_t bad = kept_utf8_check(out->s, out->n);
        int line = 1;
        for (size_t i = 0; i < bad; i++)
            line += out->s[i] == '\n';
        if (bad < out->n)
            st = kept_fail(err, KEPT_FORMAT, "%s line %d: %s", path, line,
                           out->s[bad] ? "not UTF-8 text" : "a NUL byte, this is no text file");
    }
    if (st)
        kept_buf_free(out);
    return st;
}
