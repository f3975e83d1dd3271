/* db: the file, statements on it, and what its errors mean to a user. */
#include "store/db.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#define BUSY_MS    30000
#define CHECK_MAX  (256ll << 20) /* bytes: a smaller file is checked whole when it is opened */
#define LEVEL      3
#define UNPACK_MAX (1ull << 31)

kept_status kept_store_fail(kept_store *s, int rc, kept_error *err)
{
    const char *path = s->path;
    const int why = s->db ? sqlite3_system_errno(s->db) : 0;
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return kept_fail(err, KEPT_IO,
                         "%s: the disk is full; what was stored is safe, make room "
                         "and run the same command again",
                         path);
    case SQLITE_READONLY:
        return kept_fail(err, KEPT_IO, "%s: cannot be written to; copy it to where it can be",
                         path);
    case SQLITE_CANTOPEN:
        return kept_fail(err, KEPT_IO, "%s: cannot be opened: %s", path,
                         why ? strerror(why) : "is its folder there, and may it be written to?");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return kept_fail(err, KEPT_IO, "%s: another process has kept it locked for %d s", path,
                         BUSY_MS / 1000);
    case SQLITE_CORRUPT:
        return kept_fail(err, KEPT_FORMAT,
                         "%s: the file is damaged; nothing was changed; restore "
                         "it, or try what 'sqlite3 FILE .recover' saves",
                         path);
    case SQLITE_NOTADB:
        return kept_fail(err, KEPT_FORMAT, "%s: is not a study of kept", path);
    case SQLITE_NOMEM:
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    case SQLITE_IOERR:
        return kept_fail(err, KEPT_IO, "%s: %s; what was stored is safe", path,
                         why ? strerror(why) : sqlite3_errstr(rc));
    default:
        return kept_fail(err, KEPT_IO, "%s: %s", path,
                         s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(rc));
    }
}

/* ---- statements ----------------------------------------------------------------------------- */

