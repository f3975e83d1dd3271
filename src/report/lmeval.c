/* lmeval: the files that the EleutherAI evaluation harness writes (version 0.4), so that what reads
 * its results reads these: for each strategy a folder with results_DATE.json and, for each task,
 * samples_TASK_DATE.jsonl. The strategy takes the place of the model.
 *
 * Not there: the text of the prompts, which a result does not hold (prompt_hash names it).
 */
#include "report/view.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* Letters, digits, ".-_"; all else becomes "_". */
static void safe_name(const char *text, char *out, size_t cap)
{
    size_t n = 0;
    for (; *text && n + 1 < cap; text++) {
        const bool plain = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
                           (*text >= '0' && *text <= '9') || strchr(".-", *text);
        if (plain || (n && out[n - 1] != '_'))
            out[n++] = plain ? *text : '_';
    }
    while (n && out[n - 1] == '_')
        n--;
    out[n] = '\0';
}

static const char *metric_of(const json_t *task)
{
    return strcmp(kept_view_text(task, "kind"), "score") ? "exact_match" : "nll";
}

/* The harness knows a task by a name: label and length. */
static void task_name(const json_t *task, char *out, size_t cap)
{
    snprintf(out, cap, "%.180s@%.0f", kept_view_text(task, "label"),
             kept_view_number(task, "length"));
}

/* As the harness has it: 2026-01-31T12-00-00.000000. */
static void file_date(const json_t *result, char out[40])
{
    snprintf(out, 40, "%.19s.000000", kept_view_text(result, "date"));
    for (char *p = out; *p; p++)
        if (*p == ':')
            *p = '-';
}

static double seconds(const json_t *result)
{
    struct tm tm = {0};
    return strptime(kept_view_text(result, "date"), "%Y-%m-%dT%H:%M:%SZ", &tm) ? (double)timegm(&tm)
                                                                               : 0;
}

/* Value of one outcome under its task's metric: NULL if it has none. */
static json_t *value_of(const json_t *record)
{
    if (!strcmp(kept_view_text(record, "kind"), "score"))
        return json_incref(json_object_get(record, "nll_mean"));
    return kept_view_true(record, "failed") ? json_real(0)
                                            : json_real(kept_view_number(record, "score"));
}

static json_t *line_of(const json_t *record, const char *metric)
{
    json_t *o = json_object(), *answers = json_object_get(record, "answers");
    const char *text = kept_view_text(record, "text");
    const char *hash = kept_view_text(record, "hash");
    char target[17];
    char *packed = json_dumps(answers, JSON_COMPACT | JSON_ENCODE_ANY);
    snprintf(target, sizeof target, "%016llx",
             (unsigned long long)(packed ? kept_hash64(packed, strlen(packed), 1) : 0));
    free(packed);
    json_object_set(o, "doc_id", json_object_get(record, "index"));
    json_object_set(o, "doc", (json_t *)(uintptr_t)record);
    json_object_set(o, "target", answers ? answers : json_null());
    json_object_set_new(
        o, "arguments",
        json_pack("{s:{s:s,s:{s:b}}}", "gen_args_0", "arg_0", "", "arg_1", "do_sample", 0));
    json_object_set_new(o, "resps", json_pack("[[s]]", text));
    json_object_set_new(o, "filtered_resps", json_pack("[s]", text));
    json_object_set_new(o, "filter", json_string("none"));
    json_object_set_new(o, "metrics", json_pack("[s]", metric));
    json_object_set_new(o, "doc_hash", json_string(hash));
    json_object_set_new(o, "prompt_hash", json_string(hash));
    json_object_set_new(o, "target_hash", json_string(target));
    json_object_set_new(o, metric, value_of(record));
    return o;
}

typedef struct lm_sums {
    double sum, squares;
    int n;
} lm_sums;

static kept_status io_error(const char *path, kept_error *err)
{
    return kept_fail(err, KEPT_IO, "%s: %s", path, errno ? strerror(errno) : "cannot be written");
}

/* The samples of one task under one row as a file; *m: what they add up to. */
static kept_status write_samples(const json_t *result, size_t task, size_t variant,
                                 const char *folder, lm_sums *m, kept_error *err)
{
    const json_t *t = json_array_get(json_object_get(result, "tasks"), task), *sample, *o;
    char path[4096], name[256], safe[256], date[40];
    size_t i, k;
    bool bad = false;
    *m = (lm_sums){0};
    task_name(t, name, sizeof name);
    safe_name(name, safe, sizeof safe);
    file_date(result, date);
    snprintf(path, sizeof path, "%.3500s/samples_%s_%s.jsonl", folder, safe, date);
    errno = 0;
    FILE *f = fopen(path, "w");
    if (!f)
        return io_error(path, err);
    json_array_foreach(json_object_get(result, "samples"), i, sample)
    {
        if (kept_view_number(sample, "task") != (double)task)
            continue;
        json_array_foreach(json_object_get(sample, "outcomes"), k, o)
        {
            if (kept_view_number(o, "variant") != (double)variant)
                continue;
            json_t *record = kept_view_record(result, sample, o);
            json_t *line = line_of(record, metric_of(t));
            const double x = kept_view_number(line, metric_of(t));
            bad |= json_dumpf(line, f, JSON_COMPACT | JSON_REAL_PRECISION(15)) != 0;
            bad |= fputc('\n', f) == EOF;
            m->sum += isfinite(x) ? x : 0;
            m->squares += isfinite(x) ? x * x : 0;
            m->n += isfinite(x);
            json_decref(line);
            json_decref(record);
        }
    }
    bad |= fclose(f) != 0;
    return bad ? io_error(path, err) : KEPT_OK;
}

