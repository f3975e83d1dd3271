/* What statistics and the store cost: the cells of 200 rows x 500 samples (bar: 5 s) with answers
 * right or wrong, graded and as NLL; a comparison of all of them; one sample of 20 strategies into
 * a study, which is what every sample of a run pays (bar: 1 % of it), and opening a study of 500 of
 * them; the page of a study of 1,000 cells with all that `kept report` does but the prompts, which
 * have room of their own in it (bars: 10 s, 3 MB). Statistics and the page are timed by the
 * processor, which other work on the machine leaves alone. Exit 1 with --strict if a bar is missed.
 * The samples are random: what is timed does not depend on them.
 */
#include "bench/compare.h"
#include "bench/robust.h"
#include "bench/run.h"
#include "bench/stats.h"
#include "report/report.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TASKS = 10, ROWS = 22, SAMPLES = 500, POSITIONS = 16, PAGE_ROWS = 102, PAGE_SAMPLES = 100 };

/* Tasks x rows (the two full caches among them) x samples. */
typedef struct extent {
    int tasks, rows, samples;
} extent;

typedef enum answers { BINARY, GRADED, NLL } answers;

static kept_rng rng;

static json_t *outcome(int v, answers kind)
{
    json_t *o = json_pack("{s:i,s:b,s:i,s:i,s:i,s:i,s:i}", "variant", v, "failed", 0, "kv_bytes",
                          1000000, "meta_bytes", 1000, "peak_bytes", 2000000, "n_evicted", 1000,
                          "prefill_ns", 1000000);
    json_t *kl = json_array(), *nll = json_array(), *top1 = json_array();
    for (int i = 0; i < (kind == NLL ? POSITIONS : 1); i++) {
        json_array_append_new(kl, json_real(v > 1 ? kept_rng_unit(&rng) : 0));
        json_array_append_new(top1, json_integer(1));
        if (kind == NLL)
            json_array_append_new(nll, json_real(2 + kept_rng_normal(&rng)));
    }
    json_object_set_new(o, "kl", kl);
    json_object_set_new(o, "top1", top1);
    if (kind == NLL) {
        json_object_set_new(o, "nll", nll);
        return o;
    }
    json_decref(nll);
    const double u = kept_rng_unit(&rng);
    json_object_set_new(o, "score", json_real(kind == BINARY ? u < 0.8 : u));
    json_object_set_new(o, "text", json_string("an answer of some words"));
    json_object_set_new(o, "tokens", json_pack("[i,i,i,i,i,i]", 1, 2, 3, 4, 5, 6));
    json_object_set_new(o, "diverged", json_null());
    return o;
}

static json_t *document(extent z, answers kind)
{
    json_t *doc = json_pack("{s:s,s:i,s:s,s:{s:s},s:[],s:[],s:[]}", "schema", KEPT_RESULT_SCHEMA,
                            "version", KEPT_RESULT_VERSION, "kept", "0", "model", "sha256", "m",
                            "tasks", "variants", "samples");
    char name[32];
    for (int v = 0; v < z.rows; v++) {
        snprintf(name, sizeof name, "row%d@%d%%", v / 5, 10 + 10 * (v % 5));
        json_array_append_new(json_object_get(doc, "variants"),
                              json_pack("{s:s,s:s,s:s,s:s}", "name", name, "canonical", name,
                                        "resolved", name, "role",
                                        v == 0   ? "reference"
                                        : v == 1 ? "floor"
                                                 : "strategy"));
    }
    for (int t = 0; t < z.tasks; t++) {
        snprintf(name, sizeof name, "task%d", t);
        json_array_append_new(json_object_get(doc, "tasks"),
                              json_pack("{s:s,s:s,s:i}", "label", name, "kind",
                                        kind == NLL ? "score" : "generate", "length", 2048));
        for (int i = 0; i < z.samples; i++) {
            snprintf(name, sizeof name, "%016x", t * 100003 + i);
            json_t *list = json_array();
            for (int v = 0; v < z.rows; v++)
                json_array_append_new(list, outcome(v, kind));
            json_array_append_new(json_object_get(doc, "samples"),
                                  json_pack("{s:i,s:i,s:s,s:s,s:o}", "task", t, "index", i, "hash",
                                            name, "cluster", name, "outcomes", list));
        }
    }
    return doc;
}

static double seconds(uint64_t since)
{
    return (double)(kept_clock_ns() - since) / 1e9;
}

