/* catalogue: parses share/models.tsv (compiled in, or a file of the user's) and finds cached files.
 * What a row says ends up in file names and in arguments of pip, so it is checked here, once. */
#include "cli/catalogue.h"

#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const builtin[] = {
#include "gen/models.inc"
    NULL};

enum { N_COLUMNS = 11 };

/* Letters, digits and extra, not starting with '-' or '.', no "..": safe in paths and arguments. */
static bool plain(const char *s, const char *extra)
{
    static const char alnum[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    if (!*s || *s == '-' || *s == '.' || *s == '/' || strstr(s, ".."))
        return false;
    for (; *s; s++)
        if (!strchr(alnum, *s) && !strchr(extra, *s))
            return false;
    return true;
}

static bool number(const char *s, uint64_t max, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    *out = v;
    return *s >= '0' && *s <= '9' && !*end && !errno && v >= 1 && v <= max;
}

static bool copy(char *dst, size_t cap, const char *src)
{
    size_t n = strlen(src);
    if (n >= cap)
        return false;
    memcpy(dst, src, n + 1);
    return true;
}

/* Cuts line at its tabs. Returns the name of the column that is wrong, or NULL. */
static const char *parse_row(char *line, kept_catalogue_entry *e)
{
    char *col[N_COLUMNS];
    uint64_t parts;
    int n = 0;
    for (char *p = line; p && n < N_COLUMNS; n++) {
        col[n] = p;
        p = strchr(p, '\t');
        if (p)
            *p++ = '\0';
    }
    if (n < N_COLUMNS)
        return "number of columns";
    if (!plain(col[0], ".-_") || !copy(e->name, sizeof e->name, col[0]))
        return "name";
    if (!number(col[1], UINT64_C(1) << 44, &e->bytes))
        return "bytes";
    if (strlen(col[2]) != 64 || strspn(col[2], "0123456789abcdef") != 64)
        return "sha256";
    copy(e->sha256, sizeof e->sha256, col[2]);
    if (!copy(e->licence, sizeof e->licence, col[3]))
        return "licence";
    if (!copy(e->terms, sizeof e->terms, strcmp(col[4], "open") ? col[4] : ""))
        return "terms";
    if (!number(col[5], 99, &parts))
        return "parts";
    e->n_parts = (int)parts;
    if (!number(col[6], e->bytes, &e->part_bytes) || (parts - 1) * e->part_bytes >= e->bytes ||
        parts * e->part_bytes < e->bytes)
        return "part_bytes";
    if (!plain(col[7], ".-_{}") || !copy(e->package, sizeof e->package, col[7]))
        return "package";
    if (!plain(col[8], ".-_+!") || !copy(e->version, sizeof e->version, col[8]))
        return "version";
    if (!plain(col[9], "/.-_{}") || !copy(e->member, sizeof e->member, col[9]))
        return "member";
    return copy(e->about, sizeof e->about, col[10]) ? NULL : "about";
}

static kept_status add_row(kept_catalogue *c, char *line, const char *where, int lineno,
                           kept_error *err)
{
    line[strcspn(line, "\r\n")] = '\0';
    if (!*line || *line == '#')
        return KEPT_OK;
    kept_catalogue_entry *grown = realloc(c->entries, ((size_t)c->n + 1) * sizeof *grown);
    if (!grown)
        return kept_fail(err, KEPT_NOMEM, "out of memory reading %s", where);
    c->entries = grown;
    memset(&grown[c->n], 0, sizeof *grown);
    const char *wrong = parse_row(line, &grown[c->n]);
    if (wrong)
        return kept_fail(err, KEPT_FORMAT, "%s line %d: wrong %s", where, lineno, wrong);
    c->n++;
    return KEPT_OK;
}

static kept_status load_file(kept_catalogue *c, const char *path, kept_error *err)
{
    char *line = NULL;
    size_t cap = 0;
    kept_status s = KEPT_OK;
    FILE *f = fopen(path, "r");
    if (!f)
        return kept_fail(err, KEPT_IO, "%s: %s", path, strerror(errno));
    for (int lineno = 1; !s && getline(&line, &cap, f) >= 0; lineno++)
        s = add_row(c, line, path, lineno, err);
    if (!s && ferror(f))
        s = kept_fail(err, KEPT_IO, "%s: cannot be read", path);
    free(line);
    fclose(f);
    return s;
}

kept_status kept_catalogue_load(kept_catalogue *c, const char *path, kept_error *err)
{
    kept_status s = KEPT_OK;
    *c = (kept_catalogue){0};
    if (path)
        return load_file(c, path, err);
    for (int i = 0; !s && builtin[i]; i++) {
        char *line = strdup(builtin[i]);
        if (!line)
            return kept_fail(err, KEPT_NOMEM, "out of memory reading the catalogue");
        s = add_row(c, line, "share/models.tsv", i + 1, err);
        free(line);
    }
    return s;
}

void kept_catalogue_clear(kept_catalogue *c)
{
    free(c->entries);
    *c = (kept_catalogue){0};
}

const kept_catalogue_entry *kept_catalogue_find(const kept_catalogue *c, const char *name)
{
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->entries[i].name, name))
            return &c->entries[i];
    return NULL;
}

