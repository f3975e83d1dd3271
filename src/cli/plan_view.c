/* plan_view: see plan_view.h. The table has one line per way of caching and one column per context;
 * the JSON has the same figures as whole bytes. */
#include "cli/plan_view.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define LABEL  40
#define COLUMN 12

static void print_label(FILE *out, const char *lead, const char *name)
{
    int n = fprintf(out, "%s%s", lead, name);
    if (n > LABEL)
        n = fprintf(out, "\n") - 1;
    fprintf(out, "%*s", LABEL - n, "");
}

static uint64_t held_bytes(kept_plan_bytes b)
{
    return b.kv_bytes + b.meta_bytes;
}

/* ---- table --------------------------------------------------------------------------------- */

static void print_model(const kept_plan_view *v, FILE *out)
{
    const kept_model_info *m = &v->info;
    char buf[32];
    double one = 2.0 * m->n_layers * m->n_heads * m->head_size * v->bits / 8;
    fprintf(out, "%s: %d layers, %d query heads, %d KV heads of size %d", m->name, m->n_layers,
            m->n_heads, m->n_kv_heads, m->head_size);
    if (m->sliding_window) {
        int n = 0;
        for (int l = 0; l < m->n_layers; l++)
            n += m->windowed[l];
        fprintf(out, ", window %d on %d layers", m->sliding_window, n);
    }
    fprintf(out,
            "\n2 x layers x heads x head size x tokens x batch x bytes, %d bits, batch %d: %s a "
            "token\n\n",
            v->bits, v->batch, kept_format_decimal(one * v->batch, buf, sizeof buf));
}

static void print_contexts(const kept_plan_view *v, FILE *out, const char *label)
{
    print_label(out, "", label);
    for (int c = 0; c < v->n_contexts; c++)
        fprintf(out, "%*.*s", COLUMN, (int)v->context_len[c], v->context_text[c]);
    fputc('\n', out);
}

static void print_sizes(const kept_plan_view *v, FILE *out)
{
    char buf[32];
    print_contexts(v, out, "computed, not measured");
    print_label(out, "", "tokens in the prompt");
    for (int c = 0; c < v->n_contexts; c++)
        fprintf(out, "%*d", COLUMN, v->context[c]);
    fputc('\n', out);
    for (int r = 0; r < v->n_rows; r++) {
        const kept_plan_row *row = &v->row[r];
        print_label(out, "", v->row_name[r]);
        for (int c = 0; c < v->n_contexts; c++) {
            kept_plan_bytes b = kept_plan_one(row, &v->info, v->context[c]);
            double bytes = (double)held_bytes(b) * v->batch;
            fprintf(out, "%*s", COLUMN, kept_format_decimal(bytes, buf, sizeof buf));
        }
        fputc('\n', out);
        if (row->kind != KEPT_PLAN_STRATEGY || kept_strategy_is_idle(row->strategy))
            continue;
        print_label(out, "  ", "peak, prompts one after another");
        for (int c = 0; c < v->n_contexts; c++) {
            kept_plan_bytes b = kept_plan_one(row, &v->info, v->context[c]);
            double bytes = (double)kept_plan_batch_peak(b, v->batch);
            fprintf(out, "%*s", COLUMN, kept_format_decimal(bytes, buf, sizeof buf));
        }
        fputc('\n', out);
    }
}

static void print_fits(const kept_plan_view *v, FILE *out)
{
    char a[32], b[32], c[32], label[64];
    uint64_t left = v->memory > v->weights ? v->memory - v->weights : 0;
    fprintf(out, "\nmemory %s - weights %s%s = %s for caches\n",
            kept_format_decimal((double)v->memory, a, sizeof a),
            kept_format_decimal((double)v->weights, b, sizeof b),
            v->has_weights ? "" : " (not known: --weights)",
            kept_format_decimal((double)left, c, sizeof c));
    snprintf(label, sizeof label, "longest context at batch %d", v->batch);
    print_label(out, "", label);
    fprintf(out, "%*s\n", COLUMN, "tokens");
    for (int r = 0; r < v->n_rows; r++) {
        int n = kept_plan_longest(&v->row[r], &v->info, v->batch, left);
        print_label(out, "  ", v->row_name[r]);
        if (n == KEPT_PLAN_MAX_TOKENS)
            fprintf(out, "%*s\n", COLUMN, "> 10^9");
        else
            fprintf(out, "%*d\n", COLUMN, n);
    }
    print_contexts(v, out, "largest batch at context");
    for (int r = 0; r < v->n_rows; r++) {
        print_label(out, "  ", v->row_name[r]);
        for (int i = 0; i < v->n_contexts; i++)
            fprintf(out, "%*d", COLUMN,
                    kept_plan_widest(&v->row[r], &v->info, v->context[i], left));
        fputc('\n', out);
    }
}

