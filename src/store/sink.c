/* sink: a run that writes into a study. begin finds the run's rows, take claims a sample, put
 * stores it, get reads it back. Everything that must not be torn apart is one transaction.
 */
#include "store/db.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LEASE_S  120
#define RENEW_NS 15000000000u
#define RUNNING_AT                                                                                 \
    "SELECT o.cell FROM outcome o JOIN sample s ON s.id = o.sample WHERE s.task = ? AND s.idx = ?"

static kept_status no_memory(kept_error *err)
{
    return kept_fail(err, KEPT_NOMEM, "out of memory for the study");
}

/* First column of the first row; 0: there is none. */
static kept_status one(kept_query *q, int64_t *value)
{
    *value = kept_query_row(q) ? sqlite3_column_int64(q->stmt, 0) : 0;
    return kept_query_close(q);
}

/* ---- begin ---------------------------------------------------------------------------------- */

static kept_status find_setting(kept_store *s, const json_t *head, kept_error *err)
{
    char *key = kept_setting_key(head), *text = kept_canonical(head);
    kept_status st = key && text ? KEPT_OK : no_memory(err);
    kept_query q;
    if (!st)
        st = kept_exec(s, err, "INSERT OR IGNORE INTO setting(key, head) VALUES(?, ?)", "ss", key,
                       text);
    if (!st) {
        kept_query_open(&q, s, err, "SELECT id FROM setting WHERE key = ?", "s", key);
        st = one(&q, &s->setting);
    }
    free(key);
    free(text);
    return st;
}

/* Whether a stored task has the same prompts wherever both have one. */
static kept_status same_prompts(kept_store *s, int64_t task, const json_t *prompts, bool *same,
                                kept_error *err)
{
    kept_query q;
    *same = true;
    kept_query_open(&q, s, err, "SELECT idx, hash FROM prompt WHERE task = ?", "i", task);
    while (*same && kept_query_row(&q)) {
        const char *mine =
            json_string_value(json_array_get(prompts, (size_t)sqlite3_column_int64(q.stmt, 0)));
        *same = !mine || !strcmp(mine, (const char *)sqlite3_column_text(q.stmt, 1));
    }
    return kept_query_close(&q);
}

static kept_status add_prompts(kept_store *s, int64_t task, const json_t *prompts, kept_error *err)
{
    const json_t *hash;
    size_t i;
    kept_status st = KEPT_OK;
    json_array_foreach(prompts, i, hash)
    {
        if (!st && json_is_string(hash))
            st = kept_exec(s, err, "INSERT OR IGNORE INTO prompt(task, idx, hash) VALUES(?, ?, ?)",
                           "iis", task, (int64_t)i, json_string_value(hash));
    }
    return st;
}

static kept_status find_task(kept_store *s, const json_t *task, const json_t *prompts, int64_t *id,
                             kept_error *err)
{
    char *key = kept_task_key(task), *text = kept_canonical(task);
    kept_status st = key && text ? KEPT_OK : no_memory(err);
    kept_query q = {.store = s};
    bool same = false;
    if (!st)
        kept_query_open(&q, s, err, "SELECT id FROM task WHERE setting = ? AND key = ? ORDER BY id",
                        "is", s->setting, key);
    while (!st && !same && kept_query_row(&q)) {
        *id = sqlite3_column_int64(q.stmt, 0);
        st = same_prompts(s, *id, prompts, &same, err);
    }
    if (kept_query_close(&q) && !st)
        st = q.status;
    if (!st && !same) {
        st = kept_exec(s, err, "INSERT INTO task(setting, key, json) VALUES(?, ?, ?)", "iss",
                       s->setting, key, text);
        *id = sqlite3_last_insert_rowid(s->db);
    }
    free(key);
    free(text);
    return st ? st : add_prompts(s, *id, prompts, err);
}

static kept_status find_variant(kept_store *s, const json_t *variant, int64_t *id, kept_error *err)
{
    char *key = kept_variant_key(variant), *text = kept_canonical(variant);
    kept_status st = key && text ? KEPT_OK : no_memory(err);
    kept_query q;
    if (!st)
        st = kept_exec(s, err, "INSERT OR IGNORE INTO variant(setting, key, json) VALUES(?, ?, ?)",
                       "iss", s->setting, key, text);
    if (!st) {
        kept_query_open(&q, s, err, "SELECT id FROM variant WHERE setting = ? AND key = ?", "is",
                        s->setting, key);
        st = one(&q, id);
    }
    free(key);
    free(text);
    return st;
}

