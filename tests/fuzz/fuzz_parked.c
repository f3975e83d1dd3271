/* fuzz_parked: any bytes as a parked sequence, and as the frame of one whose head and checksum fit
 * the engine. What resumes must go on: a token is decoded under its strategy, and it parks again.
 */
#include "base/base.h"
#include "../mkgguf.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static kept_engine *engine;
static kept_strategy *strategy[2];
static char head[80]; /* magic, model, newline */
static size_t n_head;

static void set_up(void)
{
    static kept_model *model;
    mkgguf_spec spec = mkgguf_default("llama");
    kept_engine_options o = {.n_threads = 1, .max_tokens = 256, .pool_bytes = (size_t)2 << 20};
    char *path = mkgguf_temp(), hex[65];
    spec.n_layers = 2;
    require(path && !mkgguf_write(path, &spec) && !kept_model_open(path, &model, NULL));
    require(!kept_model_sha256(model, hex, NULL) && !kept_engine_new(model, &o, &engine, NULL));
    unlink(path);
    free(path);
    require(!kept_strategy_parse("h2o+decode(every=1)@50", &strategy[1], NULL));
    n_head = (size_t)snprintf(head, sizeof head, "kept-parked %d\n%s\n", KEPT_PARK_VERSION, hex);
}

static void resume(const void *data, size_t n)
{
    for (int i = 0; i < 2; i++) {
        const int32_t token = 5;
        kept_seq *s = NULL;
        kept_error err = {.text = ""};
        void *again = NULL;
        size_t n_again;
        if (kept_seq_resume(engine, strategy[i], data, n, &s, &err)) {
            require(!s && err.text[0]);
            continue;
        }
        kept_item it = {.seq = s, .tokens = &token, .n_tokens = 1};
        if (kept_seq_n_tokens(s) < 256)
            (void)kept_engine_forward(engine, &it, 1, &err);
        require(!kept_seq_park(s, &again, &n_again, &err));
        free(again);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!engine)
        set_up();
    resume(data, n);
    const size_t room = ZSTD_compressBound(n);
    char *whole = malloc(n_head + room + 65);
    require(whole != NULL);
    memcpy(whole, head, n_head);
    const size_t frame = ZSTD_compress(whole + n_head, room, data, n, 1);
    kept_sha256(whole, n_head + frame, whole + n_head + frame);
    resume(whole, n_head + frame + 64);
    free(whole);
    return 0;
}