static void query_open(kept_query *q, const char *sql, const char *types, va_list ap)
{
    int rc = sqlite3_prepare_v2(q->store->db, sql, -1, &q->stmt, NULL);
    for (int i = 1; rc == SQLITE_OK && *types; types++, i++) {
        if (*types == 'i') {
            rc = sqlite3_bind_int64(q->stmt, i, va_arg(ap, int64_t));
        } else if (*types == 's') {
            rc = sqlite3_bind_text(q->stmt, i, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
        } else {
            const void *data = va_arg(ap, const void *);
            rc = sqlite3_bind_blob64(q->stmt, i, data, va_arg(ap, size_t), SQLITE_TRANSIENT);
        }
    }
    if (rc != SQLITE_OK)
        q->status = kept_store_fail(q->store, rc, q->err);
}

void kept_query_open(kept_query *q, kept_store *s, kept_error *err, const char *sql,
                     const char *types, ...)
{
    va_list ap;
    *q = (kept_query){.store = s, .err = err};
    va_start(ap, types);
    query_open(q, sql, types, ap);
    va_end(ap);
}

bool kept_query_row(kept_query *q)
{
    if (q->status || !q->stmt)
        return false;
    const int rc = sqlite3_step(q->stmt);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        q->status = kept_store_fail(q->store, rc, q->err);
    return rc == SQLITE_ROW;
}

kept_status kept_query_close(kept_query *q)
{
    sqlite3_finalize(q->stmt);
    q->stmt = NULL;
    return q->status;
}

kept_status kept_exec(kept_store *s, kept_error *err, const char *sql, const char *types, ...)
{
    kept_query q = {.store = s, .err = err};
    va_list ap;
    va_start(ap, types);
    query_open(&q, sql, types, ap);
    va_end(ap);
    while (kept_query_row(&q))
        ;
    return kept_query_close(&q);
}

kept_status kept_begin(kept_store *s, kept_error *err)
{
    return kept_exec(s, err, "BEGIN IMMEDIATE", "");
}

kept_status kept_end(kept_store *s, kept_status so_far, kept_error *err)
{
    if (!so_far)
        so_far = kept_exec(s, err, "COMMIT", "");
    if (so_far && !sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return so_far;
}

/* ---- opening -------------------------------------------------------------------------------- */

bool kept_store_is_study(const char *path)
{
    char head[16] = "";
    FILE *f = fopen(path, "rb");
    bool is = f && fread(head, 1, sizeof head, f) == sizeof head &&
              !memcmp(head, "SQLite format 3", sizeof head);
    if (f)
        fclose(f);
    return is;
}

/* Host, process number, and when that process began, which a later process of that number has not
 * in common. */
static void set_owner(kept_store *s)
{
    char host[64] = "", line[1024] = "";
    unsigned long long began = 0;
    gethostname(host, sizeof host - 1);
    FILE *f = fopen("/proc/self/stat", "r");
    if (f && fgets(line, sizeof line, f)) {
        char *p = strrchr(line, ')'); /* field 2 may hold anything; 22 is the start time */
        for (int field = 2; p && field < 22; field++)
            p = strchr(p + 1, ' ');
        began = p ? strtoull(p, NULL, 10) : 0;
    }
    if (f)
        fclose(f);
    snprintf(s->owner, sizeof s->owner, "%s %ld %llu", host, (long)getpid(), began);
}

static int64_t file_bytes(kept_store *s)
{
    int64_t pages = 0, size = 0;
    kept_query q;
    kept_query_open(&q, s, NULL,
                    "SELECT (SELECT page_count FROM pragma_page_count), page_size "
                    "FROM pragma_page_size",
                    "");
    if (kept_query_row(&q)) {
        pages = sqlite3_column_int64(q.stmt, 0);
        size = sqlite3_column_int64(q.stmt, 1);
    }
    kept_query_close(&q);
    return pages * size;
}

kept_status kept_store_check(kept_store *s, kept_error *err)
{
    char what[160] = "ok";
    kept_query q;
    kept_query_open(&q, s, err, "PRAGMA quick_check(1)", "");
    if (kept_query_row(&q))
        snprintf(what, sizeof what, "%s", (const char *)sqlite3_column_text(q.stmt, 0));
    kept_status st = kept_query_close(&q);
    if (!st && strcmp(what, "ok"))
        st = kept_store_fail(s, SQLITE_CORRUPT, err);
    return st;
}

static kept_status open_file(kept_store *s, kept_store_mode mode, kept_error *err)
{
    const bool reads = mode == KEPT_STORE_READ || mode == KEPT_STORE_WATCH;
    const int flags = reads                      ? SQLITE_OPEN_READONLY
                      : mode == KEPT_STORE_WRITE ? SQLITE_OPEN_READWRITE
                                                 : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    if (mode != KEPT_STORE_CREATE && access(s->path, F_OK))
        return kept_fail(err, KEPT_IO, "%s: %s", s->path, strerror(errno));
    /* SQLite opens a file that cannot be written read-only and says so only at the first write. */
    if (!reads && !access(s->path, F_OK) && access(s->path, W_OK))
        return kept_store_fail(s, SQLITE_READONLY, err);
    int rc = sqlite3_open_v2(s->path, &s->db, flags, NULL);
    if (rc != SQLITE_OK)
        return kept_store_fail(s, rc, err);
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    kept_status st = kept_schema_ready(s, !reads, err);
    if (!st && mode != KEPT_STORE_WATCH && file_bytes(s) <= CHECK_MAX)
        st = kept_store_check(s, err);
    return st;
}

kept_status kept_store_open(const char *path, kept_store_mode mode, kept_store **out,
                            kept_error *err)
{
    kept_store *s = kept_calloc(1, sizeof *s);
    *out = NULL;
    if (s)
        s->path = strdup(path);
    if (!s || !s->path) {
        kept_store_close(s);
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    }
    s->claimed_index = -1;
    set_owner(s);
    kept_status st = open_file(s, mode, err);
    if (st) {
        kept_store_close(s);
        return st;
    }
    *out = s;
    return KEPT_OK;
}

void kept_store_close(kept_store *s)
{
    if (!s)
        return;
    if (s->claimed_index >= 0)
        s->sink.drop(s, -1, -1);
    kept_store_end(s);
    sqlite3_close(s->db);
    free(s->path);
    free(s);
}

int kept_store_n_found(const kept_store *s)
{
    return s->n_found;
}

/* ---- compression ---------------------------------------------------------------------------- */

kept_status kept_pack(const void *data, size_t n, void **out, size_t *n_out, kept_error *err)
{
    const size_t cap = ZSTD_compressBound(n);
    *out = malloc(cap ? cap : 1);
    *n_out = *out ? ZSTD_compress(*out, cap, data, n, LEVEL) : 0;
    if (*out && !ZSTD_isError(*n_out))
        return KEPT_OK;
    free(*out);
    *out = NULL;
    return kept_fail(err, KEPT_NOMEM, "out of memory for compression");
}

kept_status kept_unpack(const void *data, size_t n, void **out, size_t *n_out, kept_error *err)
{
    const unsigned long long size = ZSTD_getFrameContentSize(data, n);
    *out = NULL;
    if (size > UNPACK_MAX) /* also the two error values */
        return kept_fail(err, KEPT_FORMAT, "compressed data is damaged");
    *out = malloc(size ? (size_t)size : 1);
    if (!*out)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    *n_out = ZSTD_decompress(*out, (size_t)size, data, n);
    if (!ZSTD_isError(*n_out) && *n_out == size)
        return KEPT_OK;
    free(*out);
    *out = NULL;
    return kept_fail(err, KEPT_FORMAT, "compressed data is damaged");
}