/* One task's entries of results_DATE.json; stderr is sd / sqrt(n), as the harness has it. */
static void add_task(json_t *doc, const json_t *task, const lm_sums *m)
{
    char name[256], key[64];
    const char *metric = metric_of(task);
    const bool generate = strcmp(metric, "nll") != 0;
    const double mean = m->n ? m->sum / m->n : NAN;
    const double sd = m->n > 1 ? sqrt(fmax(m->squares - m->n * mean * mean, 0) / (m->n - 1)) : NAN;
    json_t *r = json_object();
    task_name(task, name, sizeof name);
    json_object_set_new(r, "alias", json_string(name));
    snprintf(key, sizeof key, "%s,none", metric);
    json_object_set_new(r, key, m->n ? json_real(mean) : json_null());
    snprintf(key, sizeof key, "%s_stderr,none", metric);
    json_object_set_new(r, key, m->n > 1 ? json_real(sd / sqrt(m->n)) : json_string("N/A"));
    json_object_set_new(json_object_get(doc, "results"), name, r);
    json_object_set_new(json_object_get(doc, "group_subtasks"), name, json_array());
    json_object_set_new(json_object_get(doc, "configs"), name,
                        json_pack("{s:s,s:s,s:[{s:s,s:s,s:b}],s:O}", "task", name, "output_type",
                                  generate ? "generate_until" : "loglikelihood_rolling",
                                  "metric_list", "metric", metric, "aggregation", "mean",
                                  "higher_is_better", generate, "metadata", task));
    json_object_set_new(json_object_get(doc, "versions"), name, json_integer(1));
    json_object_set_new(json_object_get(doc, "n-shot"), name, json_integer(0));
    json_object_set_new(json_object_get(doc, "higher_is_better"), name,
                        json_pack("{s:b}", metric, generate));
    json_object_set_new(json_object_get(doc, "n-samples"), name,
                        json_pack("{s:i,s:i}", "original", m->n, "effective", m->n));
}

static json_t *empty_results(const json_t *result, const json_t *variant)
{
    static const char *const maps[] = {"results", "group_subtasks",   "configs",   "versions",
                                       "n-shot",  "higher_is_better", "n-samples", "task_hashes"};
    const json_t *model = json_object_get(result, "model");
    json_t *doc = json_object(), *config = json_object();
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        json_object_set_new(doc, maps[i], json_object());
    char args[600];
    snprintf(args, sizeof args, "pretrained=%.200s,strategy=%.300s", kept_view_text(model, "file"),
             kept_view_text(variant, "resolved"));
    json_object_set_new(config, "model", json_string("kept"));
    json_object_set_new(config, "model_args", json_string(args));
    json_object_set(config, "random_seed",
                    json_object_get(json_object_get(result, "options"), "seed"));
    json_object_set_new(doc, "config", config);
    json_object_set_new(doc, "git_hash", json_null());
    json_object_set_new(doc, "date", json_real(seconds(result)));
    json_object_set_new(doc, "model_source", json_string("kept"));
    json_object_set(doc, "model_name", json_object_get(variant, "name"));
    return doc;
}

/* Of a row; one that an earlier row has too gets the row's number. */
static void folder_name(const json_t *result, size_t v, char *out, size_t cap)
{
    const json_t *variants = json_object_get(result, "variants");
    char other[200];
    safe_name(kept_view_text(json_array_get(variants, v), "name"), out, cap - 24);
    for (size_t i = 0; i < v; i++) {
        safe_name(kept_view_text(json_array_get(variants, i), "name"), other, sizeof other);
        if (!strcmp(other, out)) {
            snprintf(out + strlen(out), 24, "-%zu", v);
            return;
        }
    }
}

static kept_status write_variant(const json_t *result, size_t v, const char *folder,
                                 kept_error *err)
{
    const json_t *variant = json_array_get(json_object_get(result, "variants"), v), *task;
    char sub[4096], safe[256], path[4400], date[40];
    kept_status s = KEPT_OK;
    size_t t;
    folder_name(result, v, safe, sizeof safe);
    snprintf(sub, sizeof sub, "%.3500s/%s", folder, safe);
    errno = 0;
    if (mkdir(sub, 0777) && errno != EEXIST)
        return io_error(sub, err);
    json_t *doc = empty_results(result, variant);
    json_object_set_new(doc, "model_name_sanitized", json_string(safe));
    json_array_foreach(json_object_get(result, "tasks"), t, task)
    {
        lm_sums m;
        if (!s && !(s = write_samples(result, t, v, sub, &m, err)))
            add_task(doc, task, &m);
    }
    file_date(result, date);
    snprintf(path, sizeof path, "%s/results_%s.json", sub, date);
    if (!s && json_dump_file(doc, path, JSON_INDENT(2) | JSON_REAL_PRECISION(15)))
        s = io_error(path, err);
    json_decref(doc);
    return s;
}

kept_status kept_report_lmeval(const json_t *result, const char *folder, kept_error *err)
{
    kept_status s = KEPT_OK;
    errno = 0;
    if (mkdir(folder, 0777) && errno != EEXIST)
        return io_error(folder, err);
    for (size_t v = 0; !s && v < json_array_size(json_object_get(result, "variants")); v++)
        s = write_variant(result, v, folder, err);
    return s;
}
