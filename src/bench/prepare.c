/* prepare: everything that must be known before the engine exists: the strategies, the longest
 * sample (all samples are tokenized once for that) and the size of the page pool.
 */
#include "bench/job.h"
#include "bench/sizes.h"

#include "policy/strategy.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_SLOTS   64
#define REGION_PAGES 32             /* f16 pages' bytes that pages of one size come in */
#define PACKED_SIZES 4              /* different sizes of pages of one strategy */
#define SPARE_SLOTS  2 * PAGE_SLOTS /* per head: a half-used last page, a copied shared page */
#define MEMORY_SHARE 0.7            /* of the free memory: what the pool may take at most */

/* ---- variants ------------------------------------------------------------------------------- */

static bool known(const kept_job *j, const char *name)
{
    for (int v = 0; v < j->n_variants; v++)
        if (j->variants[v].strategy && !strcmp(kept_strategy_name(j->variants[v].strategy), name))
            return true;
    return false;
}

static kept_status prepare_capture(kept_job *j, kept_error *err)
{
    const kept_strategy **list = kept_calloc((size_t)j->n_variants, sizeof(void *));
    if (!list)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    int n = 0;
    for (int v = 0; v < j->n_variants; v++)
        if (j->variants[v].strategy && !j->variants[v].own_prefill)
            list[n++] = j->variants[v].strategy;
    kept_status s = kept_capture_union(list, n, &j->capture, err);
    free(list);
    if (s)
        return s;
    /* The probe's plane starts empty at the fork, but its window must be one the prefix has. */
    kept_capture *c = &j->capture;
    j->probe = !kept_capture_add(c, KEPT_PROBE, NULL);
    return KEPT_OK;
}

kept_status kept_prepare_variants(kept_job *j, kept_error *err)
{
    if (j->o->n_specs > KEPT_MAX_ROWS - KEPT_FIRST_VARIANT)
        return kept_fail(err, KEPT_ARGUMENT, "at most %d strategies in one run",
                         KEPT_MAX_ROWS - KEPT_FIRST_VARIANT);
    j->variants = kept_calloc((size_t)j->o->n_specs + KEPT_FIRST_VARIANT, sizeof *j->variants);
    if (!j->variants)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    j->variants[KEPT_VARIANT_FULL].name = "full";
    j->variants[KEPT_VARIANT_FLOOR].name = "full (again)";
    j->n_variants = KEPT_FIRST_VARIANT;
    for (int i = 0; i < j->o->n_specs; i++) {
        kept_strategy *s;
        kept_status status = kept_strategy_parse(j->o->specs[i], &s, err);
        if (status)
            return status;
        if (kept_strategy_is_plain(s) || known(j, kept_strategy_name(s))) {
            kept_strategy_free(s);
            continue;
        }
        j->variants[j->n_variants++] = (kept_variant){
            .name = j->o->specs[i],
            .strategy = s,
            .own_prefill = kept_strategy_acts_on_chunks(s) || kept_strategy_when(s).layers,
            .whole = kept_strategy_when(s).layers,
        };
    }
    return prepare_capture(j, err);
}

/* ---- tasks ---------------------------------------------------------------------------------- */

/* How many copies of a sequence a sample needs at once: branch.c. */
static int levels_of(const kept_run_task *t, const kept_sample *s, const kept_tokens *k)
{
    bool label = false;
    for (int i = 0; i < s->n_turns; i++)
        label = label || k->turns[i].longest > 1;
    return (s->n_turns > 1 && kept_task_turn_mode(t->task) != KEPT_TURNS_OWN) + label;
}

