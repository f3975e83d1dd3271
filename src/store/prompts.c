/* prompts: what a study holds of a sample beside its document: the tokens, and which positions a
 * strategy held. A prompt is named by its hash, as everywhere; the index only makes the look-up
 * short.
 */
#include "store/db.h"

#include <stdlib.h>
#include <string.h>

#define OF_PROMPT                                                                                  \
    " JOIN task t ON t.id = p.task WHERE (?1 = 0 OR t.setting = ?1) AND p.idx = ?2"                \
    " AND json_extract(p.json, '$.hash') = ?3"

/* The first column of the first row, unpacked: malloc'ed; NULL: no row. Closes q. */
static kept_status unpack_first(kept_query *q, void **out, size_t *bytes, kept_error *err)
{
    kept_status st = KEPT_OK;
    *out = NULL;
    if (kept_query_row(q) && sqlite3_column_type(q->stmt, 0) != SQLITE_NULL)
        st = kept_unpack(sqlite3_column_blob(q->stmt, 0), (size_t)sqlite3_column_bytes(q->stmt, 0),
                         out, bytes, err);
    if (kept_query_close(q))
        st = q->status;
    if (st) {
        free(*out);
        *out = NULL;
    }
    return st;
}

kept_status kept_store_map(kept_store *s, const kept_store_prompt *p, const char *resolved,
                           uint8_t **map, size_t *bytes, kept_error *err)
{
    kept_query q;
    void *out;
    kept_query_open(&q, s, err,
                    "SELECT m.zstd FROM sample p JOIN kept_map m ON m.sample = p.id"
                    " JOIN cell c ON c.id = m.cell JOIN variant v ON v.id = c.variant" OF_PROMPT
                    " AND json_extract(v.json, '$.resolved') = ?4 ORDER BY v.id",
                    "iiss", p->setting, (int64_t)p->index, p->hash, resolved);
    kept_status st = unpack_first(&q, &out, bytes, err);
    *map = out;
    if (!st && !out)
        st = kept_fail(err, KEPT_NOT_FOUND, "%s: no kept positions of sample %d (%s) under %s",
                       s->path, p->index, p->hash, resolved);
    return st;
}

kept_status kept_store_tokens(kept_store *s, const kept_store_prompt *p, int32_t **tokens,
                              int *n_prefix, int *n, kept_error *err)
{
    kept_query q;
    void *out;
    size_t bytes = 0;
    *tokens = NULL;
    kept_query_open(&q, s, err, "SELECT p.tokens FROM sample p" OF_PROMPT, "iis", p->setting,
                    (int64_t)p->index, p->hash);
    kept_status st = unpack_first(&q, &out, &bytes, err);
    if (st)
        return st;
    if (!out)
        return kept_fail(err, KEPT_NOT_FOUND, "%s: no tokens of sample %d (%s)", s->path, p->index,
                         p->hash);
    const int32_t *words = out;
    const size_t count = bytes / sizeof *words;
    if (count < 1 || words[0] < 0 || (size_t)words[0] > count - 1 || count > INT32_MAX) {
        free(out);
        return kept_store_fail(s, SQLITE_CORRUPT, err);
    }
    *n_prefix = words[0];
    *n = (int)count - 1;
    memmove(out, words + 1, (count - 1) * sizeof *words);
    *tokens = out;
    return KEPT_OK;
}