uint64_t kept_catalogue_part_bytes(const kept_catalogue_entry *e, int i)
{
    return i + 1 < e->n_parts ? e->part_bytes : e->bytes - (uint64_t)i * e->part_bytes;
}

bool kept_catalogue_expand(const char *pattern, int i, char *buf, size_t cap)
{
    static const struct {
        const char *mark;
        int first, width;
    } marks[] = {{"{n}", 1, 1}, {"{nn}", 1, 2}, {"{mm}", 0, 2}};
    size_t n = 0;
    while (*pattern) {
        char piece[16] = {*pattern, '\0'};
        size_t used = 1;
        for (size_t k = 0; k < sizeof marks / sizeof *marks; k++)
            if (!strncmp(pattern, marks[k].mark, strlen(marks[k].mark))) {
                snprintf(piece, sizeof piece, "%0*d", marks[k].width, i + marks[k].first);
                used = strlen(marks[k].mark);
            }
        if (n + strlen(piece) >= cap)
            return false;
        memcpy(buf + n, piece, strlen(piece));
        n += strlen(piece);
        pattern += used;
    }
    buf[n] = '\0';
    return true;
}

kept_status kept_cache_folder(const char *below, char *buf, size_t cap)
{
    static const struct {
        const char *variable, *below;
    } roots[] = {{"KEPT_CACHE", ""}, {"XDG_CACHE_HOME", "/kept"}, {"HOME", "/.cache/kept"}};
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        const char *root = getenv(roots[i].variable);
        if (root && *root) {
            int n = snprintf(buf, cap, "%s%s/%s", root, roots[i].below, below);
            return n > 0 && (size_t)n < cap ? KEPT_OK : KEPT_ARGUMENT;
        }
    }
    return KEPT_NOT_FOUND;
}

kept_status kept_models_dir(char *buf, size_t cap)
{
    return kept_cache_folder("models", buf, cap);
}

kept_status kept_model_path(const char *name_or_path, char *buf, size_t cap)
{
    kept_catalogue c;
    kept_status s = kept_catalogue_load(&c, NULL, NULL);
    if (!s && kept_catalogue_find(&c, name_or_path) && access(name_or_path, R_OK)) {
        char dir[3072];
        s = kept_models_dir(dir, sizeof dir);
        if (!s) {
            int n = snprintf(buf, cap, "%s/%s.gguf", dir, name_or_path);
            s = n < 0 || (size_t)n >= cap ? KEPT_ARGUMENT
                : access(buf, R_OK)       ? KEPT_NOT_FOUND
                                          : KEPT_OK;
        } else if (cap) {
            buf[0] = '\0';
        }
    } else if (!s) {
        s = copy(buf, cap, name_or_path) ? KEPT_OK : KEPT_ARGUMENT;
    }
    kept_catalogue_clear(&c);
    return s;
}