void kept_plan_print(const kept_plan_view *v, FILE *out)
{
    print_model(v, out);
    print_sizes(v, out);
    if (v->has_memory)
        print_fits(v, out);
    fprintf(
        out,
        "\nTokens: K = 1000, Ki = 1024. Bytes: kB = 1000. Strategies ('full' too): 16 bits or what "
        "a codec\nstores, in pages of 64 slots, with positions, state and lists, once the "
        "prompt is in (prefill\nchunks of %d); one that evicts or packs after prefill peaks at "
        "the full cache or above it.\nBuffers are not counted.\n",
        v->chunk);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static json_t *figures(const kept_plan_view *v, const kept_plan_row *row)
{
    json_t *list = json_array();
    for (int c = 0; c < v->n_contexts; c++) {
        kept_plan_bytes b = kept_plan_one(row, &v->info, v->context[c]);
        uint64_t batch = (uint64_t)v->batch;
        json_array_append_new(list,
                              json_pack("{sI sI sI sI sI}", "context", (json_int_t)v->context[c],
                                        "kv_bytes", (json_int_t)(b.kv_bytes * batch), "meta_bytes",
                                        (json_int_t)(b.meta_bytes * batch), "bytes",
                                        (json_int_t)(held_bytes(b) * batch), "peak_bytes",
                                        (json_int_t)kept_plan_batch_peak(b, v->batch)));
    }
    return list;
}

static json_t *fits(const kept_plan_view *v, const kept_plan_row *row, uint64_t left)
{
    json_t *batches = json_array();
    for (int c = 0; c < v->n_contexts; c++)
        json_array_append_new(batches,
                              json_pack("{sI si}", "context", (json_int_t)v->context[c], "batch",
                                        kept_plan_widest(row, &v->info, v->context[c], left)));
    int n = kept_plan_longest(row, &v->info, v->batch, left);
    json_t *longest = n == KEPT_PLAN_MAX_TOKENS ? json_null() : json_integer(n);
    return json_pack("{so so}", "longest_context", longest, "largest_batch", batches);
}

static json_t *row_json(const kept_plan_view *v, const kept_plan_row *row)
{
    static const char *const kinds[] = {"all_heads", "grouped", "windowed", "strategy"};
    json_t *j = json_pack("{ss so}", "kind", kinds[row->kind], "figures", figures(v, row));
    if (row->kind == KEPT_PLAN_STRATEGY) {
        json_object_set_new(j, "strategy", json_string(kept_strategy_name(row->strategy)));
        json_object_set_new(j, "resolved", json_string(kept_strategy_resolved(row->strategy)));
    }
    if (v->has_memory)
        json_object_set_new(j, "fits",
                            fits(v, row, v->memory > v->weights ? v->memory - v->weights : 0));
    return j;
}

kept_status kept_plan_print_json(const kept_plan_view *v, FILE *out, kept_error *err)
{
    const kept_model_info *m = &v->info;
    json_t *windowed = json_array(), *rows = json_array();
    for (int l = 0; l < m->n_layers; l++)
        if (m->windowed[l])
            json_array_append_new(windowed, json_integer(l));
    json_t *model =
        json_pack("{ss si si si si si so}", "name", m->name, "layers", m->n_layers, "heads",
                  m->n_heads, "kv_heads", m->n_kv_heads, "head_size", m->head_size,
                  "sliding_window", m->sliding_window, "windowed_layers", windowed);
    for (int r = 0; r < v->n_rows; r++)
        json_array_append_new(rows, row_json(v, &v->row[r]));
    json_t *j = json_pack("{sb so si si si so}", "computed", 1, "model", model, "bits", v->bits,
                          "batch", v->batch, "chunk", v->chunk, "rows", rows);
    if (v->has_memory) {
        json_object_set_new(j, "memory_bytes", json_integer((json_int_t)v->memory));
        json_object_set_new(j, "weight_bytes",
                            v->has_weights ? json_integer((json_int_t)v->weights) : json_null());
    }
    char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
    json_decref(j);
    if (!text)
        return kept_fail(err, KEPT_NOMEM, "out of memory for the plan's JSON");
    fprintf(out, "%s\n", text);
    free(text);
    return KEPT_OK;
}
