/* test_pressure: many sequences under one cap. Who is served, refused and dropped is what a count
 * of pages says that knows nothing but the lengths of the prompts; aggregates are what a plain
 * reading of the requests gives. With KEPT_MODEL a shared budget (balance) is followed on a real
 * model too.
 */
#include "bench/pressure.h"
#include "engine_util.h"
#include "mkgguf.h"
#include "report/report.h"
#include "test.h"

#include <unistd.h>

enum {
    MOST = 6,
    NEW = 16,
    HEADS = 6,
    PAGE = 64 * 64 * 4
}; /* of mkgguf_default: 3 layers, 2 heads */

static char *model_path;

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static json_t *run_under(size_t pages, const char *task, int n_specs)
{
    static const char *const specs[] = {"window@25%", "h2o+pressure@25%"};
    static const int sequences[] = {3, MOST};
    kept_task_options t = {
        .name = task, .length = 540, .n_samples = MOST, .n_queries = 1, .seed = 5};
    kept_run_options o = {.model_path = model_path,
                          .specs = specs,
                          .n_specs = n_specs,
                          .tasks = &t,
                          .n_tasks = 1,
                          .n_threads = 1,
                          .seed = 7,
                          .chunk = 128,
                          .pool_bytes = pages * PAGE};
    const kept_pressure_options p = {&o, sequences, 2};
    kept_error err = {.text = ""};
    json_t *doc = NULL;
    if (kept_pressure(&p, &doc, &err))
        printf("# %s\n", err.text);
    return doc;
}

typedef struct counted {
    int served, refused, dropped;
} counted;

static int pages_of(int tokens)
{
    return HEADS * ((tokens + 63) / 64);
}

/* A full cache of prompts with these lengths: each comes whole or not at all, then all grow by a
 * token a step, the last token of an answer is never read. */
static counted by_hand(const int *length, int n, int pages)
{
    counted c = {0, 0, 0};
    int who[MOST], m = 0, used = 0;
    for (int i = 0; i < n; i++) {
        const bool fits = used + pages_of(length[i]) <= pages;
        c.refused += !fits;
        used += fits ? pages_of(length[i]) : 0;
        if (fits)
            who[m++] = length[i];
    }
    for (int step = 1; step < NEW; step++) {
        for (;;) {
            used = 0;
            for (int k = 0; k < m; k++)
                used += pages_of(who[k] + step);
            if (used <= pages)
                break;
            m--;
            c.dropped++;
        }
    }
    c.served = m;
    return c;
}

static const json_t *cell_of(const json_t *doc, int variant, int sequences)
{
    const json_t *c, *found = NULL;
    size_t i;
    json_array_foreach(json_object_get(doc, "cells"), i, c)
    {
        if (number(c, "variant") == variant && number(c, "sequences") == sequences)
            found = c;
    }
    return found;
}

static int drops, refusals;

static void check_fates(const json_t *doc, int pages)
{
    int length[MOST];
    const json_t *r;
    size_t i;
    for (i = 0; i < MOST; i++) { /* the first are those alone, with room */
        r = json_array_get(json_object_get(doc, "requests"), i);
        length[i] = (int)number(r, "n_tokens");
        CHECK_INT(number(r, "variant"), -1);
        CHECK_INT(number(r, "n_new"), NEW);
        CHECK_STR(json_string_value(json_object_get(r, "fate")), "served");
    }
    static const int sizes[] = {3, MOST};
    for (int k = 0; k < 2; k++) {
        counted want = {0, 0, 0};
        for (int at = 0; at < MOST; at += sizes[k]) {
            const counted g = by_hand(length + at, sizes[k], pages);
            want.served += g.served;
            want.refused += g.refused;
            want.dropped += g.dropped;
        }
        const json_t *c = cell_of(doc, 0, sizes[k]);
        CHECK_INT(number(c, "n"), MOST);
        CHECK_INT(number(c, "served"), want.served);
        CHECK_INT(number(c, "refused"), want.refused);
        CHECK_INT(number(c, "dropped"), want.dropped);
        drops += want.dropped;
        refusals += want.refused;
    }
}

/* Sums over the requests of every cell, counted once more. */
static void check_cells(const json_t *doc, double cap)
{
    const json_t *c, *r;
    size_t i, k;
    json_array_foreach(json_object_get(doc, "cells"), i, c)
    {
        double lost = 0, all = 0, score = 0;
        int served = 0, n = 0;
        json_array_foreach(json_object_get(doc, "requests"), k, r)
        {
            if (number(r, "variant") != number(c, "variant") ||
                number(r, "sequences") != number(c, "sequences"))
                continue;
            const bool ok = !strcmp(json_string_value(json_object_get(r, "fate")), "served");
            const double tokens = number(r, "n_tokens") + number(r, "n_new");
            n++;
            served += ok;
            all += tokens;
            lost += ok ? 0 : tokens;
            score += number(r, "score");
            CHECK(ok || number(r, "score") == 0);
        }
        CHECK_INT(number(c, "n"), n);
        CHECK_INT(number(c, "served"), served);
        CHECK_INT(number(c, "served") + number(c, "refused") + number(c, "dropped"), n);
        CHECK_NEAR(number(c, "tokens"), all, 0);
        CHECK_NEAR(number(c, "tokens_lost"), lost, 0);
        CHECK_NEAR(number(c, "score"), score / n, 1e-12);
        CHECK(number(c, "variant") < 0 || number(c, "peak_bytes") <= cap);
        CHECK(number(c, "variant") >= 0 || number(c, "change") == 0);
    }
}