static kept_status find_cell(kept_store *s, int64_t task, int64_t variant, int64_t *id,
                             kept_error *err)
{
    kept_query q;
    kept_status st = kept_exec(s, err, "INSERT OR IGNORE INTO cell(task, variant) VALUES(?, ?)",
                               "ii", task, variant);
    if (st)
        return st;
    kept_query_open(&q, s, err, "SELECT id FROM cell WHERE task = ? AND variant = ?", "ii", task,
                    variant);
    return one(&q, id);
}

static kept_status add_run(kept_store *s, const json_t *head, kept_error *err)
{
    char *machine = kept_canonical(json_object_get(head, "machine"));
    char *options = kept_canonical(json_object_get(head, "options"));
    const char *date = json_string_value(json_object_get(head, "date"));
    kept_status st = kept_exec(
        s, err, "INSERT INTO run(setting, date, process, machine, options) VALUES(?, ?, ?, ?, ?)",
        "issss", s->setting, date, s->owner, machine, options);
    s->run = sqlite3_last_insert_rowid(s->db);
    free(machine);
    free(options);
    return st;
}

static int64_t *cell_at(kept_store *s, int task, int variant)
{
    return &s->cell[(size_t)task * (size_t)s->n_variants + (size_t)variant];
}

static kept_status find_rows(kept_store *s, const json_t *head, const json_t *prompts,
                             kept_error *err)
{
    const json_t *tasks = json_object_get(head, "tasks");
    const json_t *variants = json_object_get(head, "variants");
    kept_status st = find_setting(s, head, err);
    for (int v = 0; !st && v < s->n_variants; v++)
        st = find_variant(s, json_array_get(variants, (size_t)v), &s->variant[v], err);
    for (int t = 0; !st && t < s->n_tasks; t++) {
        st = find_task(s, json_array_get(tasks, (size_t)t), json_array_get(prompts, (size_t)t),
                       &s->task[t], err);
        for (int v = 0; !st && v < s->n_variants; v++)
            st = find_cell(s, s->task[t], s->variant[v], cell_at(s, t, v), err);
    }
    return st ? st : add_run(s, head, err);
}

kept_status kept_store_begin(kept_store *s, const json_t *head, const json_t *prompts,
                             kept_error *err)
{
    kept_store_end(s);
    s->n_tasks = (int)json_array_size(json_object_get(head, "tasks"));
    s->n_variants = (int)json_array_size(json_object_get(head, "variants"));
    s->task = kept_calloc((size_t)s->n_tasks + 1, sizeof *s->task);
    s->variant = kept_calloc((size_t)s->n_variants + 1, sizeof *s->variant);
    s->cell = kept_calloc((size_t)s->n_tasks * (size_t)s->n_variants + 1, sizeof *s->cell);
    if (!s->task || !s->variant || !s->cell)
        return no_memory(err);
    kept_status st = kept_begin(s, err);
    return st ? st : kept_end(s, find_rows(s, head, prompts, err), err);
}

void kept_store_end(kept_store *s)
{
    free(s->task);
    free(s->variant);
    free(s->cell);
    s->task = s->variant = s->cell = NULL;
    s->n_tasks = s->n_variants = s->n_found = 0;
}

/* ---- take ----------------------------------------------------------------------------------- */

static kept_status find_lacks(kept_store *s, int task, int index, bool *lacks, bool *any,
                              kept_error *err)
{
    kept_query q;
    for (int v = 0; v < s->n_variants; v++)
        lacks[v] = true;
    kept_query_open(&q, s, err, RUNNING_AT, "ii", s->task[task], (int64_t)index);
    while (kept_query_row(&q))
        for (int v = 0; v < s->n_variants; v++)
            if (*cell_at(s, task, v) == sqlite3_column_int64(q.stmt, 0))
                lacks[v] = false;
    *any = false;
    for (int v = 0; v < s->n_variants; v++)
        *any |= lacks[v];
    return kept_query_close(&q);
}

