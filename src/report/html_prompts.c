/* html_prompts: what only a study has: prompts as text, and which of their tokens were kept. Both
 * are of a few samples: maps of the first sample of every task, prompts of answers that changed,
 * the first of every row, then the second, until there is enough.
 */
#include "report/html.h"

#include "bench/doc.h"
#include "bench/keptmap.h"

#include <stdlib.h>
#include <string.h>

#define MAP_BYTES    200000 /* of all maps in the page */
#define PROMPT_BYTES 250000 /* of all prompts */
#define MOST_LINES   128    /* of a map: beyond, a line is a layer */
#define BINS         64     /* of positions of a map */
#define MOST_FLIPS   6      /* of a row */
#define WHOLE        2600   /* tokens of a prompt that is shown as a whole */
#define HEAD         64     /* of a longer one: what is shown at its begin, ... */
#define TAIL         192    /* ... its end, ... */
#define AROUND       160    /* ... and on both sides of evidence */

static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

typedef struct job {
    const kept_page_study *study;
    const json_t *result, *comparison;
    json_t *samples; /* "task/index": the sample */
    json_t *maps, *prompts;
    json_t *by_name; /* "task/index": its prompt in the page */
    size_t used;
    int n_left_out;
    kept_error *err;
} job;

static void name_of(char name[32], int task, int index)
{
    snprintf(name, 32, "%d/%d", task, index);
}

static const json_t *sample_of(const job *j, int task, int index)
{
    char name[32];
    name_of(name, task, index);
    return json_object_get(j->samples, name);
}

static kept_store_prompt key_of(const job *j, const json_t *sample)
{
    return (kept_store_prompt){.setting = j->study->setting,
                               .index = (int)kept_view_number(sample, "index"),
                               .hash = kept_view_text(sample, "hash")};
}

/* The map of a sample under a row; NOT_FOUND is no error: *map is NULL. */
static kept_status load_map(job *j, const json_t *sample, int variant, uint8_t **map, size_t *bytes)
{
    const kept_store_prompt key = key_of(j, sample);
    const json_t *v = kept_view_at(json_object_get(j->result, "variants"), variant);
    const char *spec = kept_view_text(v, "resolved");
    kept_status s = kept_store_map(j->study->store, &key, spec, map, bytes, j->err);
    return s == KEPT_NOT_FOUND ? KEPT_OK : s;
}

/* ---- maps ----------------------------------------------------------------------------------- */

typedef struct grid {
    int heads, per; /* heads of a layer; heads of a layer that have a line each, 1 or all */
    int seen, n_lines;
    double *share; /* [n_lines][BINS] positions kept, summed over the heads of a line */
} grid;

static void take_grid(void *ctx, const kept_map_run *run)
{
    grid *g = ctx;
    g->seen = run->seen;
    if (run->end <= run->begin || run->seen < 1)
        return;
    const int line = g->per > 1 ? run->layer * g->heads + run->head : run->layer;
    const double width = (double)run->seen / BINS;
    for (int b = (int)(run->begin / width); b < BINS && b * width < run->end; b++) {
        const double from = b * width > run->begin ? b * width : run->begin;
        const double to = (b + 1) * width < run->end ? (b + 1) * width : run->end;
        if (to > from)
            g->share[line * BINS + b] += (to - from) / width;
    }
}

static kept_status draw_grid(const uint8_t *map, size_t bytes, json_t *o, kept_error *err)
{
    int layers = 0, heads = 0;
    kept_status s = kept_map_shape(map, bytes, &layers, &heads, err);
    if (s)
        return s;
    grid g = {.heads = heads, .per = layers * heads <= MOST_LINES ? heads : 1};
    g.n_lines = g.per > 1 ? layers * heads : layers;
    const size_t n = (size_t)g.n_lines * BINS;
    char *text = kept_calloc(n + 1, 1);
    g.share = kept_calloc(n + 1, sizeof *g.share);
    s = text && g.share ? kept_map_runs(map, bytes, take_grid, &g, err)
                        : kept_fail(err, KEPT_NOMEM, "out of memory for a map");
    const double whole = g.per > 1 ? 1 : heads;
    for (size_t i = 0; !s && i < n; i++) {
        const int level = (int)(61 * g.share[i] / whole + 0.5);
        text[i] = digits[level < 0 ? 0 : level > 61 ? 61 : level];
    }
    if (!s) {
        json_object_set_new(o, "lines", json_integer(g.n_lines));
        json_object_set_new(o, "heads", json_integer(g.per));
        json_object_set_new(o, "bins", json_integer(BINS));
        json_object_set_new(o, "seen", json_integer(g.seen));
        json_object_set_new(o, "rows", json_string(text));
    }
    free(text);
    free(g.share);
    return s;
}

