/* test_report: cells and views of a result written by hand, every figure worked out on paper here.
 *
 * One task, two samples, four variants: full, full again, "good" (half the bytes, same answers) and
 * "bad" (half the bytes and some, loses one answer, fails once).
 */
#include "bench/run.h"
#include "report/report.h"
#include "test.h"

#include <stdbool.h>
#include <unistd.h>

static const char fixture[] =
    "{'schema':'kept-result','version':1,'partial':true,"
    "'model':{'name':'tiny','weight_type':'f32','sha256':'0123456789abcdef'},"
    "'machine':{'cpu':'paper','isa':'ref','threads':1},'options':{'seed':1,'chunk':512},"
    "'variants':[{'name':'full','resolved':'full'},{'name':'full (again)','resolved':'full'},"
    "{'name':'good@50%','resolved':'good+protect(sinks=4,recent=32)@50%'},"
    "{'name':'bad, \"quoted\"@50%','resolved':'bad+protect(sinks=4,recent=32)@50%'}],"
    "'tasks':[{'label':'paper(1)','kind':'generate','length':100,'chat':false,"
    "'query_aware':false}],"
    "'samples':[{'task':0,'index':0,'outcomes':["
    "{'variant':0,'failed':false,'kv_bytes':1000,'meta_bytes':0,'peak_bytes':1000,"
    "'byte_steps':100000,'score':1,'tokens':[1],'diverged':null,'kl':[0],'top1':[1]},"
    "{'variant':1,'failed':false,'kv_bytes':1000,'meta_bytes':24,'peak_bytes':1024,"
    "'byte_steps':100000,'score':1,'tokens':[1],'diverged':null,'kl':[0],'top1':[1],"
    "'speed':{'step_ns':[1000000,1000000],'full_step_ns':[1000000,1000000]}},"
    "{'variant':2,'failed':false,'kv_bytes':480,'meta_bytes':20,'peak_bytes':1000,"
    "'byte_steps':80000,'score':1,'tokens':[1],'diverged':null,'kl':[0.5],'top1':[1],"
    "'mass_recall':0.75,'speed':{'step_ns':[500000,500000,250000,250000],"
    "'full_step_ns':[1000000,1000000,1000000,1000000]}},"
    "{'variant':3,'failed':false,'kv_bytes':600,'meta_bytes':0,'peak_bytes':1000,"
    "'byte_steps':90000,'score':0,'tokens':[2,3],'diverged':0,'kl':[2],'top1':[0],"
    "'mass_recall':0.5}]},"
    "{'task':0,'index':1,'outcomes':["
    "{'variant':0,'failed':false,'kv_bytes':2000,'meta_bytes':0,'peak_bytes':2000,"
    "'byte_steps':200000,'score':0,'tokens':[1],'diverged':null,'kl':[0],'top1':[1]},"
    "{'variant':1,'failed':false,'kv_bytes':2000,'meta_bytes':24,'peak_bytes':2024,"
    "'byte_steps':200000,'score':0,'tokens':[1],'diverged':null,'kl':[0],'top1':[1]},"
    "{'variant':2,'failed':false,'kv_bytes':960,'meta_bytes':40,'peak_bytes':2000,"
    "'byte_steps':120000,'score':1,'tokens':[4],'diverged':0,'kl':[1.5],'top1':[0],"
    "'mass_recall':0.25},"
    "{'variant':3,'failed':true,'why':'pool','kv_bytes':1,'meta_bytes':1,'peak_bytes':1,"
    "'byte_steps':1,'score':0,'tokens':[],'diverged':0,'kl':[],'top1':[]}]}]}";

static json_t *doc;

static json_t *parse(const char *text)
{
    char *json = strdup(text);
    for (char *c = json; *c; c++) {
        if (*c == '"') /* a quote inside a name: as JSON wants it */
            *c = '\x01';
        else if (*c == '\'')
            *c = '"';
    }
    size_t n = strlen(json);
    char *out = calloc(2 * n + 1, 1), *to = out;
    for (char *c = json; *c; c++) {
        if (*c == '\x01') {
            *to++ = '\\';
            *to++ = '"';
        } else {
            *to++ = *c;
        }
    }
    json_error_t e;
    json_t *r = json_loads(out, 0, &e);
    if (!r)
        fprintf(stderr, "%s at %d\n", e.text, e.position);
    free(json);
    free(out);
    return r;
}

