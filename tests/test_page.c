/* test_page: the page of `kept report` without a browser: blocks of data, escapes, sizes, words.
 *
 * `test_page pages FOLDER` writes pages for tests/test_browser.sh and does nothing else. */
#include "page_rig.h"

#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/kept-page-XXXXXX", path[64];

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
        n++;
    return n;
}

/* Cuts the scripts off, which are not made from the study. */
static void cut_scripts(char *page)
{
    char *at = strstr(page, "<script nonce=\"");
    CHECK(at != NULL);
    if (at)
        *at = '\0';
}

/* The JSON of a block of the page, and that nothing in it could end the element. */
static json_t *block(const char *page, const char *id)
{
    char mark[80];
    json_error_t e;
    snprintf(mark, sizeof mark, "<script type=\"application/json\" id=\"%s\">", id);
    const char *at = strstr(page, mark), *end = at ? strstr(at, "</script>") : NULL;
    CHECK(at && end);
    if (!at || !end)
        return NULL;
    at += strlen(mark);
    CHECK(!memchr(at, '<', (size_t)(end - at)));
    json_t *x = json_loadb(at, (size_t)(end - at), 0, &e);
    if (!x)
        fprintf(stderr, "%s: %s at %d\n", id, e.text, e.position);
    CHECK(x != NULL);
    return x;
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* Four rows of 600 samples: s0 loses nothing at 80 and 45 %, s1 loses a third at both. */
static void verdict_is_that_of_compare(void)
{
    const rig_size z = {2, 2, 1, 600, false, 4, false};
    size_t n;
    char *page = rig_page(&z, path, false, &n);
    CHECK(strstr(page, "<b class=\"spec\">s0@45%</b> is as good as the full cache, with "
                       "45&nbsp;% of its memory."));
    CHECK(strstr(page, "<li class=\"good\"><b>2</b> as good as full</li>"
                       "<li class=\"open\"><b>0</b> cannot be told</li>"
                       "<li class=\"bad\"><b>2</b> worse than full</li>"));
    CHECK_INT(count(page, "<td class=\"good\">&#10003; as good</td>"), 2);
    CHECK_INT(count(page, "<td class=\"bad\">&#10007; worse</td>"), 2);
    CHECK(strstr(page, "differs from itself by exactly 0"));
    json_t *extra = block(page, "extra"), *ladders = json_object_get(extra, "ladders");
    CHECK_INT(json_array_size(ladders), 2);
    CHECK(json_is_null(json_object_get(json_array_get(ladders, 0), "cliff")));
    CHECK_INT(number(json_array_get(ladders, 1), "cliff"), 4);
    json_decref(extra);
    free(page);
    /* With 8 samples nothing can be said, and the page says that. */
    const rig_size few = {2, 2, 1, 8, false, 4, false};
    page = rig_page(&few, path, false, &n);
    CHECK(strstr(page, "Nothing here is shown to be as good as the full cache, and for 4 of 4"));
    CHECK(!strstr(page, "is as good as the full cache"));
    free(page);
}

/* Depths and their means, worked out here: 12 samples, the third of each three lost... */
static void depths_are_means(void)
{
    const rig_size z = {1, 1, 1, 12, false, 2, false};
    size_t n;
    char *page = rig_page(&z, path, false, &n);
    json_t *extra = block(page, "extra"), *line;
    size_t i, b;
    double sum = 0, answers = 0;
    json_array_foreach(json_object_get(extra, "depths"), i, line)
    {
        const json_t *scores = json_array_get(line, 2), *counts = json_array_get(line, 3);
        CHECK_INT(json_array_size(scores), 10);
        if (json_integer_value(json_array_get(line, 1)) != 2)
            continue;
        for (b = 0; b < 10; b++) {
            const double c = json_number_value(json_array_get(counts, b));
            sum += c * json_number_value(json_array_get(scores, b));
            answers += c;
        }
    }
    CHECK_NEAR(answers, 12, 0);
    CHECK_NEAR(sum, 8, 1e-3);
    json_decref(extra);
    free(page);
}

static void hostile_text_is_text(void)
{
    const rig_size z = {2, 2, 4, 9, true, 4, false};
    size_t n;
    char *page = rig_page(&z, path, true, &n);
    const char *body = strstr(page, "<body>"), *scripts = strstr(page, "id=\"result\">");
    CHECK(body && scripts);
    CHECK_INT(count(page, "<script nonce=\""), 2);
    cut_scripts(page);
    CHECK(!strstr(page, "<img"));
    CHECK(!strstr(page, "</script><"));
    CHECK(strstr(body, "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&lt;!--&quot;&#39;&amp;"));
    CHECK_INT(count(page, "<script type=\"application/json\""), 3);
    CHECK_INT(count(page, "<script"), 3);
    json_t *result = block(page, "result"), *extra = block(page, "extra");
    const json_t *v = json_array_get(json_object_get(result, "variants"), 2);
    CHECK_STR(json_string_value(json_object_get(v, "name")), "s0" HOSTILE "@80%");
    CHECK_STR(json_string_value(json_object_get(extra, "source")), HOSTILE);
    json_decref(result);
    json_decref(extra);
    free(page);
}

static void nothing_is_loaded(void)
{
    const rig_size z = {1, 1, 1, 6, false, 2, false};
    size_t n;
    char *page = rig_page(&z, path, true, &n);
    cut_scripts(page);
    CHECK(strstr(page, "default-src 'none'"));
    CHECK(!strstr(page, "<link") && !strstr(page, "@import") && !strstr(page, "<iframe"));
    CHECK_INT(count(page, " src=\""), 0);
    CHECK(strstr(page, "University of Washington Interactive Data Lab"));
    /* the folder of a model stays where it is, its name and the command are in the page */
    CHECK(!strstr(page, "somewhere") && strstr(page, "\"asked\":\"tiny.gguf\""));
    CHECK(strstr(page, "kept run --study s.db --model tiny.gguf"));
    free(page);
}

static void small_and_empty(void)
{
    const rig_size one = {1, 1, 1, 1, false, 2, false}, none = {0, 1, 1, 2, false, 2, false};
    size_t n;
    char *page = rig_page(&one, path, false, &n);
    cut_scripts(page);
    CHECK_INT(count(page, "<tr data-variant"), 3);
    json_decref(block(page, "result"));
    json_decref(block(page, "extra"));
    /* what it lacks, and the command that gives it */
    CHECK(strstr(page, "No data. This gives it some: <code>kept run --study FILE ... --task "
                       "facts_sequential</code>"));
    CHECK(strstr(page, "... --text FILE --score-tokens 256</code>"));
    CHECK(strstr(page, "--budget 50%,30%,20%,10%</code>"));
    CHECK_INT(count(page, "data-plot=\"turn\"") + count(page, "data-plot=\"map\""), 0);
    CHECK_INT(count(page, "data-plot=\"held\""), 1);
    free(page);
    page = rig_page(&none, path, false, &n);
    CHECK(strstr(page, "No strategy has a finished sample yet"));
    json_decref(block(page, "result"));
    free(page);
}

/* 10 tasks x 100 rows. */
static void thousand_cells(void)
{
    const rig_size z = {20, 5, 10, 12, false, 40, false};
    size_t n = 0, i, n_hidden = 0, most = 0, least = SIZE_MAX;
    const json_t *v;
    char *page = rig_page(&z, path, true, &n);
    printf("# 1,000 cells: %.2f s of statistics, %.2f s for the page, %.2f MB\n", rig_seconds[0],
           rig_seconds[1], (double)n / 1e6);
    CHECK(rig_seconds[0] + rig_seconds[1] < 10);
    CHECK(n > 1000000 && n < 2400000); /* a study adds at most 0.45 MB of prompts and maps */
    json_t *result = block(page, "result"), *extra = block(page, "extra");
    const json_t *table = json_object_get(result, "cell_table");
    const json_t *row = json_array_get(json_object_get(table, "rows"), 1019);
    CHECK_INT(json_array_size(json_object_get(table, "rows")), 1020);
    CHECK_INT(json_array_size(row), json_array_size(json_object_get(table, "keys")));
    CHECK_INT(json_array_size(json_object_get(extra, "verdicts")), 1000);
    /* Not every flip has room: the first of every row comes before the second of any. */
    json_array_foreach(json_object_get(extra, "verdicts"), i, v)
    {
        const size_t shown = json_array_size(json_object_get(v, "flips"));
        if (number(v, "n_flips") == 0)
            continue;
        CHECK(shown <= (size_t)number(v, "n_flips"));
        n_hidden += (size_t)number(v, "n_flips") - shown;
        most = shown > most ? shown : most;
        least = shown < least ? shown : least;
    }
    CHECK(n_hidden > 0 && most > 0 && most - least <= 1);
    CHECK(json_dumpb(json_object_get(extra, "verdicts"), NULL, 0, JSON_COMPACT) <= 150000);
    CHECK(strcmp(json_string_value(json_object_get(extra, "left_out")), "nothing"));
    CHECK_INT(count(page, "<tr data-variant"), 1020);
    json_decref(result);
    json_decref(extra);
    free(page);
}

/* The section is there where something can be compared, with the numbers of bench/robust.h; the
 * terminal's text stands below each figure. */
static void robustness(void)
{
    const rig_size all = {3, 3, 5, 30, false, 5, true}, hostile = {3, 2, 4, 9, true, 4, true};
    const rig_size plain = {2, 1, 1, 4, false, 3, false};
    static const char *const names[] = {"models", "length", "precision", "perturb"};
    size_t n = 0;
    char *page = rig_page(&all, path, false, &n);
    json_t *data = block(page, "robust-data"), *result = rig_result(&all);
    json_t *want = rig_robust(&all, result);
    CHECK_INT(count(page, "<section id=\"robust\">") + count(page, "href=\"#robust\""), 2);
    for (int i = 0; i < 4; i++) {
        char plot[64];
        snprintf(plot, sizeof plot, "data-plot=\"%s\"", names[i]);
        CHECK_INT(count(page, plot), 1);
        CHECK(json_array_size(json_object_get(data, names[i])) > 0);
        CHECK_INT(json_array_size(json_object_get(data, names[i])),
                  json_array_size(json_object_get(want, names[i])));
    }
    const json_t *tau = json_array_get(
        json_object_get(json_array_get(json_object_get(data, "models"), 0), "tau"), 0);
    const json_t *exact = json_array_get(
        json_object_get(json_array_get(json_object_get(want, "models"), 0), "tau"), 0);
    CHECK_NEAR(number(tau, "tau"), number(exact, "tau"), 1e-4);
    CHECK(fabs(number(tau, "tau")) < 0.99); /* the rig's second model ranks otherwise */
    const json_t *drift = json_array_get(json_object_get(data, "perturb"), 0);
    CHECK_INT(number(drift, "task_index"), 4);
    CHECK_INT(number(drift, "plain_index"), 0);
    const json_t *pair = json_array_get(json_object_get(data, "precision"), 0);
    CHECK_INT(number(pair, "variant"), 2);
    CHECK_INT(number(pair, "packed_variant"), 3);
    CHECK(strstr(page, "Kendall&#39;s tau A, B:"));
    CHECK(strstr(page, "per doubling: points of the share of full"));
    json_decref(data);
    json_decref(result);
    json_decref(want);
    free(page);
    page = rig_page(&hostile, path, false, &n);
    cut_scripts(page);
    CHECK(strstr(page, "<section id=\"robust\">"));
    CHECK_INT(count(page, "<img"), 0);
    free(page);
    page = rig_page(&plain, path, false, &n);
    CHECK_INT(count(page, "id=\"robust\"") + count(page, "href=\"#robust\""), 0);
    free(page);
}

static void whole_or_not_at_all(void)
{
    const rig_size z = {1, 1, 1, 2, false, 2, false};
    kept_error err = {.text = ""};
    json_t *doc = rig_result(&z);
    const kept_page page = {doc, NULL, NULL, "s.db", NULL};
    char to[128];
    struct stat st;
    snprintf(to, sizeof to, "%s/none/p.html", folder);
    CHECK_INT(kept_report_page(&page, to, &err), KEPT_IO);
    CHECK(strstr(err.text, "No such file"));
    /* a full disk */
    if (!access("/dev/full", W_OK)) {
        snprintf(to, sizeof to, "%s/full", folder);
        char temp[160];
        snprintf(temp, sizeof temp, "%s.%ld.tmp", to, (long)getpid());
        CHECK(!symlink("/dev/full", temp));
        CHECK_INT(kept_report_page(&page, to, &err), KEPT_IO);
        CHECK(strstr(err.text, "No space left"));
        CHECK(lstat(to, &st) && lstat(temp, &st));
    }
    json_decref(doc);
}

/* For the browser: everything, hostile text, a thousand cells, one cell. */
static int write_pages(const char *to)
{
    static const struct {
        const char *name;
        rig_size size;
        bool prompts;
    } pages[] = {{"all.html", {3, 3, 5, 30, false, 5, true}, true},
                 {"hostile.html", {3, 2, 4, 9, true, 4, true}, true},
                 {"big.html", {20, 5, 10, 5, false, 40, false}, true},
                 {"one.html", {1, 1, 1, 1, false, 2, false}, false}};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        char name[512];
        size_t n;
        snprintf(name, sizeof name, "%s/%s", to, pages[i].name);
        free(rig_page(&pages[i].size, name, pages[i].prompts, &n));
    }
    return test_failed;
}

int main(int argc, char **argv)
{
    if (kept_page_ready(NULL))
        SKIP("this kept was built without the script that draws plots");
    if (argc == 3)
        return write_pages(argv[2]);
    if (!mkdtemp(folder))
        SKIP("no room for files");
    snprintf(path, sizeof path, "%s/p.html", folder);
    RUN(verdict_is_that_of_compare);
    RUN(depths_are_means);
    RUN(hostile_text_is_text);
    RUN(nothing_is_loaded);
    RUN(small_and_empty);
    RUN(thousand_cells);
    RUN(robustness);
    RUN(whole_or_not_at_all);
    unlink(path);
    rmdir(folder);
    TEST_END();
}