static kept_status size_sample(kept_run_task *rt, int i, kept_sample_size *out, kept_error *err)
{
    kept_sample sample = {0};
    kept_tokens tokens = {0};
    *out = (kept_sample_size){.n_new = 0};
    kept_status s = kept_task_get(rt->task, i, &sample, err);
    if (!s)
        s = kept_task_tokenize(rt->task, i, &sample, &tokens, err);
    if (!s) {
        for (int k = 0; k < sample.n_turns; k++)
            out->n_new += sample.turns[k].max_new_tokens;
        memcpy(out->hash, tokens.hash, sizeof out->hash);
        out->n_prefix = tokens.n_prefix;
        out->n_suffix = tokens.n_suffix;
        out->after = kept_task_room(rt->task, &sample, &tokens);
        out->levels = levels_of(rt, &sample, &tokens);
    }
    kept_sample_clear(&sample);
    kept_tokens_clear(&tokens);
    return s;
}

static kept_status count_sample(kept_job *j, int t, int i, const kept_sample_size *x,
                                kept_error *err)
{
    kept_run_task *rt = &j->tasks[t];
    const bool speed = i < j->o->speed_samples;
    const int timed = speed ? j->speed_steps + 2 : 0;
    const int total = x->n_prefix + (x->after > timed ? x->after : timed) + 1;
    if (total > j->info->n_ctx_train)
        return kept_fail(err, KEPT_ARGUMENT,
                         "%s: sample %d needs %d tokens, the model was made for %d; use a shorter "
                         "length",
                         kept_task_label(rt->task), i, total, j->info->n_ctx_train);
    memcpy(rt->hash[i], x->hash, sizeof rt->hash[i]);
    j->max_tokens = total > j->max_tokens ? total : j->max_tokens;
    j->max_prefix = x->n_prefix > j->max_prefix ? x->n_prefix : j->max_prefix;
    j->max_levels = x->levels > j->max_levels ? x->levels : j->max_levels;
    int own = 0;
    for (int v = 0; v < j->n_variants; v++)
        own += j->variants[v].own_prefill;
    rt->weight[i] = (double)x->n_prefix * (1 + own) +
                    (double)j->n_variants * (x->n_suffix + x->n_new / 2.0) +
                    (speed ? 2.0 * j->speed_steps * j->n_variants : 0);
    j->total += rt->weight[i];
    return KEPT_OK;
}

static kept_status open_task(kept_job *j, kept_run_task *rt, const kept_task_options *o,
                             kept_error *err)
{
    kept_task_close(rt->task);
    rt->task = NULL;
    return kept_task_open(o, j->model, &rt->task, err);
}

/* Whether remembered sizes are those of the prompts that this program makes: looks at the first,
 * the middle and the last sample. What it does not see is seen when the sample is run. */
static bool still_true(kept_run_task *rt, const kept_sample_size *size, int n)
{
    if (n != kept_task_n_samples(rt->task))
        return false;
    for (int k = 0; k < 3; k++) {
        const int i = k * (n - 1) / 2;
        kept_sample_size now;
        if (size_sample(rt, i, &now, NULL) || strcmp(now.hash, size[i].hash) ||
            now.after != size[i].after || now.n_prefix != size[i].n_prefix)
            return false;
    }
    return true;
}

/* Opens the task and has the size of every sample, from the sink if it remembers them. */
static kept_status size_task(kept_job *j, kept_run_task *rt, kept_sample_size **size,
                             kept_error *err)
{
    kept_task_options o = rt->options;
    int n = 0;
    char *key = kept_sizes_key(j, rt, err);
    kept_status s = key ? kept_sizes_recall(j, key, size, &n, err) : KEPT_NOMEM;
    o.sized = *size;
    if (!s)
        s = open_task(j, rt, &o, err);
    if (!s && *size && !still_true(rt, *size, n)) {
        free(*size);
        *size = NULL;
        s = open_task(j, rt, &rt->options, err);
    }
    if (!s && !*size) {
        n = kept_task_n_samples(rt->task);
        *size = kept_calloc((size_t)n + 1, sizeof **size);
        s = *size ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
        for (int i = 0; !s && i < n; i++)
            s = size_sample(rt, i, *size + i, err);
        if (!s)
            s = kept_sizes_remember(j, key, *size, n, err);
    }
    free(key);
    return s;
}

