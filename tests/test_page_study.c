/* test_page_study: what the page takes from a study: prompts as text, the tokens that every row
 * kept of them, maps. Compared with the prompts as they were written and with the maps position by
 * position. */
#include "bench/keptmap.h"
#include "model/model.h"
#include "report/report.h"
#include "store_rig.h"

static json_t *doc, *prompts;
static kept_store *store;

/* A comparison in which every row "flipped" on the first two samples. */
static json_t *all_flip(void)
{
    json_t *rows = json_array();
    for (int v = 2; v < 2 + N_SPECS; v++)
        json_array_append_new(rows, json_pack("{si si s[{si} {si}]}", "task_index", 0,
                                              "after_index", v, "flips", "index", 0, "index", 1));
    return json_pack("{so}", "rows", rows);
}

static bool open_all(void)
{
    counts c = {0};
    kept_model *vocab = NULL;
    kept_error err = {.text = ""};
    fresh();
    doc = run_on(study_path, options(2), &c, KEPT_OK);
    json_t *comparison = all_flip();
    CHECK_INT(kept_vocab_load(model_path, &vocab, &err), KEPT_OK);
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_READ, &store, &err), KEPT_OK);
    const kept_page_study from = {store, 0, vocab, NULL};
    CHECK_INT(kept_page_prompts(&from, doc, comparison, &prompts, &err), KEPT_OK);
    fputs(err.text, stderr);
    kept_model_free(vocab);
    json_decref(comparison);
    return prompts;
}

static const json_t *sample(size_t i)
{
    return json_array_get(json_object_get(doc, "samples"), i);
}

static int integer(const json_t *o, const char *key)
{
    return (int)json_integer_value(json_object_get(o, key));
}

/* The tokens of a prompt, one after the other, are the text that was in the file. */
static void text_is_the_prompt(void)
{
    const json_t *list = json_object_get(prompts, "prompts"), *p, *token;
    size_t i, k;
    CHECK_INT(json_array_size(list), 2);
    json_array_foreach(list, i, p)
    {
        char text[8192] = "", want[64];
        const json_t *part = json_array_get(json_object_get(p, "parts"), 0);
        CHECK_INT(json_array_size(json_object_get(p, "parts")), 1);
        CHECK_INT(json_array_size(json_object_get(part, "tokens")), integer(sample(i), "n_prefix"));
        json_array_foreach(json_object_get(part, "tokens"), k, token)
            strncat(text, json_string_value(token), sizeof text - strlen(text) - 1);
        snprintf(want, sizeof want, "The box number 3 holds item %d.", 93 + (int)i);
        CHECK(strstr(text, want));
        CHECK(strstr(text, "The box number 9 holds item"));
        CHECK(strstr(json_string_value(json_object_get(p, "asked")), "What is in box 3?"));
    }
}

static uint8_t *map_of(size_t i, int variant, size_t *bytes)
{
    const json_t *v = json_array_get(json_object_get(doc, "variants"), (size_t)variant);
    const kept_store_prompt key = {0, integer(sample(i), "index"),
                                   json_string_value(json_object_get(sample(i), "hash"))};
    uint8_t *map = NULL;
    CHECK_INT(kept_store_map(store, &key, json_string_value(json_object_get(v, "resolved")), &map,
                             bytes, NULL),
              KEPT_OK);
    return map;
}

/* Digit 0 where no head, 9 where every head kept a token, between them in order. */
static void digits_are_shares(void)
{
    const json_t *p, *kept;
    size_t i, k, bytes;
    static bool alive[4096];
    json_array_foreach(json_object_get(prompts, "prompts"), i, p)
    {
        CHECK_INT(json_array_size(json_object_get(p, "kept")), N_SPECS);
        json_array_foreach(json_object_get(p, "kept"), k, kept)
        {
            const char *share = json_string_value(json_object_get(kept, "share"));
            uint8_t *map = map_of(i, integer(kept, "variant"), &bytes);
            const int n = integer(p, "n");
            int heads[4096] = {0}, seen = 0, wrong = 0;
            for (int h = 0; h < 6; h++) {
                CHECK_INT(kept_map_head(map, bytes, h / 2, h % 2, alive, n, &seen, NULL), KEPT_OK);
                for (int t = 0; t < n; t++)
                    heads[t] += alive[t];
            }
            CHECK_INT(strlen(share), n);
            for (int t = 0; t < n; t++)
                wrong += (share[t] == '0') != (heads[t] == 0) ||
                         (share[t] == '9') != (heads[t] == 6) ||
                         (t && heads[t] > heads[t - 1] && share[t] < share[t - 1]);
            CHECK_INT(wrong, 0);
            free(map);
        }
    }
}

/* A map's cell is the share of its positions that its head kept, in steps of 1/61. */
static void maps_are_shares(void)
{
    static const char levels[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const json_t *list = json_object_get(prompts, "maps"), *m;
    size_t i, bytes;
    static bool alive[4096];
    CHECK_INT(json_array_size(list), N_SPECS);
    json_array_foreach(list, i, m)
    {
        const char *rows = json_string_value(json_object_get(m, "rows"));
        const int bins = integer(m, "bins"), seen = integer(m, "seen");
        uint8_t *map = map_of(0, integer(m, "variant"), &bytes);
        int wrong = 0, n = 0;
        CHECK_INT(integer(m, "lines"), 6);
        CHECK_INT(strlen(rows), 6 * bins);
        for (int h = 0; h < 6; h++) {
            double sum = 0, kept = 0;
            CHECK_INT(kept_map_head(map, bytes, h / 2, h % 2, alive, 4096, &n, NULL), KEPT_OK);
            CHECK_INT(n, seen);
            for (int b = 0; b < bins; b++)
                sum += (strchr(levels, rows[h * bins + b]) - levels) / 61.0 * seen / bins;
            for (int t = 0; t < seen; t++)
                kept += alive[t];
            wrong += !(fabs(sum - kept) <= 0.5 * seen / 61 + 1e-9);
        }
        CHECK_INT(wrong, 0);
        free(map);
    }
}

static void a_vocabulary_is_refused_as_a_model_is(void)
{
    kept_model *m = NULL;
    kept_error err = {.text = ""};
    CHECK_INT(kept_vocab_load("/nonexistent.gguf", &m, &err), KEPT_IO);
    CHECK(!m && *err.text);
    CHECK_INT(kept_vocab_load(jsonl_path, &m, &err), KEPT_FORMAT);
    CHECK(!m);
}

int main(int argc, char **argv)
{
    if (argc > 4)
        return child(argv);
    if (rig_open())
        return 77;
    if (open_all()) {
        RUN(text_is_the_prompt);
        RUN(digits_are_shares);
        RUN(maps_are_shares);
    }
    RUN(a_vocabulary_is_refused_as_a_model_is);
    kept_store_close(store);
    json_decref(prompts);
    json_decref(doc);
    json_decref(base);
    rig_close();
    TEST_END();
}
