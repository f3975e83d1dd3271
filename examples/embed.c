/* embed: the smallest program around libkept. Prefills a prompt, lets a strategy evict, decodes 32
 * tokens greedily, and prints the text and the bytes held beside those of the full cache.
 *
 *     embed model.gguf 'snapkv+ada@25%' "Once upon a time ..."
 */
#include <kept/kept.h>

#include <stdio.h>
#include <string.h>

enum { CHUNK = 256, MAX_PROMPT = 4096, N_NEW = 32 };

static kept_status generate(kept_model *model, kept_engine *engine, kept_seq *seq,
                            const char *prompt, kept_error *err)
{
    static int32_t tokens[MAX_PROMPT];
    int32_t out[N_NEW];
    int n = 0, n_out = 0, n_vocab = kept_model_get_info(model)->n_vocab;
    kept_status st =
        kept_tokenize(model, prompt, strlen(prompt), true, false, tokens, MAX_PROMPT, &n);
    if (st || n == 0) {
        snprintf(err->text, sizeof err->text, "the prompt has %d tokens", n);
        return KEPT_ARGUMENT;
    }
    for (int i = 0; i < n && !st; i += CHUNK) {
        int m = n - i < CHUNK ? n - i : CHUNK, after = n - i - m;
        kept_item chunk = {seq,        tokens + i, m,
                           after == 0, after,      true}; /* logits of the last token */
        st = kept_engine_forward(engine, &chunk, 1, err);
    }
    const float *logits = kept_engine_logits(engine);
    if (!st)
        st = kept_seq_end_prefill(seq, err); /* the strategy evicts here */
    while (!st && n_out < N_NEW) {
        int32_t best = 0;
        for (int32_t i = 1; i < n_vocab; i++)
            best = logits[i] > logits[best] ? i : best;
        if (kept_token_is_end(model, best))
            break;
        out[n_out++] = best;
        kept_item step = {.seq = seq, .tokens = &best, .n_tokens = 1, .n_logits = 1};
        st = kept_engine_forward(engine, &step, 1, err);
        logits = kept_engine_logits(engine);
    }
    char text[4096];
    kept_detokenize(model, out, n_out, false, text, sizeof text);
    puts(text);
    return st;
}

int main(int argc, char **argv)
{
    kept_error err = {0};
    kept_model *model = NULL;
    kept_strategy *strategy = NULL;
    kept_engine *engine = NULL;
    kept_seq *seq = NULL;
    kept_account held;
    kept_engine_options options = {.max_tokens = MAX_PROMPT + N_NEW, .max_batch_tokens = CHUNK};
    if (argc != 4)
        return fprintf(stderr, "usage: embed MODEL.gguf SPEC PROMPT\n"), 2;
    kept_status st = kept_model_open(argv[1], &model, &err);
    st = st ? st : kept_strategy_parse(argv[2], &strategy, &err);
    st = st ? st : kept_engine_new(model, &options, &engine, &err);
    st = st ? st : kept_seq_new(engine, strategy, NULL, 1, &seq, &err);
    st = st ? st : generate(model, engine, seq, argv[3], &err);
    if (st) {
        fprintf(stderr, "embed: %s: %s\n", kept_status_text(st), err.text);
    } else {
        kept_seq_account(seq, &held);
        printf("%s: %.0f bytes of K/V held and %.0f of metadata, full cache %.0f\n",
               kept_strategy_name(strategy), (double)held.kv_bytes, (double)held.meta_bytes,
               (double)kept_full_kv_bytes(kept_model_get_info(model), kept_seq_n_tokens(seq)));
    }
    kept_seq_free(seq);
    kept_engine_free(engine);
    kept_strategy_free(strategy);
    kept_model_free(model);
    return st ? 1 : 0;
}
