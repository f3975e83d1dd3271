/* The store's file: documents go out and come in, kept positions are there, and a file that is
 * full, read-only, damaged, of another program or of another schema costs nothing but one line. */
#include "bench/keptmap.h"
#include "store_rig.h"

/* ---- documents and maps --------------------------------------------------------------------- */

static void documents_go_out_and_in(void)
{
    counts c = {0};
    kept_store *s = NULL;
    kept_error err = {.text = ""};
    json_t *doc = NULL, *again = NULL;
    int64_t n = -1;
    fresh();
    json_decref(run_on(study_path, options(3), &c, KEPT_OK));
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_READ, &s, &err), KEPT_OK);
    CHECK_INT(kept_store_export(s, 0, &doc, &err), KEPT_OK);
    kept_store_close(s);
    CHECK(json_is_false(json_object_get(doc, "partial")));
    fresh();
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_CREATE, &s, &err), KEPT_OK);
    CHECK_INT(kept_store_import(s, doc, &n, &err), KEPT_OK);
    CHECK_INT(n, 3 * (N_SPECS + 2));
    CHECK_INT(kept_store_import(s, doc, &n, &err), KEPT_OK);
    CHECK_INT(n, 0);
    CHECK_INT(kept_store_export(s, 0, &again, &err), KEPT_OK);
    CHECK(json_equal(json_object_get(doc, "samples"), json_object_get(again, "samples")));
    CHECK(json_equal(json_object_get(doc, "cells"), json_object_get(again, "cells")));
    json_object_set_new(doc, "version", json_integer(99));
    CHECK_INT(kept_store_import(s, doc, &n, &err), KEPT_FORMAT);
    kept_store_close(s);
    json_decref(doc);
    json_decref(again);
    /* What came in is what a run would have stored: it has nothing left to do. */
    json_decref(run_on(study_path, options(3), &c, KEPT_OK));
    CHECK_INT(c.resumed, 3);
}

/* The hash of a sample is that of its tokens, prefix and suffix. */
static void tokens_are_the_prompt(kept_store *s, const kept_store_prompt *key, const json_t *sample)
{
    int32_t *tokens = NULL;
    int n_prefix = 0, n = 0;
    char hash[17];
    const kept_store_prompt none = {1, 0, "0123456789abcdef"};
    CHECK_INT(kept_store_tokens(s, key, &tokens, &n_prefix, &n, NULL), KEPT_OK);
    CHECK_INT(n_prefix, json_integer_value(json_object_get(sample, "n_prefix")));
    CHECK_INT(n - n_prefix, json_integer_value(json_object_get(sample, "n_suffix")));
    const uint64_t h = kept_hash64(tokens + n_prefix, (size_t)(n - n_prefix) * sizeof *tokens,
                                   kept_hash64(tokens, (size_t)n_prefix * sizeof *tokens, 0));
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)h);
    CHECK_STR(hash, key->hash);
    free(tokens);
    CHECK_INT(kept_store_tokens(s, &none, &tokens, &n_prefix, &n, NULL), KEPT_NOT_FOUND);
    CHECK(!tokens);
}