/* Whether whoever claimed may still be at it: processes of this machine can be asked. */
static bool is_alive(const kept_store *s, const char *owner, int64_t until)
{
    const char *mine = strchr(s->owner, ' ');
    const size_t host = (size_t)(mine - s->owner) + 1;
    if (strncmp(owner, s->owner, host))
        return until > (int64_t)time(NULL);
    char path[64], line[1024] = "";
    const char *began = strchr(owner + host, ' ');
    long pid = strtol(owner + host, NULL, 10);
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return !access("/proc/self/stat", F_OK) ? false : !kill((pid_t)pid, 0);
    char *p = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
    fclose(f);
    if (p && (p[1] == '\0' || p[2] == 'Z')) /* dead, but not yet waited for */
        return false;
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p && began && strtoull(p, NULL, 10) == strtoull(began, NULL, 10);
}

/* Inside a transaction. */
static kept_status claim(kept_store *s, int task, int index, kept_take *what, kept_error *err)
{
    kept_query q;
    bool busy = false;
    kept_query_open(&q, s, err, "SELECT owner, until FROM claim WHERE task = ? AND idx = ?", "ii",
                    s->task[task], (int64_t)index);
    if (kept_query_row(&q))
        busy = is_alive(s, (const char *)sqlite3_column_text(q.stmt, 0),
                        sqlite3_column_int64(q.stmt, 1));
    kept_status st = kept_query_close(&q);
    *what = busy ? KEPT_TAKE_BUSY : KEPT_TAKE_RUN;
    if (st || busy)
        return st;
    return kept_exec(
        s, err, "INSERT OR REPLACE INTO claim(task, idx, owner, until) VALUES(?, ?, ?, ?)", "iisi",
        s->task[task], (int64_t)index, s->owner, (int64_t)time(NULL) + LEASE_S);
}

static kept_status sink_take(void *ctx, int task, int index, kept_take *what, bool *lacks,
                             kept_error *err)
{
    kept_store *s = ctx;
    bool any;
    *what = KEPT_TAKE_DONE;
    kept_status st = find_lacks(s, task, index, lacks, &any, err);
    if (st || !any)
        return st;
    if ((st = kept_begin(s, err)))
        return st;
    st = find_lacks(s, task, index, lacks, &any, err); /* now nobody else can finish it */
    if (!st && any)
        st = claim(s, task, index, what, err);
    st = kept_end(s, st, err);
    if (!st && *what == KEPT_TAKE_RUN) {
        s->claimed_task = s->task[task];
        s->claimed_index = index;
        s->renewed_ns = kept_clock_ns();
    }
    return st;
}

static void sink_drop(void *ctx, int task, int index)
{
    kept_store *s = ctx;
    (void)task;
    (void)index;
    if (s->claimed_index >= 0)
        (void)kept_exec(s, NULL, "DELETE FROM claim WHERE task = ? AND idx = ? AND owner = ?",
                        "iis", s->claimed_task, s->claimed_index, s->owner);
    s->claimed_index = -1;
}

static void sink_alive(void *ctx)
{
    kept_store *s = ctx;
    if (s->claimed_index < 0 || kept_clock_ns() - s->renewed_ns < RENEW_NS)
        return;
    s->renewed_ns = kept_clock_ns();
    (void)kept_exec(s, NULL, "UPDATE claim SET until = ? WHERE task = ? AND idx = ? AND owner = ?",
                    "iiis", (int64_t)time(NULL) + LEASE_S, s->claimed_task, s->claimed_index,
                    s->owner);
}

/* ---- put ------------------------------------------------------------------------------------ */

static kept_status pack_tokens(const kept_run_extra *x, void **out, size_t *n, kept_error *err)
{
    const size_t all = (size_t)x->n_prefix + (size_t)x->n_suffix;
    uint32_t *tokens = kept_calloc(all + 1, sizeof *tokens);
    if (!tokens)
        return no_memory(err);
    tokens[0] = (uint32_t)x->n_prefix;
    memcpy(tokens + 1, x->prefix, (size_t)x->n_prefix * sizeof *tokens);
    memcpy(tokens + 1 + x->n_prefix, x->suffix, (size_t)x->n_suffix * sizeof *tokens);
    kept_status st = kept_pack(tokens, (all + 1) * sizeof *tokens, out, n, err);
    free(tokens);
    return st;
}