static double figure(int variant, const char *key)
{
    const json_t *c = json_array_get(json_object_get(doc, "cells"), (size_t)variant);
    const json_t *x = json_object_get(c, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static bool front(int variant)
{
    const json_t *c = json_array_get(json_object_get(doc, "cells"), (size_t)variant);
    return json_is_true(json_object_get(c, "front"));
}

static void means_and_ratios(void)
{
    CHECK_INT(figure(2, "n"), 2);
    CHECK_NEAR(figure(2, "kv_bytes"), 720, 1e-9);
    CHECK_NEAR(figure(2, "held_bytes"), 750, 1e-9);
    CHECK_NEAR(figure(2, "held_pct"), 50, 1e-9);
    CHECK_NEAR(figure(2, "kv_pct"), 48, 1e-9);
    CHECK_NEAR(figure(2, "byte_steps_pct"), (80 + 60) / 2.0, 1e-9);
    CHECK_NEAR(figure(2, "mass_recall"), 0.5, 1e-9);
    CHECK_NEAR(figure(2, "kl"), 1, 1e-9);
    CHECK_NEAR(figure(2, "kl_max"), 1.5, 1e-9);
    CHECK_NEAR(figure(2, "top1"), 0.5, 1e-9);
    CHECK_NEAR(figure(2, "diverged"), 0.5, 1e-9);
    CHECK(isnan(figure(2, "evidence_recall")));
    CHECK(isnan(figure(2, "nll")));
}

static void failures_count_as_wrong(void)
{
    CHECK_INT(figure(3, "n"), 2);
    CHECK_INT(figure(3, "failed"), 1);
    CHECK_NEAR(figure(3, "score"), 0, 0);
    CHECK_NEAR(figure(3, "held_bytes"), 600, 0); /* of the outcome that did not fail */
    CHECK_NEAR(figure(3, "kl"), 2, 0);
    CHECK_INT(figure(3, "n_pairs"), 2);
    CHECK_NEAR(figure(3, "change"), -0.5, 0);
    CHECK_INT(figure(3, "regressions"), 1);
    CHECK_INT(figure(3, "improvements"), 0);
}

static void paired_change(void)
{
    CHECK_NEAR(figure(2, "score"), 1, 0);
    CHECK_NEAR(figure(2, "change"), 0.5, 0);
    CHECK_INT(figure(2, "regressions"), 0);
    CHECK_INT(figure(2, "improvements"), 1);
    CHECK_NEAR(figure(2, "p"), 1, 0); /* one flip: 2 * (1/2)^1 */
    /* Wilson at k = n = 2: 2 / (2 + z^2) with z = 1.959964. */
    CHECK_NEAR(figure(2, "score_low"), 2 / (2 + 1.959963985 * 1.959963985), 1e-6);
    CHECK_NEAR(figure(2, "score_high"), 1, 1e-9);
    CHECK(figure(1, "change") == 0 && figure(1, "kl") == 0);
}

static void speed_is_a_median_of_pairs(void)
{
    CHECK_NEAR(figure(2, "tokens_per_s"), 1e9 / 375000, 1e-6);
    CHECK_NEAR(figure(2, "speed_ratio"), 3, 1e-9); /* median of 2 and 4 */
    CHECK_NEAR(figure(0, "tokens_per_s"), 1000, 1e-6);
    CHECK(isnan(figure(3, "speed_ratio")));
}

static void pareto_front(void)
{
    CHECK(!front(0)); /* good@50% is smaller and better */
    CHECK(!front(1)); /* the floor takes no part */
    CHECK(front(2));
    CHECK(!front(3));
}

static char *render(kept_status (*view)(const json_t *, FILE *))
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    CHECK_INT(view ? view(doc, f) : kept_report_table(doc, f, NULL), KEPT_OK);
    fclose(f);
    return text;
}

static void table_is_readable(void)
{
    char *text = render(NULL);
    char *full = strstr(text, "\n  full "), *again = strstr(text, "\n  full (again)");
    char *good = strstr(text, "\n* good@50%"), *bad = strstr(text, "\n  bad, ");
    CHECK(full && again && good && bad);
    CHECK(full < again && again < good && good < bad);
    CHECK(strstr(text, "paper(1): 2 samples of 100 tokens"));
    CHECK(strstr(text, "query-agnostic"));
    CHECK(strstr(text, "protect(sinks=4,recent=32)"));
    CHECK(strstr(text, "With 2 samples nothing here can be told from chance"));
    CHECK(strstr(text, "FAILED: bad, \"quoted\"@50% on 1 of 2 samples"));
    CHECK(strstr(text, "differs from full by exactly 0"));
    CHECK(strstr(text, "PARTIAL RESULT"));
    CHECK(strstr(text, "n/a"));
    CHECK(!strstr(text, "nan") && !strstr(text, "inf") && !strchr(text, '\033'));
    for (char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        CHECK(n <= 120);
        line += n + (line[n] == '\n');
    }
    free(text);
}

static void floor_that_is_not_zero_is_told(void)
{
    json_t *c = json_array_get(json_object_get(doc, "cells"), 1);
    json_object_set_new(c, "kl_max", json_real(1e-9));
    char *text = render(NULL);
    CHECK(strstr(text, "FLOOR NOT 0"));
    free(text);
    json_object_set_new(c, "kl_max", json_real(0));
}

static void colour_only_when_asked(void)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    kept_view_options o = {.colour = true, .columns = 100};
    kept_report_table(doc, f, &o);
    fclose(f);
    CHECK(strchr(text, '\033') != NULL);
    free(text);
}

