/* model: opening and closing, in the order check, weights, tokenizer. Nothing in a file reaches
 * ggml or libllama before gguf_check.c has walked all of it. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

kept_status kept_model_open(const char *path, kept_model **out, kept_error *err)
{
    if (out)
        *out = NULL;
    if (!path || !out)
        return kept_fail(err, KEPT_ARGUMENT,
                         "kept_model_open needs a path and a place for the model");
    kept_ggml_start();
    kept_status s = kept_gguf_check(path, err);
    if (s != KEPT_OK)
        return s;
    kept_model *m = kept_calloc(1, sizeof *m);
    if (m)
        m->path = strdup(path);
    if (!m || !m->path) {
        s = kept_fail(err, KEPT_NOMEM, "out of memory opening %.200s", path);
        goto out;
    }
    kept_error inner;
    s = kept_weights_load(m, true, &inner);
    if (s != KEPT_OK)
        kept_fail(err, s, "%.160s: %.300s", path, inner.text);
    else
        s = kept_vocab_open(m, err);
out:
    if (s == KEPT_OK)
        *out = m;
    else
        kept_model_free(m);
    return s;
}

kept_status kept_vocab_load(const char *path, kept_model **out, kept_error *err)
{
    *out = NULL;
    kept_ggml_start();
    kept_status s = kept_gguf_check(path, err);
    if (s != KEPT_OK)
        return s;
    kept_model *m = kept_calloc(1, sizeof *m);
    struct gguf_init_params p = {.no_alloc = true};
    struct gguf_context *g = gguf_init_from_file(path, p);
    if (m)
        m->path = strdup(path);
    if (!m || !m->path)
        s = kept_fail(err, KEPT_NOMEM, "out of memory opening %.200s", path);
    else if (!g)
        s = kept_fail(err, KEPT_FORMAT, "%.200s: ggml cannot read it", path);
    else
        s = kept_hparams_read(m, g, err);
    gguf_free(g);
    if (s == KEPT_OK)
        s = kept_vocab_open(m, err);
    if (s == KEPT_OK)
        *out = m;
    else
        kept_model_free(m);
    return s;
}

void kept_model_free(kept_model *m)
{
    if (!m)
        return;
    kept_vocab_free(m);
    kept_weights_free(m);
    free(m->layers);
    free(m->path);
    free(m);
}

const kept_model_info *kept_model_get_info(const kept_model *m)
{
    return &m->info;
}

kept_status kept_model_sha256(kept_model *m, char hex[65], kept_error *err)
{
    if (!m->sha256[0]) {
        char sum[65];
        kept_status s = kept_sha256_file(m->path, sum, err);
        if (s != KEPT_OK)
            return s;
        memcpy(m->sha256, sum, sizeof sum);
    }
    memcpy(hex, m->sha256, sizeof m->sha256);
    return KEPT_OK;
}
