/* plan: the memory a cache takes before anything runs, and what fits. */
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/plan_view.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct plan_args {
    kept_plan_view v;
    const char *model;
    kept_model *file; /* opened when model is a path */
    int64_t layers, heads, kv_heads, head_size, window, global_every;
} plan_args;

enum flag {
    MODEL,
    LAYERS,
    HEADS,
    KV_HEADS,
    HEAD_SIZE,
    WINDOW,
    GLOBAL_EVERY,
    CONTEXT,
    BATCH,
    BITS,
    CHUNK,
    STRATEGY,
    MEMORY,
    WEIGHTS,
    FORMAT
};

static const kept_flag flags[] = {
    [MODEL] = {"model", true},
    [LAYERS] = {"layers", true},
    [HEADS] = {"heads", true},
    [KV_HEADS] = {"kv-heads", true},
    [HEAD_SIZE] = {"head-size", true},
    [WINDOW] = {"window", true},
    [GLOBAL_EVERY] = {"global-every", true},
    [CONTEXT] = {"context", true},
    [BATCH] = {"batch", true},
    [BITS] = {"bits", true},
    [CHUNK] = {"chunk", true},
    [STRATEGY] = {"strategy", true},
    [MEMORY] = {"memory", true},
    [WEIGHTS] = {"weights", true},
    [FORMAT] = {"format", true},
};

/* One context: "4000", "4K", "4Ki", "1M"; text[0..len). */
static bool parse_tokens(const char *text, size_t len, int *tokens)
{
    char copy[32];
    uint64_t n;
    if (len == 0 || len >= sizeof copy || text[len - 1] == 'B')
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (kept_parse_size(copy, &n, NULL) || n < 1 || n > KEPT_PLAN_MAX_TOKENS)
        return false;
    *tokens = (int)n;
    return true;
}

static bool parse_contexts(kept_plan_view *v, const char *text)
{
    v->n_contexts = 0;
    for (;;) {
        size_t len = strcspn(text, ",");
        int i = v->n_contexts;
        if (i == KEPT_PLAN_CONTEXTS) {
            kept_usage("plan", "--context takes at most %d lengths", KEPT_PLAN_CONTEXTS);
            return false;
        }
        if (!parse_tokens(text, len, &v->context[i])) {
            kept_usage("plan",
                       "--context wants tokens such as 4000, 4K (1000) or 4Ki (1024), got "
                       "'%.*s'",
                       (int)len, text);
            return false;
        }
        v->context_text[i] = text;
        v->context_len[i] = len;
        v->n_contexts++;
        if (!text[len])
            return true;
        text += len + 1;
    }
}

static bool parse_size(const char *name, const char *text, uint64_t *bytes)
{
    kept_error err;
    if (!kept_parse_size(text, bytes, &err) && *bytes <= INT64_MAX)
        return true;
    kept_usage("plan", "--%s: want a size such as 24GB or 16GiB, got '%s'", name, text);
    return false;
}

static bool add_strategy(kept_plan_view *v, const char *spec)
{
    kept_error err;
    if (v->n_strategies == KEPT_PLAN_STRATEGIES) {
        kept_usage("plan", "--strategy: at most %d of them", KEPT_PLAN_STRATEGIES);
        return false;
    }
    if (kept_strategy_parse(spec, &v->strategy[v->n_strategies], &err)) {
        kept_usage_spec("plan", spec, &err);
        return false;
    }
    v->spec[v->n_strategies++] = spec;
    return true;
}

static bool set_int(const kept_args *a, int f, int max, int *out)
{
    int64_t n;
    if (!kept_args_int(a, flags[f].name, 1, max, &n))
        return false;
    *out = (int)n;
    return true;
}

/* False: the message is on stderr. */
static bool take(plan_args *p, const kept_args *a, int f, bool *json)
{
    kept_plan_view *v = &p->v;
    switch (f) {
    case MODEL:
        p->model = a->value;
        return true;
    case LAYERS:
        return kept_args_int(a, flags[f].name, 1, KEPT_MAX_LAYERS, &p->layers);
    case HEADS:
        return kept_args_int(a, flags[f].name, 1, 1024, &p->heads);
    case KV_HEADS:
        return kept_args_int(a, flags[f].name, 1, 1024, &p->kv_heads);
    case HEAD_SIZE:
        return kept_args_int(a, flags[f].name, 1, 1024, &p->head_size);
    case WINDOW:
        return kept_args_int(a, flags[f].name, 1, KEPT_PLAN_MAX_TOKENS, &p->window);
    case GLOBAL_EVERY:
        return kept_args_int(a, flags[f].name, 1, KEPT_MAX_LAYERS, &p->global_every);
    case CONTEXT:
        return parse_contexts(v, a->value);
    case BATCH:
        return set_int(a, f, KEPT_PLAN_MAX_BATCH, &v->batch);
    case BITS:
        return set_int(a, f, 32, &v->bits);
    case CHUNK:
        return set_int(a, f, 1 << 20, &v->chunk);
    case STRATEGY:
        return add_strategy(v, a->value);
    case MEMORY:
        return v->has_memory = parse_size("memory", a->value, &v->memory);
    case WEIGHTS:
        return v->has_weights = parse_size("weights", a->value, &v->weights);
    default:
        return kept_args_json(a, json);
    }
}

/* ---- the model's shape --------------------------------------------------------------------- */

static int unknown_model(const char *name)
{
    const char *names[64];
    int n = kept_shape_count() < 64 ? kept_shape_count() : 64;
    for (int i = 0; i < n; i++)
        names[i] = kept_shape_name(i);
    int near = kept_nearest(name, strlen(name), names, n);
    if (near >= 0)
        return kept_usage("plan", "no file and no known model is called '%s', did you mean '%s'?",
                          name, names[near]);
    return kept_usage("plan", "no file and no known model is called '%s'", name);
}