static kept_status add_map(job *j, int task, const json_t *sample, int variant, size_t *left)
{
    uint8_t *map = NULL;
    size_t bytes = 0;
    kept_status s = load_map(j, sample, variant, &map, &bytes);
    if (s || !map)
        return s;
    json_t *o = json_object();
    json_object_set_new(o, "task", json_integer(task));
    json_object_set(o, "index", json_object_get(sample, "index"));
    json_object_set_new(o, "variant", json_integer(variant));
    json_object_set(o, "evidence", json_object_get(sample, "evidence"));
    s = draw_grid(map, bytes, o, j->err);
    free(map);
    const size_t size = strlen(kept_view_text(o, "rows")) + 200;
    if (!s && size <= *left) {
        *left -= size;
        json_array_append(j->maps, o);
    }
    json_decref(o);
    return s;
}

static kept_status add_maps(job *j, int task, size_t left)
{
    const json_t *r, *s, *sample = NULL;
    size_t i;
    kept_status st = KEPT_OK;
    json_array_foreach(json_object_get(j->result, "samples"), i, s)
    {
        if (!sample && kept_view_number(s, "task") == task)
            sample = s;
    }
    json_array_foreach(json_object_get(j->comparison, "rows"), i, r)
    {
        if (!st && sample && left > 400 && kept_view_number(r, "task_index") == task)
            st = add_map(j, task, sample, (int)kept_view_number(r, "after_index"), &left);
    }
    return st;
}

/* ---- prompts -------------------------------------------------------------------------------- */

/* Text of token i; what stands before it decides whether it begins with a blank. */
static json_t *piece(const kept_model *m, const int32_t *tokens, int i)
{
    char pair[1024];
    const int from = i ? i - 1 : 0;
    const size_t before = i ? kept_detokenize(m, tokens + from, 1, true, pair, sizeof pair) : 0;
    kept_detokenize(m, tokens + from, i - from + 1, true, pair, sizeof pair);
    return kept_doc_clean(before < sizeof pair ? pair + before : "");
}

/* Which tokens of a long prompt are shown. */
static void choose(const json_t *sample, bool *show, int n)
{
    const json_t *span;
    size_t i;
    for (int p = 0; p < n; p++)
        show[p] = n <= WHOLE || p < HEAD || p >= n - TAIL;
    json_array_foreach(json_object_get(sample, "evidence"), i, span)
    {
        const int from = (int)json_integer_value(json_array_get(span, 0)) - AROUND;
        const int to = (int)json_integer_value(json_array_get(span, 1)) + AROUND;
        for (int p = from < 0 ? 0 : from; p < to && p < n; p++)
            show[p] = true;
    }
}

static json_t *parts_json(const kept_model *m, const int32_t *tokens, const bool *show, int n)
{
    json_t *parts = json_array(), *list = NULL;
    for (int p = 0; p < n; p++) {
        if (!show[p])
            continue;
        if (!p || !show[p - 1]) {
            json_t *part = json_object();
            json_object_set_new(part, "at", json_integer(p));
            list = json_array();
            json_object_set_new(part, "tokens", list);
            json_array_append_new(parts, part);
        }
        json_array_append_new(list, piece(m, tokens, p));
    }
    return parts;
}

static kept_status new_prompt(job *j, int task, const json_t *sample, json_t **out)
{
    const kept_store_prompt key = key_of(j, sample);
    int32_t *tokens = NULL;
    int n_prefix = 0, n = 0;
    char asked[700];
    *out = NULL;
    kept_status s = kept_store_tokens(j->study->store, &key, &tokens, &n_prefix, &n, j->err);
    if (s)
        return s == KEPT_NOT_FOUND ? KEPT_OK : s;
    bool *show = kept_calloc((size_t)n_prefix + 1, sizeof *show);
    if (show) {
        json_t *o = json_object();
        const int n_asked = n - n_prefix < 150 ? n - n_prefix : 150;
        choose(sample, show, n_prefix);
        kept_detokenize(j->study->model, tokens + n_prefix, n_asked, true, asked, sizeof asked);
        json_object_set_new(o, "task", json_integer(task));
        json_object_set(o, "index", json_object_get(sample, "index"));
        json_object_set_new(o, "n", json_integer(n_prefix));
        json_object_set(o, "evidence", json_object_get(sample, "evidence"));
        json_object_set_new(o, "asked", kept_doc_clean(asked));
        json_object_set_new(o, "parts", parts_json(j->study->model, tokens, show, n_prefix));
        json_object_set_new(o, "kept", json_array());
        *out = o;
    }
    free(show);
    free(tokens);
    return *out ? KEPT_OK : kept_fail(j->err, KEPT_NOMEM, "out of memory for a prompt");
}

