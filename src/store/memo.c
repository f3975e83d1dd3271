/* memo: texts that a run would otherwise work out anew each time it goes on. They are no part of
 * what a study holds: losing them costs time and nothing else. */
#include "store/db.h"

#include <string.h>

kept_status kept_memo_get(void *ctx, const char *key, char **text, kept_error *err)
{
    kept_query q;
    kept_status st = KEPT_OK;
    *text = NULL;
    kept_query_open(&q, ctx, err, "SELECT text FROM memo WHERE key = ?", "s", key);
    if (kept_query_row(&q)) {
        *text = strdup((const char *)sqlite3_column_text(q.stmt, 0));
        st = *text ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory for the study");
    }
    return kept_query_close(&q) ? q.status : st;
}

kept_status kept_memo_put(void *ctx, const char *key, const char *text, kept_error *err)
{
    return kept_exec(ctx, err, "INSERT OR REPLACE INTO memo(key, text) VALUES(?, ?)", "ss", key,
                     text);
}