static kept_status put_sample(kept_store *s, int64_t task, const json_t *sample,
                              const kept_run_extra *extra, int64_t *id, kept_error *err)
{
    const int64_t index = json_integer_value(json_object_get(sample, "index"));
    json_t *bare = json_copy((json_t *)(uintptr_t)sample);
    void *tokens = NULL;
    size_t n_tokens = 0;
    json_object_del(bare, "outcomes");
    json_object_del(bare, "task");
    char *text = bare ? kept_canonical(bare) : NULL;
    kept_status st = text ? KEPT_OK : no_memory(err);
    if (!st && extra)
        st = pack_tokens(extra, &tokens, &n_tokens, err);
    if (!st)
        st = kept_exec(
            s, err,
            "INSERT INTO sample(task, idx, run, json, tokens) VALUES(?, ?, ?, ?, ?)"
            " ON CONFLICT(task, idx) DO UPDATE SET tokens = coalesce(tokens, excluded.tokens)",
            "iiisb", task, index, s->run, text, tokens, n_tokens);
    kept_query q;
    if (!st) {
        kept_query_open(&q, s, err, "SELECT id FROM sample WHERE task = ? AND idx = ?", "ii", task,
                        index);
        st = one(&q, id);
    }
    json_decref(bare);
    free(text);
    free(tokens);
    return st;
}

/* The full cache must answer again what it answered before: otherwise the cells of this study were
 * not measured on one thing. */
static kept_status check_reference(kept_store *s, int64_t cell, int64_t sample, const json_t *o,
                                   kept_error *err)
{
    static const char *const same[] = {"tokens", "score", "nll"};
    kept_query q;
    bool differs = false;
    kept_query_open(&q, s, err, "SELECT json FROM outcome WHERE sample = ? AND cell = ?", "ii",
                    sample, cell);
    if (kept_query_row(&q)) {
        json_t *old = json_loads((const char *)sqlite3_column_text(q.stmt, 0), 0, NULL);
        bool failed = json_is_true(json_object_get(o, "failed")) ||
                      json_is_true(json_object_get(old, "failed"));
        for (int i = 0; i < 3 && !failed; i++) {
            char *a = kept_canonical(json_object_get(o, same[i]));
            char *b = kept_canonical(json_object_get(old, same[i]));
            differs |= (a && b) ? strcmp(a, b) != 0 : a != b;
            free(a);
            free(b);
        }
        json_decref(old);
    }
    kept_status st = kept_query_close(&q);
    if (!st && differs)
        st = kept_fail(err, KEPT_FORMAT,
                       "%s: the full cache does not answer sample as it did before; was the "
                       "program or a library changed? Use another study file",
                       s->path);
    return st;
}

static kept_status put_map(kept_store *s, int64_t cell, int64_t sample, const uint8_t *map,
                           size_t bytes, kept_error *err)
{
    void *packed = NULL;
    size_t n = 0;
    kept_status st = kept_pack(map, bytes, &packed, &n, err);
    if (!st)
        st = kept_exec(s, err, "INSERT OR IGNORE INTO kept_map(cell, sample, zstd) VALUES(?, ?, ?)",
                       "iib", cell, sample, (const void *)packed, n);
    free(packed);
    return st;
}

static kept_status put_outcome(kept_store *s, int task, int64_t sample, const json_t *o,
                               const kept_run_extra *extra, int64_t *n, kept_error *err)
{
    const int v = (int)json_integer_value(json_object_get(o, "variant"));
    if (v < 0 || v >= s->n_variants)
        return kept_fail(err, KEPT_FORMAT, "an outcome of variant %d, which there is not", v);
    const int64_t cell = *cell_at(s, task, v);
    kept_status st = v ? KEPT_OK : check_reference(s, cell, sample, o, err);
    json_t *bare = json_copy((json_t *)(uintptr_t)o);
    json_object_del(bare, "variant");
    char *text = bare ? kept_canonical(bare) : NULL;
    if (!st && !text)
        st = no_memory(err);
    if (!st)
        st = kept_exec(s, err,
                       "INSERT OR IGNORE INTO outcome(cell, sample, run, json) VALUES(?, ?, ?, ?)",
                       "iiis", cell, sample, s->run, text);
    *n += st ? 0 : sqlite3_changes(s->db);
    if (!st && extra && v < extra->n_variants && extra->map[v])
        st = put_map(s, cell, sample, extra->map[v], extra->map_bytes[v], err);
    json_decref(bare);
    free(text);
    return st;
}