static kept_status prepare_task(kept_job *j, int t, kept_error *err)
{
    kept_run_task *rt = &j->tasks[t];
    kept_sample_size *size = NULL;
    kept_status s = KEPT_OK;
    if (rt->options.file)
        s = kept_sha256_file(rt->options.file, rt->file_sha256, err);
    if (!s)
        s = size_task(j, rt, &size, err);
    if (!s) {
        rt->kind = kept_task_get_kind(rt->task);
        rt->options.chat &= rt->kind == KEPT_TASK_GENERATE;
        rt->options.query_aware &= rt->kind == KEPT_TASK_GENERATE;
        rt->n_samples = kept_task_n_samples(rt->task);
        rt->weight = kept_calloc((size_t)rt->n_samples, sizeof *rt->weight);
        rt->hash = kept_calloc((size_t)rt->n_samples, sizeof *rt->hash);
        s = rt->weight && rt->hash ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
    }
    for (int i = 0; !s && i < rt->n_samples; i++)
        s = count_sample(j, t, i, &size[i], err);
    free(size);
    return s;
}

kept_status kept_prepare_tasks(kept_job *j, kept_error *err)
{
    j->tasks = kept_calloc((size_t)j->o->n_tasks, sizeof *j->tasks);
    if (!j->tasks)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    size_t n;
    bool template = j->o->auto_chat && !kept_chat_format(j->model, NULL, "?", NULL, 0, &n, NULL);
    kept_status s = KEPT_OK;
    for (int t = 0; !s && t < j->o->n_tasks; t++) {
        j->tasks[t].options = j->o->tasks[t];
        j->tasks[t].options.chat |= template;
        s = prepare_task(j, t, err);
    }
    return s;
}

/* ---- pool ----------------------------------------------------------------------------------- */

/* The smallest number on a line "name: 123 kB" of a /proc or cgroup file; UINT64_MAX: not there. */
static uint64_t read_number(const char *path, const char *name, uint64_t unit)
{
    char line[256];
    uint64_t found = UINT64_MAX;
    FILE *f = fopen(path, "r");
    size_t len = strlen(name);
    while (f && fgets(line, sizeof line, f)) {
        char *end;
        if (strncmp(line, name, len))
            continue;
        unsigned long long x = strtoull(line + len, &end, 10);
        if (end != line + len && x < UINT64_MAX / unit)
            found = x * unit;
        break;
    }
    if (f)
        fclose(f);
    return found;
}

uint64_t kept_free_memory(void)
{
    uint64_t most = read_number("/proc/meminfo", "MemAvailable:", 1024);
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max", "", 1);
    uint64_t used = read_number("/sys/fs/cgroup/memory.current", "", 1);
    uint64_t cached = read_number("/sys/fs/cgroup/memory.stat", "inactive_file ", 1);
    if (limit != UINT64_MAX && used != UINT64_MAX) {
        used -= cached < used ? cached : 0; /* files in memory make room when asked to */
        uint64_t left = limit > used ? limit - used : 0;
        most = left < most ? left : most;
    }
    return most;
}

/* Pages of a cache that holds `slots` slots in each head of a layer, windowed layers their own. */
static double pages(const kept_job *j, double slots)
{
    const kept_model_info *m = j->info;
    double sum = 0;
    for (int l = 0; l < m->n_layers; l++) {
        double n = m->windowed[l] ? (double)m->sliding_window + j->chunk : slots;
        n = n < j->max_tokens ? n : j->max_tokens;
        sum += m->n_kv_heads * ((n + SPARE_SLOTS) / PAGE_SLOTS + 1);
    }
    return sum;
}

/* What a variant holds besides the shared prefix once its prompt is in, in F16 pages; *more: what
 * it holds on top of that while it evicts and packs, before all pages are as they will be stored.
 */