static void csv_is_rectangular(void)
{
    char *text = render(kept_report_csv);
    int n_lines = 0, n_fields = 0;
    for (char *line = text; *line;) {
        int fields = 1;
        bool quoted = false;
        for (; *line && *line != '\n'; line++) {
            quoted ^= *line == '"';
            fields += *line == ',' && !quoted;
        }
        line += *line == '\n';
        n_fields = n_lines ? n_fields : fields;
        CHECK_INT(fields, n_fields);
        n_lines++;
    }
    CHECK_INT(n_lines, 5);
    CHECK(strstr(text, "\"bad, \"\"quoted\"\"@50%\""));
    CHECK(strstr(text, "paper(1),100,0,good@50%,"));
    free(text);
}

static void json_survives(void)
{
    char *text = render(kept_report_json);
    json_t *again = json_loads(text, 0, NULL);
    CHECK(again != NULL);
    json_t *cells = kept_result_cells(again);
    CHECK(json_equal(cells, json_object_get(doc, "cells")));
    json_decref(cells);
    json_decref(again);
    free(text);
}

static void saving_is_atomic(void)
{
    char folder[] = "/tmp/kept-report-XXXXXX", path[64];
    kept_error err;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/r.json", folder);
    CHECK_INT(kept_report_save(doc, path, "json", &err), KEPT_OK);
    CHECK(access(path, R_OK) == 0);
    unlink(path);
    snprintf(path, sizeof path, "%s/none/r.json", folder);
    CHECK_INT(kept_report_save(doc, path, "json", &err), KEPT_IO);
    snprintf(path, sizeof path, "%s/r.xml", folder);
    CHECK_INT(kept_report_save(doc, path, "xml", &err), KEPT_ARGUMENT);
    CHECK(rmdir(folder) == 0); /* fails if any file was left */
    FILE *f = fopen("/dev/full", "w");
    if (f) {
        setvbuf(f, NULL, _IONBF, 0);
        CHECK_INT(kept_report_csv(doc, f), KEPT_IO);
        CHECK_INT(kept_report_json(doc, f), KEPT_IO);
        fclose(f);
    }
}

static void strange_documents_do_not_crash(void)
{
    static const char *const strange[] = {
        "{}",
        "{'tasks':[{}],'variants':[{}],'samples':[{}]}",
        "{'tasks':[{'kind':'score'}],'variants':[{},{},{}],'samples':[{'task':0,'outcomes':[1,{}]}]"
        "}",
        "{'tasks':[{}],'variants':[{}],'cells':[{},{'task':0},{'task':0,'variant':-5},7]}",
    };
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        json_t *r = parse(strange[i]), *keep = doc;
        json_t *cells = kept_result_cells(r);
        CHECK(cells != NULL);
        if (!json_object_get(r, "cells"))
            json_object_set(r, "cells", cells);
        doc = r;
        free(render(NULL));
        free(render(kept_report_csv));
        doc = keep;
        json_decref(cells);
        json_decref(r);
    }
}

int main(void)
{
    doc = parse(fixture);
    if (!doc)
        return 1;
    json_object_set_new(doc, "cells", kept_result_cells(doc));
    RUN(means_and_ratios);
    RUN(failures_count_as_wrong);
    RUN(paired_change);
    RUN(speed_is_a_median_of_pairs);
    RUN(pareto_front);
    RUN(table_is_readable);
    RUN(floor_that_is_not_zero_is_told);
    RUN(colour_only_when_asked);
    RUN(csv_is_rectangular);
    RUN(json_survives);
    RUN(saving_is_atomic);
    RUN(strange_documents_do_not_crash);
    json_decref(doc);
    TEST_END();
}