static void maps_hold_what_was_kept(void)
{
    counts c = {0};
    kept_store *s = NULL;
    uint8_t *map = NULL;
    size_t bytes = 0;
    int layers = 0, heads = 0, seen = 0, kept = 0;
    static bool alive[4096];
    fresh();
    json_t *doc = run_on(study_path, options(1), &c, KEPT_OK);
    const json_t *v = json_array_get(json_object_get(doc, "variants"), 2);
    const json_t *sample = json_array_get(json_object_get(doc, "samples"), 0);
    const json_t *o = json_array_get(json_object_get(sample, "outcomes"), 2);
    const char *hash = json_string_value(json_object_get(sample, "hash"));
    const char *spec = json_string_value(json_object_get(v, "resolved"));
    const kept_store_prompt key = {1, 0, hash}, any = {0, 0, hash}, other = {1, 5, hash};
    const int n_prefix = (int)json_integer_value(json_object_get(sample, "n_prefix"));
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_READ, &s, NULL), KEPT_OK);
    CHECK_INT(kept_store_map(s, &any, spec, &map, &bytes, NULL), KEPT_OK);
    free(map);
    CHECK_INT(kept_store_map(s, &other, "full", &map, &bytes, NULL), KEPT_NOT_FOUND);
    CHECK_INT(kept_store_map(s, &key, spec, &map, &bytes, NULL), KEPT_OK);
    tokens_are_the_prompt(s, &key, sample);
    CHECK_INT(kept_map_shape(map, bytes, &layers, &heads, NULL), KEPT_OK);
    CHECK(layers == 3 && heads == 2);
    for (int l = 0; l < layers; l++)
        for (int h = 0; h < heads; h++) {
            CHECK_INT(kept_map_head(map, bytes, l, h, alive, 4096, &seen, NULL), KEPT_OK);
            CHECK_INT(seen, n_prefix);
            for (int p = 0; p < 4096; p++)
                kept += alive[p];
            for (int p = 0; p < 4; p++)
                CHECK(alive[p] && alive[seen - 1 - p] && !alive[seen + p]);
        }
    CHECK_INT(kept, 6 * n_prefix - json_integer_value(json_object_get(o, "n_evicted")));
    CHECK_INT(kept_map_head(map, bytes, 3, 0, alive, 4096, &seen, NULL), KEPT_ARGUMENT);
    for (size_t cut = 0; cut < bytes; cut += 3)
        CHECK(kept_map_head(map, cut, 2, 1, alive, 4096, &seen, NULL) == KEPT_FORMAT);
    free(map);
    kept_store_close(s);
    json_decref(doc);
}

/* ---- files that are not what they should be ------------------------------------------------- */

static void expect_open(kept_store_mode mode, kept_status want, const char *text)
{
    kept_store *s = NULL;
    kept_error err = {.text = ""};
    CHECK_INT(kept_store_open(study_path, mode, &s, &err), want);
    if (!strstr(err.text, text) || strchr(err.text, '\n'))
        fprintf(stderr, "message: %s\n", err.text);
    CHECK(strstr(err.text, text) != NULL);
    CHECK(strchr(err.text, '\n') == NULL);
    kept_store_close(s);
}