static kept_status put_all(kept_store *s, const json_t *sample, const kept_run_extra *extra,
                           int64_t *n, kept_error *err)
{
    const int task = (int)json_integer_value(json_object_get(sample, "task"));
    const json_t *o;
    int64_t id = 0;
    size_t i;
    if (task < 0 || task >= s->n_tasks)
        return kept_fail(err, KEPT_FORMAT, "a sample of task %d, which there is not", task);
    kept_status st = put_sample(s, s->task[task], sample, extra, &id, err);
    json_array_foreach(json_object_get(sample, "outcomes"), i, o) if (!st) st =
        put_outcome(s, task, id, o, extra, n, err);
    if (!st)
        st = kept_exec(s, err, "DELETE FROM claim WHERE task = ? AND idx = ? AND owner = ?", "iis",
                       s->task[task], json_integer_value(json_object_get(sample, "index")),
                       s->owner);
    return st;
}

kept_status kept_store_put(kept_store *s, const json_t *sample, const kept_run_extra *extra,
                           int64_t *n, kept_error *err)
{
    kept_status st = kept_begin(s, err);
    return st ? st : kept_end(s, put_all(s, sample, extra, n, err), err);
}

static kept_status sink_put(void *ctx, const json_t *sample, const kept_run_extra *extra,
                            kept_error *err)
{
    kept_store *s = ctx;
    int64_t n = 0;
    kept_status st = kept_store_put(s, sample, extra, &n, err);
    if (!st)
        s->claimed_index = -1;
    return st;
}

/* ---- get ------------------------------------------------------------------------------------ */

static kept_status sink_get(void *ctx, int task, int index, json_t **sample, kept_error *err)
{
    kept_store *s = ctx;
    kept_query q;
    int64_t id = 0;
    json_t *list = json_array();
    *sample = NULL;
    kept_query_open(&q, s, err, "SELECT id, json FROM sample WHERE task = ? AND idx = ?", "ii",
                    s->task[task], (int64_t)index);
    if (kept_query_row(&q)) {
        id = sqlite3_column_int64(q.stmt, 0);
        *sample = json_loads((const char *)sqlite3_column_text(q.stmt, 1), 0, NULL);
    }
    kept_status st = kept_query_close(&q);
    for (int v = 0; !st && *sample && v < s->n_variants; v++) {
        kept_query_open(&q, s, err, "SELECT json FROM outcome WHERE sample = ? AND cell = ?", "ii",
                        id, *cell_at(s, task, v));
        if (kept_query_row(&q)) {
            json_t *o = json_loads((const char *)sqlite3_column_text(q.stmt, 0), 0, NULL);
            json_object_set_new(o, "variant", json_integer(v));
            json_array_append_new(list, o);
        }
        st = kept_query_close(&q);
    }
    if (*sample) {
        json_object_set_new(*sample, "task", json_integer(task));
        json_object_set(*sample, "outcomes", list);
    }
    if (st || !json_array_size(list)) {
        json_decref(*sample);
        *sample = NULL;
    }
    json_decref(list);
    return st;
}

/* ---- the sink ------------------------------------------------------------------------------- */

static kept_status count_found(kept_store *s, const json_t *prompts, int *done, kept_error *err)
{
    kept_status st = KEPT_OK;
    bool *lacks = kept_calloc((size_t)s->n_variants + 1, sizeof *lacks);
    *done = 0;
    if (!lacks)
        return no_memory(err);
    for (int t = 0; !st && t < s->n_tasks; t++) {
        const size_t n = json_array_size(json_array_get(prompts, (size_t)t));
        for (size_t i = 0; !st && i < n; i++) {
            bool any = true;
            st = find_lacks(s, t, (int)i, lacks, &any, err);
            *done += !any;
        }
    }
    free(lacks);
    return st;
}

static kept_status sink_begin(void *ctx, const json_t *head, const json_t *prompts, int *done,
                              kept_error *err)
{
    kept_store *s = ctx;
    kept_status st = kept_store_begin(s, head, prompts, err);
    if (!st)
        st = count_found(s, prompts, done, err);
    s->n_found = st ? 0 : *done;
    return st;
}

const kept_run_sink *kept_store_sink(kept_store *s, int rank, int n_ranks)
{
    s->sink = (kept_run_sink){.ctx = s,
                              .begin = sink_begin,
                              .take = sink_take,
                              .put = sink_put,
                              .drop = sink_drop,
                              .alive = sink_alive,
                              .get = sink_get,
                              .recall = kept_memo_get,
                              .remember = kept_memo_put,
                              .rank = rank,
                              .n_ranks = n_ranks};
    return &s->sink;
}