typedef struct counts {
    int n, n_heads;
    int *kept; /* [n] heads that keep a position */
} counts;

static void take_counts(void *ctx, const kept_map_run *run)
{
    counts *c = ctx;
    c->n_heads += run->end == run->begin;
    for (int p = run->begin; p < run->end && p < c->n; p++)
        c->kept[p]++;
}

/* Adds what a row kept of a prompt: a digit for each token that is shown, 0 only for no head, 9
 * only for all. */
static kept_status add_kept(job *j, const json_t *sample, int variant, json_t *prompt)
{
    uint8_t *map = NULL;
    size_t bytes = 0, i, k, at = 0;
    const json_t *part, *token;
    kept_status s = load_map(j, sample, variant, &map, &bytes);
    if (s || !map)
        return s;
    counts c = {.n = (int)kept_view_number(prompt, "n")};
    char *text = kept_calloc((size_t)c.n + 1, 1);
    c.kept = kept_calloc((size_t)c.n + 1, sizeof *c.kept);
    s = text && c.kept ? kept_map_runs(map, bytes, take_counts, &c, j->err)
                       : kept_fail(j->err, KEPT_NOMEM, "out of memory for a prompt");
    json_array_foreach(json_object_get(prompt, "parts"), i, part)
    {
        const int from = (int)kept_view_number(part, "at");
        json_array_foreach(json_object_get(part, "tokens"), k, token)
        {
            const int x = !s ? c.kept[from + (int)k] : 0;
            text[at++] = (char)('0' + (x ? 1 + 8 * x / (c.n_heads ? c.n_heads : 1) : 0));
        }
    }
    if (!s)
        json_array_append_new(json_object_get(prompt, "kept"),
                              json_pack("{siss}", "variant", variant, "share", text));
    free(text);
    free(c.kept);
    free(map);
    return s;
}

static kept_status add_flip(job *j, int task, int variant, const json_t *flip)
{
    char name[32];
    const int index = (int)kept_view_number(flip, "index");
    const json_t *sample = sample_of(j, task, index);
    name_of(name, task, index);
    json_t *prompt = json_object_get(j->by_name, name);
    kept_status s = KEPT_OK;
    if (!sample || j->used > PROMPT_BYTES) {
        j->n_left_out++;
        return KEPT_OK;
    }
    if (!prompt) {
        if ((s = new_prompt(j, task, sample, &prompt)) || !prompt)
            return s;
        json_object_set_new(j->by_name, name, prompt);
        json_array_append(j->prompts, prompt);
        j->used += json_dumpb(prompt, NULL, 0, JSON_COMPACT);
    }
    j->used += (size_t)kept_view_number(prompt, "n");
    return add_kept(j, sample, variant, prompt);
}

static kept_status add_flips(job *j)
{
    const json_t *r;
    size_t i;
    kept_status s = KEPT_OK;
    for (size_t k = 0; k < MOST_FLIPS; k++)
        json_array_foreach(json_object_get(j->comparison, "rows"), i, r)
        {
            const json_t *flip = json_array_get(json_object_get(r, "flips"), k);
            if (!s && flip)
                s = add_flip(j, (int)kept_view_number(r, "task_index"),
                             (int)kept_view_number(r, "after_index"), flip);
        }
    return s;
}

kept_status kept_page_prompts(const kept_page_study *study, const json_t *result,
                              const json_t *comparison, json_t **out, kept_error *err)
{
    job j = {.study = study, .result = result, .comparison = comparison, .err = err};
    const size_t n_tasks = json_array_size(json_object_get(result, "tasks"));
    const json_t *sample;
    char name[32];
    size_t i;
    kept_status s = KEPT_OK;
    j.samples = json_object();
    j.by_name = json_object();
    j.maps = json_array();
    j.prompts = json_array();
    json_array_foreach(json_object_get(result, "samples"), i, sample)
    {
        name_of(name, (int)kept_view_number(sample, "task"),
                (int)kept_view_number(sample, "index"));
        json_object_set(j.samples, name, (json_t *)(uintptr_t)sample);
    }
    for (size_t t = 0; !s && t < n_tasks; t++)
        s = add_maps(&j, (int)t, MAP_BYTES / n_tasks);
    if (!s && study->model)
        s = add_flips(&j);
    *out = s ? NULL : json_pack("{sOsO}", "maps", j.maps, "prompts", j.prompts);
    if (!s && !*out)
        s = kept_fail(err, KEPT_NOMEM, "out of memory for prompts");
    if (!s && study->note)
        json_object_set_new(*out, "note", json_string(study->note));
    json_decref(j.samples);
    json_decref(j.by_name);
    json_decref(j.maps);
    json_decref(j.prompts);
    return s;
}