static int shape_of_model(plan_args *p)
{
    kept_error err;
    kept_plan_view *v = &p->v;
    if (p->layers || p->heads || p->kv_heads || p->head_size || p->window || p->global_every)
        return kept_usage("plan", "--model already says layers, heads and windows");
    if (kept_shape_get(p->model, &v->info))
        return KEPT_EXIT_OK;
    char path[4096];
    kept_status st = kept_model_path(p->model, path, sizeof path);
    if (st == KEPT_NOT_FOUND)
        return kept_failed("plan", "%s is not here yet; 'kept pull %s' brings it", p->model,
                           p->model);
    if (st || access(path, F_OK))
        return unknown_model(p->model);
    if (kept_model_open(path, &p->file, &err))
        return kept_failed("plan", "%s", err.text);
    v->info = *kept_model_get_info(p->file);
    if (!v->has_weights)
        v->weights = v->info.weight_bytes;
    v->has_weights = true;
    return KEPT_EXIT_OK;
}

static int shape_of_flags(plan_args *p)
{
    kept_error err;
    kept_model_info *m = &p->v.info;
    if (!p->layers || !p->heads || !p->head_size)
        return kept_usage("plan", "give --model NAME|FILE, or --layers, --heads and --head-size");
    if (p->global_every && !p->window)
        return kept_usage("plan", "--global-every needs --window");
    m->n_layers = (int)p->layers;
    m->n_heads = (int)p->heads;
    m->n_kv_heads = (int)(p->kv_heads ? p->kv_heads : p->heads);
    m->head_size = (int)p->head_size;
    snprintf(m->name, sizeof m->name, "model");
    kept_shape_set_window(m, (int)p->window, (int)p->global_every);
    if (kept_shape_check(m, &err))
        return kept_usage("plan", "%s", err.text);
    return KEPT_EXIT_OK;
}

static void add_row(kept_plan_view *v, kept_plan_kind kind, const kept_strategy *s,
                    const char *name)
{
    v->row_name[v->n_rows] = name;
    v->row[v->n_rows++] =
        (kept_plan_row){kind, s, kind == KEPT_PLAN_STRATEGY ? 16 : v->bits, v->chunk};
}

static void lay_rows(kept_plan_view *v, const kept_strategy *full)
{
    add_row(v, KEPT_PLAN_ALL_HEADS, NULL, "all heads cached (the formula)");
    add_row(v, KEPT_PLAN_GROUPED, NULL, "KV heads only (grouped)");
    if (v->info.sliding_window)
        add_row(v, KEPT_PLAN_WINDOWED, NULL, "KV heads, sliding windows applied");
    add_row(v, KEPT_PLAN_STRATEGY, full, "full (in pages, with metadata)");
    for (int i = 0; i < v->n_strategies; i++)
        if (!kept_strategy_is_plain(v->strategy[i]))
            add_row(v, KEPT_PLAN_STRATEGY, v->strategy[i], v->spec[i]);
}

/* Figures must fit 63 bits; a double is exact enough to tell. */
static bool too_large(const kept_plan_view *v)
{
    double most = 0;
    for (int c = 0; c < v->n_contexts; c++)
        for (int r = 0; r < v->n_rows; r++) {
            kept_plan_bytes b = kept_plan_one(&v->row[r], &v->info, v->context[c]);
            double bytes =
                ((double)b.kv_bytes + (double)b.meta_bytes + (double)b.peak_bytes) * v->batch;
            most = bytes > most ? bytes : most;
        }
    return most > 9e18;
}

static int plan(plan_args *p, bool json)
{
    kept_error err;
    kept_strategy *full = NULL;
    int rc = p->model ? shape_of_model(p) : shape_of_flags(p);
    if (rc)
        return rc;
    if (kept_strategy_parse("full", &full, &err))
        return kept_failed("plan", "%s", err.text);
    for (int i = 0; i < p->v.n_strategies && !rc; i++)
        if (kept_strategy_fits(p->v.strategy[i], p->v.info.head_size, &err))
            rc = kept_usage("plan", "%s", err.text);
    if (rc) {
        kept_strategy_free(full);
        return rc;
    }
    lay_rows(&p->v, full);
    if (too_large(&p->v))
        rc = kept_usage("plan", "the figures exceed 2^63 bytes; a smaller --context or --batch?");
    else if (!json)
        kept_plan_print(&p->v, stdout);
    else if (kept_plan_print_json(&p->v, stdout, &err))
        rc = kept_failed("plan", "%s", err.text);
    kept_strategy_free(full);
    return rc;
}

int kept_cmd_plan(int argc, char **argv)
{
    plan_args *p = kept_calloc(1, sizeof *p);
    if (!p)
        return kept_failed("plan", "out of memory");
    p->v.batch = 1;
    p->v.bits = 16;
    p->v.chunk = 512;
    (void)parse_contexts(&p->v, "4K,128K");
    kept_args a = {argc, argv, 1, false, NULL};
    bool json = false;
    int f, rc = KEPT_EXIT_USAGE;
    while ((f = kept_args_next(&a, flags, sizeof flags / sizeof flags[0])) >= 0)
        if (!take(p, &a, f, &json))
            goto out;
    if (f == KEPT_ARG_HELP)
        rc = kept_help_print("plan");
    else if (f == KEPT_ARG_WORD)
        kept_usage("plan", "unexpected '%s'; a model goes after --model", a.value);
    else if (f == KEPT_ARG_END)
        rc = plan(p, json);
out:
    kept_model_free(p->file);
    for (int i = 0; i < p->v.n_strategies; i++)
        kept_strategy_free(p->v.strategy[i]);
    free(p);
    return rc;
}
