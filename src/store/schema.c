/* schema: the tables of a study, and the way from every older version to this one. A new version is
 * one more entry of `steps`; a file is brought up to date in one transaction.
 */
#include "store/db.h"

#include <stdlib.h>
#include <string.h>

/* Version 1. */
static const char first[] =
    "CREATE TABLE setting(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, head TEXT NOT NULL);"
    "CREATE TABLE task(id INTEGER PRIMARY KEY, setting INTEGER NOT NULL REFERENCES setting,"
    " key TEXT NOT NULL, json TEXT NOT NULL);"
    "CREATE INDEX task_key ON task(setting, key);"
    "CREATE TABLE prompt(task INTEGER NOT NULL REFERENCES task, idx INTEGER NOT NULL,"
    " hash TEXT NOT NULL, PRIMARY KEY(task, idx)) WITHOUT ROWID;"
    "CREATE TABLE variant(id INTEGER PRIMARY KEY, setting INTEGER NOT NULL REFERENCES setting,"
    " key TEXT NOT NULL, json TEXT NOT NULL, UNIQUE(setting, key));"
    "CREATE TABLE cell(id INTEGER PRIMARY KEY, task INTEGER NOT NULL REFERENCES task,"
    " variant INTEGER NOT NULL REFERENCES variant, UNIQUE(task, variant));"
    "CREATE TABLE run(id INTEGER PRIMARY KEY, setting INTEGER NOT NULL REFERENCES setting,"
    " date TEXT, process TEXT, machine TEXT, options TEXT);"
    "CREATE TABLE sample(id INTEGER PRIMARY KEY, task INTEGER NOT NULL REFERENCES task,"
    " idx INTEGER NOT NULL, run INTEGER, json TEXT NOT NULL, UNIQUE(task, idx));"
    "CREATE TABLE outcome(cell INTEGER NOT NULL REFERENCES cell,"
    " sample INTEGER NOT NULL REFERENCES sample, run INTEGER, json TEXT NOT NULL,"
    " PRIMARY KEY(sample, cell)) WITHOUT ROWID;";

/* Version 2: tokens of prompts, kept positions, several processes at once. */
static const char second[] =
    "ALTER TABLE sample ADD COLUMN tokens BLOB;"
    "CREATE TABLE kept_map(cell INTEGER NOT NULL REFERENCES cell,"
    " sample INTEGER NOT NULL REFERENCES sample, zstd BLOB NOT NULL,"
    " PRIMARY KEY(sample, cell)) WITHOUT ROWID;"
    "CREATE TABLE claim(task INTEGER NOT NULL REFERENCES task, idx INTEGER NOT NULL,"
    " owner TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY(task, idx)) WITHOUT ROWID;";

/* Version 3: sizes of prompts, so that going on need not tokenize them. */
static const char third[] = "CREATE TABLE memo(key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT "
                            "ROWID;";

static const char *const steps[] = {first, second, third};
_Static_assert(sizeof steps / sizeof *steps == KEPT_STORE_SCHEMA, "one step per version");

static kept_status pragma(kept_store *s, const char *sql, int64_t *value, kept_error *err)
{
    kept_query q;
    kept_query_open(&q, s, err, sql, "");
    *value = kept_query_row(&q) ? sqlite3_column_int64(q.stmt, 0) : 0;
    return kept_query_close(&q);
}

static kept_status script(kept_store *s, const char *sql, kept_error *err)
{
    const int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? KEPT_OK : kept_store_fail(s, rc, err);
}

/* Version of the file, 0: empty. */
static kept_status version_of(kept_store *s, int64_t *version, kept_error *err)
{
    int64_t id = 0, tables = 0;
    kept_status st = pragma(s, "PRAGMA user_version", version, err);
    if (!st)
        st = pragma(s, "PRAGMA application_id", &id, err);
    if (!st)
        st = pragma(s, "SELECT count(*) FROM sqlite_schema", &tables, err);
    if (st)
        return st;
    if (id != KEPT_STORE_ID && (id || tables || *version))
        return kept_store_fail(s, SQLITE_NOTADB, err);
    if (*version > KEPT_STORE_SCHEMA)
        return kept_fail(err, KEPT_FORMAT,
                         "%s: was made by a newer kept (schema %d, this one reads up to %d)",
                         s->path, (int)*version, KEPT_STORE_SCHEMA);
    return KEPT_OK;
}

kept_status kept_schema_ready(kept_store *s, bool writable, kept_error *err)
{
    int64_t version = 0;
    /* One look: another process may be making the tables at this moment. */
    kept_status st = kept_exec(s, err, "BEGIN", "");
    if (!st)
        st = kept_end(s, version_of(s, &version, err), err);
    if (st || version == KEPT_STORE_SCHEMA)
        return st;
    if (!writable)
        return kept_fail(
            err, KEPT_FORMAT,
            "%s: has schema %d, this kept writes %d; 'kept study check FILE' brings it "
            "up to date",
            s->path, (int)version, KEPT_STORE_SCHEMA);
    if ((st = kept_begin(s, err)))
        return st;
    st = version_of(s, &version, err); /* another process may have been first */
    for (int64_t v = version; !st && v < KEPT_STORE_SCHEMA; v++)
        st = script(s, steps[v], err);
    char sql[96];
    snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %d", KEPT_STORE_ID,
             KEPT_STORE_SCHEMA);
    if (!st && version < KEPT_STORE_SCHEMA)
        st = script(s, sql, err);
    return kept_end(s, st, err);
}
