/* db: what the files of src/store share. Private.
 *
 *   schema.c   tables, and how older files become this one
 *   db.c       opening, statements, error texts, compression
 *   sink.c     a run that writes here
 *   read.c     lists, documents
 *   prompts.c  tokens and kept positions of a prompt
 *   memo.c     what saves work and is no data
 */
#ifndef STORE_DB_H
#define STORE_DB_H

#include "store/store.h"

#include <sqlite3.h>

#define KEPT_STORE_ID 0x6b657074 /* "kept" */

struct kept_store {
    sqlite3 *db;
    char *path;
    kept_run_sink sink;
    char owner[128]; /* of claims: host, process, when that process began */
    /* of the run in progress */
    int64_t setting, run;
    int64_t *task, *variant; /* [n_tasks], [n_variants] */
    int64_t *cell;           /* [n_tasks][n_variants] */
    int n_tasks, n_variants, n_found;
    int64_t claimed_task, claimed_index; /* what this process holds; index -1: nothing */
    uint64_t renewed_ns;
};

/* A statement: bound, stepped, finalised. Fill with kept_query, then kept_step until false. */
typedef struct kept_query {
    kept_store *store;
    sqlite3_stmt *stmt;
    kept_status status;
    kept_error *err;
} kept_query;

/* Prepares sql and binds what follows by the letters of types: i int64_t, s text or NULL, b blob as
 * (const void *, size_t). Errors are kept in q->status, and later calls on q do nothing. */
void kept_query_open(kept_query *q, kept_store *s, kept_error *err, const char *sql,
                     const char *types, ...);
bool kept_query_row(kept_query *q);          /* false: no more, or an error */
kept_status kept_query_close(kept_query *q); /* its status; may be called twice */
/* The three at once, for statements without rows. */
kept_status kept_exec(kept_store *s, kept_error *err, const char *sql, const char *types, ...);

kept_status kept_begin(kept_store *s, kept_error *err); /* takes the write lock; waits for it */
/* Commits if so_far is OK, else rolls back; returns what went wrong first. */
kept_status kept_end(kept_store *s, kept_status so_far, kept_error *err);
/* The error of an SQLite call as one line that says what to do. */
kept_status kept_store_fail(kept_store *s, int rc, kept_error *err);

/* schema.c: makes an empty file a study, brings an older one up to date, refuses others. */
kept_status kept_schema_ready(kept_store *s, bool writable, kept_error *err);

/* memo.c: recall and remember of a sink; ctx is the store. */
kept_status kept_memo_get(void *ctx, const char *key, char **text, kept_error *err);
kept_status kept_memo_put(void *ctx, const char *key, const char *text, kept_error *err);

/* zstd; *out malloc'ed. NOMEM, FORMAT. */
kept_status kept_pack(const void *data, size_t n, void **out, size_t *n_out, kept_error *err);
kept_status kept_unpack(const void *data, size_t n, void **out, size_t *n_out, kept_error *err);

/* Sorted, compact text of a value: equal values, equal text. NULL: out of memory. Free it. */
char *kept_canonical(const json_t *x);
/* The text that stands for the setting, a task, a variant of a document. NULL: out of memory. */
char *kept_setting_key(const json_t *head);
char *kept_task_key(const json_t *task);
char *kept_variant_key(const json_t *variant);

/* sink.c: finds or makes the rows of a document and fills the run fields of s. */
kept_status kept_store_begin(kept_store *s, const json_t *head, const json_t *prompts,
                             kept_error *err);
/* One sample with its outcomes, inside a transaction of its own. extra may be NULL. *n: outcomes
 * that were new. */
kept_status kept_store_put(kept_store *s, const json_t *sample, const kept_run_extra *extra,
                           int64_t *n, kept_error *err);
void kept_store_end(kept_store *s); /* forgets the run */

#endif