static void bad_files_are_refused(void)
{
    counts c = {0};
    fresh();
    expect_open(KEPT_STORE_READ, KEPT_IO, "No such file");
    FILE *f = fopen(study_path, "w");
    for (int i = 0; f && i < 3000; i++)
        fputs("not a study ", f);
    if (f)
        fclose(f);
    expect_open(KEPT_STORE_CREATE, KEPT_FORMAT, "is not a study");
    fresh();
    sqlite3 *db = NULL;
    CHECK_INT(sqlite3_open(study_path, &db), SQLITE_OK);
    CHECK_INT(sqlite3_exec(db, "CREATE TABLE other(x)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    expect_open(KEPT_STORE_CREATE, KEPT_FORMAT, "is not a study");
    fresh();
    json_decref(run_on(study_path, options(2), &c, KEPT_OK));
    ask(study_path, "PRAGMA user_version = 99");
    expect_open(KEPT_STORE_CREATE, KEPT_FORMAT, "newer kept");
    fresh();
    json_decref(run_on(study_path, options(3), &c, KEPT_OK));
    const long long pages = ask(study_path, "PRAGMA page_count"), size = 4096;
    f = fopen(study_path, "r+");
    for (long long p = 3; f && p < pages; p += 2) {
        fseek(f, (long)(p * size + 8), SEEK_SET);
        for (int i = 0; i < 600; i++)
            fputc(i * 37 & 255, f);
    }
    if (f)
        fclose(f);
    expect_open(KEPT_STORE_CREATE, KEPT_FORMAT, "damaged");
    CHECK_INT(truncate(study_path, (long)(size * pages / 2 + 100)), 0);
    expect_open(KEPT_STORE_CREATE, KEPT_FORMAT, "damaged");
}

static void a_full_disk_loses_nothing(void)
{
    counts c = {0};
    fresh();
    json_decref(run_on(study_path, options(2), &c, KEPT_OK));
    CHECK_INT(wait_for(start("full-disk")), 0);
    const long long stored = ask(study_path, "SELECT count(*) FROM outcome");
    CHECK(stored >= 2 * (N_SPECS + 2) && stored < N_SAMPLES * (N_SPECS + 2));
    CHECK_INT(ask(study_path, "SELECT count(*) FROM pragma_quick_check WHERE quick_check = 'ok'"),
              1);
    equals_base(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    CHECK_INT(c.resumed * (N_SPECS + 2), stored);
}

static void a_read_only_file_is_refused(void)
{
    counts c = {0};
    fresh();
    json_decref(run_on(study_path, options(1), &c, KEPT_OK));
    chmod(study_path, 0444);
    CHECK_INT(wait_for(start("read-only")), 0);
}

/* A file that version 1 of the schema wrote, by the first kept that had one. */
static void schema_1_becomes_this_one(void)
{
    const char *source = getenv("KEPT_SOURCE");
    char path[4096];
    kept_store *s = NULL;
    kept_error err = {.text = ""};
    json_t *doc = NULL;
    fresh();
    snprintf(path, sizeof path, "%s/tests/data/study-schema-1.db", source ? source : ".");
    FILE *in = fopen(path, "rb"), *out = fopen(study_path, "wb");
    CHECK(in && out);
    for (int ch; in && out && (ch = fgetc(in)) != EOF;)
        fputc(ch, out);
    if (in)
        fclose(in);
    if (out)
        fclose(out);
    CHECK_INT(ask(study_path, "PRAGMA user_version"), 1);
    expect_open(KEPT_STORE_READ, KEPT_FORMAT, "has schema 1");
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_WRITE, &s, &err), KEPT_OK);
    CHECK_INT(kept_store_export(s, 0, &doc, &err), KEPT_OK);
    CHECK_INT(json_array_size(json_object_get(doc, "samples")), 2);
    CHECK_INT(json_array_size(json_object_get(doc, "variants")), 3);
    const json_t *cell = json_array_get(json_object_get(doc, "cells"), 2);
    CHECK_INT(json_integer_value(json_object_get(cell, "n")), 2);
    CHECK(json_number_value(json_object_get(cell, "n_evicted")) > 0);
    CHECK_INT(kept_store_check(s, &err), KEPT_OK);
    kept_store_close(s);
    json_decref(doc);
    CHECK_INT(ask(study_path, "PRAGMA user_version"), KEPT_STORE_SCHEMA);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM kept_map"), 0);
}

/* Changes one hash of the remembered sizes. */
static void tamper(int index)
{
    char sql[200];
    snprintf(sql, sizeof sql,
             "UPDATE memo SET text = json_set(text, '$[%d][0]', '0123456789abcdef') RETURNING 1",
             index);
    CHECK_INT(ask(study_path, sql), 1);
}

/* Prompts are not tokenized again; sizes that are not this program's are found out. */
static void sizes_are_remembered(void)
{
    counts c = {.stop_at = 60};
    fresh();
    json_decref(run_on(study_path, options(N_SAMPLES), &c, KEPT_CANCELLED));
    CHECK_INT(ask(study_path, "SELECT count(*) FROM memo"), 1);
    CHECK_INT(ask(study_path, "SELECT json_array_length(text) FROM memo"), N_SAMPLES);
    c = (counts){0};
    equals_base(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    fresh();
    c = (counts){.stop_at = 1};
    json_decref(run_on(study_path, options(N_SAMPLES), &c, KEPT_CANCELLED));
    tamper(0); /* looked at: all are made anew */
    c = (counts){0};
    equals_base(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    fresh();
    c = (counts){.stop_at = 1};
    json_decref(run_on(study_path, options(N_SAMPLES), &c, KEPT_CANCELLED));
    tamper(5); /* not looked at before the sample is run */
    c = (counts){0};
    json_decref(run_on(study_path, options(N_SAMPLES), &c, KEPT_FORMAT));
}

int main(int argc, char **argv)
{
    if (argc > 4)
        return child(argv);
    if (rig_open())
        return 77;
    RUN(documents_go_out_and_in);
    RUN(maps_hold_what_was_kept);
    RUN(bad_files_are_refused);
    RUN(a_full_disk_loses_nothing);
    RUN(a_read_only_file_is_refused);
    RUN(schema_1_becomes_this_one);
    RUN(sizes_are_remembered);
    rig_close();
    TEST_END();
}