static double own_pages(const kept_job *j, const kept_variant *x, double *more)
{
    const kept_model_info *m = j->info;
    const double heads = (double)m->n_layers * m->n_kv_heads, after = j->max_tokens - j->max_prefix;
    const kept_strategy *s = x->strategy;
    *more = 0;
    /* Who only reads in another way shares all of the prefix; who is parked comes back with pages
     * of his own. */
    if (kept_strategy_is_idle(s) && !kept_strategy_rest(s).parks)
        return pages(j, after + (x->own_prefill ? j->chunk : 0));
    const int64_t slots =
        kept_strategy_budget_slots(s, m->n_layers, m->n_kv_heads, m->head_size, j->max_tokens);
    const double all = pages(j, (double)slots / heads + after + (x->own_prefill ? j->chunk : 0));
    int n = 0; /* layers that evict: the others stay F16 */
    for (int l = 0; l < m->n_layers; l++)
        n += !m->windowed[l];
    if (s->n_states || !kept_strategy_packs(s) || !n)
        return all;
    const double spends = kept_form_spends(s, n, m->n_kv_heads, m->head_size, j->max_tokens);
    const uint64_t held = (uint64_t)((double)slots * n / m->n_layers);
    const double bytes =
        spends > 0 ? spends : (double)kept_strategy_bytes(s, n, m->n_kv_heads, m->head_size, held);
    /* Pages of a size come in regions, of which one may be nearly empty. */
    const double stored = bytes / (256.0 * m->head_size) + PACKED_SIZES * REGION_PAGES;
    const double most = all - pages(j, after);
    *more = most > stored ? most - stored : 0;
    return stored < most ? all - most + stored : all;
}

kept_status kept_prepare_pool(kept_job *j, kept_error *err)
{
    const kept_model_info *m = j->info;
    double after = j->max_tokens - j->max_prefix, most_more = 0;
    /* The shared prefix, the reference's and the floor's own tails, and those of copies. */
    double sum = pages(j, j->max_tokens) + 2 * pages(j, after);
    sum += pages(j, j->max_prefix / 8.0 + after); /* the short context */
    sum += (double)j->n_variants * j->max_levels * pages(j, after);
    j->echo_room = kept_look_ahead_room(j);
    sum += j->echo_room ? pages(j, j->echo_room) : 0;
    for (int v = KEPT_FIRST_VARIANT; v < j->n_variants; v++) {
        const kept_variant *x = &j->variants[v];
        kept_status s = kept_strategy_fits(x->strategy, m->head_size, err);
        if (!s)
            s = kept_strategy_leaves_some(x->strategy, m->n_layers, m->n_kv_heads, m->head_size,
                                          j->max_prefix, err);
        if (s)
            return s;
        double more;
        sum += own_pages(j, x, &more);
        most_more = more > most_more ? more : most_more; /* one after the other */
        sum += x->whole ? (double)m->n_kv_heads * j->max_tokens / PAGE_SLOTS : 0;
    }
    sum += most_more;
    double bytes = sum * PAGE_SLOTS * m->head_size * 4.0; /* K and V in f16 */
    double most = (double)kept_free_memory() * MEMORY_SHARE;
    if (j->o->pool_bytes) {
        j->pool_bytes = j->o->pool_bytes;
        return KEPT_OK;
    }
    if (bytes > most) {
        char need[32], have[32];
        return kept_fail(err, KEPT_NOMEM,
                         "the caches of %d strategies need %s, but only %s may be used; run fewer "
                         "strategies, a shorter length, or set --pool",
                         j->n_variants, kept_format_bytes((uint64_t)bytes, need, sizeof need),
                         kept_format_bytes((uint64_t)most, have, sizeof have));
    }
    j->pool_bytes = (size_t)bytes;
    return KEPT_OK;
}