static void fates_are_counted(void)
{
    static const int caps[] = {48, 95, 144, 150, 288};
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++) {
        json_t *doc = run_under((size_t)caps[i], "niah_single", 0);
        CHECK(doc != NULL);
        check_fates(doc, caps[i]);
        check_cells(doc, (double)caps[i] * PAGE);
        json_decref(doc);
    }
    CHECK(drops > 0 && refusals > 0); /* the caps above meet both */
}

/* What gives way serves more than what does not. */
static void strategies_make_room(void)
{
    json_t *doc = run_under(180, "niah_single", 2);
    const json_t *full = cell_of(doc, 0, MOST), *window = cell_of(doc, 2, MOST);
    const json_t *late = cell_of(doc, 3, MOST);
    CHECK(number(full, "served") < MOST);
    CHECK_INT(number(window, "served"), MOST);
    CHECK_INT(number(late, "served"), MOST);
    CHECK(number(late, "held_bytes") > number(window, "held_bytes"));
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    CHECK_INT(kept_report_pressure(doc, out), KEPT_OK);
    CHECK_INT(kept_report_pressure_csv(doc, out), KEPT_OK);
    fclose(out);
    CHECK(strstr(text, "window@25%") && strstr(text, "full, alone with room"));
    CHECK(strstr(text, "task,row,cap_bytes,sequences,n,"));
    free(text);
    json_decref(doc);
}

static void others_are_refused(void)
{
    CHECK(run_under(0, "niah_single", 0) == NULL);
}

/* ---- a shared budget on a real model -------------------------------------------------------- */

static kept_decision last_of(const kept_seq *s)
{
    kept_decision log[256];
    const int n = kept_seq_decisions(s, log, 256);
    CHECK(n > 0 && n <= 256);
    return log[n > 0 ? n - 1 : 0];
}

/* What a sequence may hold over what it brought. */
enum { N_TEXT = 128, STEPS = 40, EVERY = 4 };

static void balance_on_a_real_model(void)
{
    static const char *const line[2] = {"and again ", "The clerk kept %d books about ships. "};
    kept_model *m = NULL;
    kept_strategy *st = NULL;
    kept_seq *s[2];
    util_run r = {0};
    static char text[1 << 14];
    static int32_t tokens[2][4096];
    CHECK_INT(kept_model_open(getenv("KEPT_MODEL"), &m, &r.err), KEPT_OK);
    const kept_model_info *info = kept_model_get_info(m);
    const int all = info->n_layers * info->n_kv_heads;
    const kept_engine_options o = {.n_threads = 1, .max_tokens = 512, .pool_bytes = 64 << 20};
    CHECK_INT(kept_engine_new(m, &o, &r.engine, &r.err), KEPT_OK);
    CHECK_INT(kept_strategy_parse("h2o+balance(floor=40,every=4)@25%", &st, &r.err), KEPT_OK);
    r.n_vocab = info->n_vocab;
    for (int i = 0; i < 2; i++) {
        int n = 0;
        size_t at = 0;
        for (int k = 0; k < 400 && at + 80 < sizeof text; k++)
            at += (size_t)snprintf(text + at, sizeof text - at, line[i], k * 37 % 101);
        CHECK_INT(kept_tokenize(m, text, at, true, false, tokens[i], 4096, &n), KEPT_OK);
        CHECK(n >= N_TEXT + STEPS);
        CHECK_INT(kept_seq_new(r.engine, st, NULL, 1, &s[i], &r.err), KEPT_OK);
        CHECK_INT(util_prefill(&r, s[i], tokens[i], N_TEXT, 128, NULL), KEPT_OK);
        CHECK_INT(kept_seq_end_prefill(s[i], &r.err), KEPT_OK);
    }
    const int64_t own = (int64_t)all * N_TEXT / 4;
    for (int t = 0; t < STEPS; t++) {
        kept_item it[2];
        for (int i = 0; i < 2; i++)
            it[i] = (kept_item){.seq = s[i], .tokens = tokens[i] + N_TEXT + t, .n_tokens = 1};
        CHECK_INT(kept_engine_forward(r.engine, it, 2, &r.err), KEPT_OK);
        CHECK_INT(last_of(s[0]).slots + last_of(s[1]).slots, 2 * own);
        for (int i = 0; i < 2; i++) {
            int64_t held = 0;
            for (int h = 0; h < all; h++)
                held +=
                    kept_seq_positions(s[i], h / info->n_kv_heads, h % info->n_kv_heads, NULL, 0);
            CHECK(last_of(s[i]).slots >= own * 40 / 100);
            CHECK(held <= last_of(s[i]).slots + (t % EVERY + 1) * all);
        }
    }
    /* Who attends more widely (entropy) has more, and the split is not what both brought. */
    const kept_decision a = last_of(s[0]), b = last_of(s[1]);
    printf("# entropy %.3f and %.3f: %lld and %lld slots, %lld brought each\n", a.signal, b.signal,
           (long long)a.slots, (long long)b.slots, (long long)own);
    CHECK(a.signal != b.signal && a.slots != b.slots);
    CHECK((a.signal > b.signal) == (a.slots > b.slots));
    for (int i = 0; i < 2; i++)
        kept_seq_free(s[i]);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
    kept_model_free(m);
}

int main(void)
{
    mkgguf_spec spec = mkgguf_default("llama");
    model_path = mkgguf_temp();
    spec.n_ctx = 2048;
    if (mkgguf_write(model_path, &spec))
        SKIP("no room for a temporary model");
    RUN(fates_are_counted);
    RUN(strategies_make_room);
    RUN(others_are_refused);
    if (getenv("KEPT_MODEL"))
        RUN(balance_on_a_real_model);
    unlink(model_path);
    free(model_path);
    TEST_END();
}
