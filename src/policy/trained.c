/* trained: the file format of what is trained or calibrated. The contract is in kept/trained.h. */
#include "base/base.h"
#include "kept/trained.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_FILE  ((size_t)1 << 31)
#define MAX_ITEMS 4096

typedef struct item { /* an array, or a note (text) */
    char name[32];
    float *x;
    size_t n;
    char *text;
} item;

struct kept_trained {
    char kind[16], model[65];
    item *items;
    int n_items;
};

/* ---- making -------------------------------------------------------------------------------- */

static bool is_name(const char *s, size_t max, const char *more)
{
    size_t n = strlen(s);
    if (n == 0 || n > max)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= '0' && s[i] <= '9') && !strchr(more, s[i]))
            return false;
    return true;
}

static bool is_sha(const char *s)
{
    return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

kept_status kept_trained_new(const char *kind, const char *model_sha256, kept_trained **out,
                             kept_error *err)
{
    *out = NULL;
    if (!is_name(kind, 15, "-"))
        return kept_fail(err, KEPT_ARGUMENT, "'%.40s' is no kind of trained file", kind);
    if (!is_sha(model_sha256))
        return kept_fail(err, KEPT_ARGUMENT, "'%.70s' is no SHA-256 of a model", model_sha256);
    kept_trained *t = kept_calloc(1, sizeof *t);
    if (!t)
        return kept_fail(err, KEPT_NOMEM, "no memory for a trained file");
    snprintf(t->kind, sizeof t->kind, "%s", kind);
    snprintf(t->model, sizeof t->model, "%s", model_sha256);
    *out = t;
    return KEPT_OK;
}

void kept_trained_free(kept_trained *t)
{
    for (int i = 0; t && i < t->n_items; i++) {
        free(t->items[i].x);
        free(t->items[i].text);
    }
    if (t)
        free(t->items);
    free(t);
}

static item *find(const kept_trained *t, const char *name, bool note)
{
    for (int i = 0; i < t->n_items; i++)
        if (!strcmp(t->items[i].name, name) && (t->items[i].text != NULL) == note)
            return &t->items[i];
    return NULL;
}

/* Takes x or text over, also where it fails. */
static kept_status append(kept_trained *t, const char *name, float *x, size_t n, char *text,
                          kept_error *err)
{
    bool ok = is_name(name, 31, "_.-") && !find(t, name, text != NULL) && t->n_items < MAX_ITEMS;
    item *more =
        ok && (x || text) ? realloc(t->items, (size_t)(t->n_items + 1) * sizeof *t->items) : NULL;
    if (!more) {
        free(x);
        free(text);
        return ok ? kept_fail(err, KEPT_NOMEM, "no memory for '%s' of a trained file", name)
                  : kept_fail(err, KEPT_ARGUMENT, "'%.40s' is no new name in a trained file", name);
    }
    t->items = more;
    item *i = &t->items[t->n_items++];
    *i = (item){.x = x, .n = n, .text = text};
    snprintf(i->name, sizeof i->name, "%s", name);
    return KEPT_OK;
}

kept_status kept_trained_put(kept_trained *t, const char *name, const float *x, size_t n,
                             kept_error *err)
{
    float *copy = n <= MAX_FILE / sizeof *x ? kept_calloc(n + 1, sizeof *copy) : NULL;
    if (copy && n)
        memcpy(copy, x, n * sizeof *x);
    return append(t, name, copy, n, NULL, err);
}

kept_status kept_trained_set_note(kept_trained *t, const char *key, const char *value,
                                  kept_error *err)
{
    if (strchr(value, '\n'))
        return kept_fail(err, KEPT_ARGUMENT, "the note '%.40s' has more than one line", key);
    char *copy = kept_calloc(strlen(value) + 1, 1);
    item *old = find(t, key, true);
    if (copy)
        memcpy(copy, value, strlen(value));
    if (!copy || !old)
        return append(t, key, NULL, 0, copy, err);
    free(old->text);
    old->text = copy;
    return KEPT_OK;
}

/* ---- saving -------------------------------------------------------------------------------- */

static void put_text(FILE *f, const kept_trained *t)
{
    fprintf(f, "kept-trained %d\nkind %s\nmodel %s\n", KEPT_TRAINED_VERSION, t->kind, t->model);
    for (int i = 0; i < t->n_items; i++)
        if (t->items[i].text)
            fprintf(f, "note %s %s\n", t->items[i].name, t->items[i].text);
        else
            fprintf(f, "array %s %zu\n", t->items[i].name, t->items[i].n);
    fputc('\n', f);
}

static void put_floats(FILE *f, const item *i)
{
    for (size_t k = 0; k < i->n; k++) {
        uint32_t u;
        memcpy(&u, &i->x[k], sizeof u);
        unsigned char b[4] = {(unsigned char)u, (unsigned char)(u >> 8), (unsigned char)(u >> 16),
                              (unsigned char)(u >> 24)};
        fwrite(b, 1, 4, f);
    }
}

kept_status kept_trained_save(const kept_trained *t, const char *path, kept_error *err)
{
    char *data = NULL, part[4096], hex[65];
    size_t n = 0;
    FILE *f = open_memstream(&data, &n);
    if (!f)
        return kept_fail(err, KEPT_NOMEM, "no memory to write %s", path);
    put_text(f, t);
    for (int i = 0; i < t->n_items; i++)
        put_floats(f, &t->items[i]);
    bool bad = ferror(f);
    if (fclose(f) || bad || snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part) {
        free(data);
        return kept_fail(err, KEPT_NOMEM, "no memory to write %s", path);
    }
    kept_sha256(data, n, hex);
    f = fopen(part, "wb");
    bad = !f || fwrite(data, 1, n, f) != n || fwrite(hex, 1, 64, f) != 64 || fflush(f) ||
          fsync(fileno(f));
    int code = errno;
    free(data);
    if ((f && fclose(f)) || bad || rename(part, path)) {
        code = bad ? code : errno;
        unlink(part);
        return kept_fail(err, KEPT_IO, "cannot write %s: %s", path, strerror(code));
    }
    return KEPT_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

typedef struct reader {
    const char *at, *end, *name;
    kept_error *err;
} reader;

static kept_status bad_file(const reader *r, const char *what)
{
    return kept_fail(r->err, KEPT_FORMAT, "%s: %s; make it anew with kept train or kept calibrate",
                     r->name, what);
}

/* The next line into buf; false: none, too long, or with a NUL. */
static bool next_line(reader *r, char *buf, size_t cap)
{
    const char *nl = memchr(r->at, '\n', (size_t)(r->end - r->at));
    size_t n = nl ? (size_t)(nl - r->at) : cap;
    if (n >= cap || memchr(r->at, 0, n))
        return false;
    memcpy(buf, r->at, n);
    buf[n] = 0;
    r->at = nl + 1;
    return true;
}

static kept_status add_line(const reader *r, char *line, kept_trained *t, size_t *floats)
{
    char *save = NULL, *what = strtok_r(line, " ", &save), *name = strtok_r(NULL, " ", &save);
    if (what && name && !strcmp(what, "note"))
        return kept_trained_set_note(t, name, save ? save : "", r->err)
                   ? bad_file(r, "a note that is none")
                   : KEPT_OK;
    char *end = NULL;
    unsigned long long n = save && *save >= '0' && *save <= '9' ? strtoull(save, &end, 10) : 0;
    if (!what || strcmp(what, "array") || !name || !end || *end || n > MAX_FILE / 4 - *floats)
        return bad_file(r, "a line that says neither note nor array");
    float *x =
        kept_calloc(1, sizeof *x); /* room comes with the floats, once they are known to be there */
    if (append(t, name, x, (size_t)n, NULL, r->err))
        return bad_file(r, "an array without a name of its own");
    *floats += (size_t)n;
    return KEPT_OK;
}

static kept_status read_floats(reader *r, item *i)
{
    float *x = realloc(i->x, (i->n + 1) * sizeof *x);
    if (!x)
        return kept_fail(r->err, KEPT_NOMEM, "no memory to read %s", r->name);
    i->x = x;
    for (size_t k = 0; k < i->n; k++, r->at += 4) {
        const unsigned char *b = (const unsigned char *)r->at;
        uint32_t u =
            (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
        memcpy(&x[k], &u, sizeof u);
    }
    return KEPT_OK;
}

static kept_status read_head(reader *r, kept_trained **out)
{
    char line[4096], kind[4096], model[4096];
    int version = 0;
    if (!next_line(r, line, sizeof line) || sscanf(line, "kept-trained %d", &version) != 1)
        return bad_file(r, "not a trained file of kept");
    if (version != KEPT_TRAINED_VERSION)
        return bad_file(r, "a trained file of another version");
    if (!next_line(r, line, sizeof line) || sscanf(line, "kind %4095s", kind) != 1 ||
        !next_line(r, line, sizeof line) || sscanf(line, "model %4095s", model) != 1 ||
        kept_trained_new(kind, model, out, r->err))
        return bad_file(r, "a trained file without kind or model");
    return KEPT_OK;
}

static kept_status read_all(reader *r, kept_trained **out)
{
    char line[4096];
    size_t floats = 0;
    kept_status st = read_head(r, out);
    while (!st) {
        if (!next_line(r, line, sizeof line))
            return bad_file(r, "truncated");
        if (!line[0])
            break;
        st = add_line(r, line, *out, &floats);
    }
    if (!st && (size_t)(r->end - r->at) != floats * 4)
        st = bad_file(r, "truncated, or with more than its arrays");
    for (int i = 0; !st && i < (*out)->n_items; i++)
        if (!(*out)->items[i].text)
            st = read_floats(r, &(*out)->items[i]);
    return st;
}

kept_status kept_trained_parse(const void *data, size_t n, const char *name, kept_trained **out,
                               kept_error *err)
{
    reader r = {.at = data, .end = (const char *)data + n, .name = name, .err = err};
    char hex[65];
    *out = NULL;
    if (n < 13 || memcmp(data, "kept-trained ", 13))
        return bad_file(&r, "not a trained file of kept");
    if (n < 64)
        return bad_file(&r, "truncated");
    r.end -= 64;
    kept_sha256(data, n - 64, hex);
    if (memcmp(r.end, hex, 64))
        return bad_file(&r, "truncated or altered (its checksum does not fit)");
    kept_status st = read_all(&r, out);
    if (st) {
        kept_trained_free(*out);
        *out = NULL;
    }
    return st;
}

kept_status kept_trained_open(const char *path, kept_trained **out, kept_error *err)
{
    *out = NULL;
    FILE *f = fopen(path, "rb");
    if (!f)
        return kept_fail(err, KEPT_IO, "cannot open %s: %s", path, strerror(errno));
    char *data = NULL;
    size_t n = 0, cap = 0;
    kept_status st = KEPT_OK;
    for (size_t got = 1; !st && got; n += got) {
        if (n == cap) {
            char *more = cap < MAX_FILE ? realloc(data, cap = cap ? 2 * cap : 65536) : NULL;
            if (!more) {
                st = kept_fail(err, KEPT_NOMEM, "no memory to read %s", path);
                break;
            }
            data = more;
        }
        got = fread(data + n, 1, cap - n, f);
    }
    if (!st && ferror(f))
        st = kept_fail(err, KEPT_IO, "cannot read %s: %s", path, strerror(errno));
    if (!st)
        st = kept_trained_parse(data, n, path, out, err);
    free(data);
    fclose(f);
    return st;
}

/* ---- looking ------------------------------------------------------------------------------- */

const char *kept_trained_kind(const kept_trained *t)
{
    return t->kind;
}

const char *kept_trained_model_sha256(const kept_trained *t)
{
    return t->model;
}

const float *kept_trained_array(const kept_trained *t, const char *name, size_t *n)
{
    const item *i = find(t, name, false);
    *n = i ? i->n : 0;
    return i ? i->x : NULL;
}

const char *kept_trained_note(const kept_trained *t, const char *key)
{
    const item *i = find(t, key, true);
    return i ? i->text : NULL;
}

const char *kept_trained_note_at(const kept_trained *t, int i, const char **key)
{
    for (int k = 0; k < t->n_items; k++)
        if (t->items[k].text && i-- == 0) {
            *key = t->items[k].name;
            return t->items[k].text;
        }
    return NULL;
}