/* Of this process, which has one thread. */
static double cpu(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static void must(kept_status s, const kept_error *err)
{
    if (s) {
        fprintf(stderr, "bench_stats: %s\n", err->text);
        exit(1);
    }
}

static double time_statistics(void)
{
    static const char *const kinds[] = {"right or wrong", "graded", "NLL"};
    double most = 0;
    for (int kind = 0; kind < 3; kind++) {
        json_t *doc = document((extent){TASKS, ROWS, SAMPLES}, (answers)kind), *c = NULL;
        kept_error err = {.text = ""};
        const kept_compare_options o = {.before = doc,
                                        .after = doc,
                                        .before_name = "a",
                                        .after_name = "a",
                                        .margin = 0.01,
                                        .nll_margin = 0.01,
                                        .level = 0.95};
        const double start = cpu();
        json_t *cells = kept_result_cells(doc);
        const double s = cpu() - start;
        must(kept_compare(&o, &c, &err), &err);
        printf("%-15s cells of %d rows x %d samples %6.2f s of CPU, verdicts on %d of them %6.2f\n",
               kinds[kind], TASKS * ROWS, SAMPLES, s, TASKS * (ROWS - 2), cpu() - start - s);
        most = s > most ? s : most;
        json_decref(cells);
        json_decref(c);
        json_decref(doc);
    }
    return most;
}

static void time_store(double *put_ms, double *open_s)
{
    char path[] = "/tmp/kept-bench-XXXXXX";
    const int fd = mkstemp(path);
    kept_error err = {.text = ""};
    kept_store *s = NULL;
    json_t *doc = document((extent){1, ROWS, SAMPLES}, BINARY), *back = NULL;
    int64_t n = 0;
    if (fd < 0)
        must(KEPT_IO, (kept_fail(&err, KEPT_IO, "no temporary file"), &err));
    close(fd);
    must(kept_store_open(path, KEPT_STORE_CREATE, &s, &err), &err);
    uint64_t start = kept_clock_ns();
    must(kept_store_import(s, doc, &n, &err), &err);
    *put_ms = 1e3 * seconds(start) / SAMPLES;
    kept_store_close(s);
    start = kept_clock_ns();
    must(kept_store_open(path, KEPT_STORE_WRITE, &s, &err), &err);
    must(kept_store_export(s, 0, &back, &err), &err);
    *open_s = seconds(start);
    kept_store_close(s);
    unlink(path);
    printf(
        "study           %.2f ms a sample of %d outcomes, one transaction each; opening %d of them "
        "with cells %.2f s\n",
        *put_ms, ROWS, SAMPLES, *open_s);
    json_decref(doc);
    json_decref(back);
}

/* A study of 1,000 cells as its page. */
static void time_page(double *s, double *megabytes)
{
    char path[] = "/tmp/kept-bench-XXXXXX", page[64];
    const int fd = mkstemp(path);
    kept_error err = {.text = ""};
    kept_store *store = NULL;
    json_t *doc = document((extent){TASKS, PAGE_ROWS, PAGE_SAMPLES}, BINARY), *back = NULL;
    json_t *c = NULL, *robust = NULL, *prompts = NULL;
    int64_t n = 0;
    struct stat st = {0};
    if (fd < 0)
        must(KEPT_IO, (kept_fail(&err, KEPT_IO, "no temporary file"), &err));
    close(fd);
    snprintf(page, sizeof page, "%s.html", path);
    must(kept_store_open(path, KEPT_STORE_CREATE, &store, &err), &err);
    must(kept_store_import(store, doc, &n, &err), &err);
    kept_store_close(store);
    json_decref(doc);
    const double start = cpu();
    must(kept_store_open(path, KEPT_STORE_READ, &store, &err), &err);
    must(kept_store_export(store, 0, &back, &err), &err);
    const double opened = cpu();
    const kept_compare_options o = {.before = back,
                                    .after = back,
                                    .before_name = "a",
                                    .after_name = "a",
                                    .margin = 0.01,
                                    .nll_margin = 0.01,
                                    .level = 0.95,
                                    .common = true};
    must(kept_compare(&o, &c, &err), &err);
    const double compared = cpu();
    const kept_page_study study = {.store = store, .note = "no model"};
    must(kept_page_prompts(&study, back, c, &prompts, &err), &err);
    must(kept_robust(&back, 1, &robust, &err), &err);
    const kept_page p = {back, c, prompts, "s.db", robust};
    must(kept_report_page(&p, page, &err), &err);
    *s = cpu() - start;
    (void)stat(page, &st);
    *megabytes = (double)st.st_size / 1e6;
    printf(
        "page            of %d cells x %d samples %.2f s of CPU (opening with cells %.2f, verdicts "
        "%.2f), %.2f MB\n",
        TASKS * (PAGE_ROWS - 2), PAGE_SAMPLES, *s, opened - start, compared - opened, *megabytes);
    kept_store_close(store);
    unlink(path);
    unlink(page);
    json_decref(back);
    json_decref(c);
    json_decref(prompts);
    json_decref(robust);
}

int main(int argc, char **argv)
{
    const bool strict = argc > 1 && !strcmp(argv[1], "--strict");
    double put_ms, open_s, page_s = 0, page_mb = 0;
    kept_rng_init(&rng, 1);
    const double s = time_statistics();
    time_store(&put_ms, &open_s);
    if (!kept_page_ready(NULL))
        time_page(&page_s, &page_mb);
    const bool missed = s > 5 || open_s > 3 || page_s > 10 || page_mb > 3;
    printf("bars: statistics 5 s%s, opening 3 s%s, page 10 s%s and 3 MB%s\n",
           s > 5 ? " MISSED" : "", open_s > 3 ? " MISSED" : "", page_s > 10 ? " MISSED" : "",
           page_mb > 3 ? " MISSED" : "");
    return strict && missed;
}
