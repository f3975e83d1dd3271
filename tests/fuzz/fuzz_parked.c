/* fuzz_parked: any bytes as a parked sequence, as the frame of one whose head and checksum fit the
 * engine, and as changes to the frames of two that are sound, one of them parked in few bits. What
 * resumes must go on: a token is decoded under its strategy, and it parks again.
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

enum { N_TOKENS = 150 };
static kept_engine *engine;
static kept_strategy *strategy[3];
static uint8_t *sound[3]; /* frames under strategies 1 and 2 */
static size_t n_sound[3];
static char head[80]; /* magic, model, newline */
static size_t n_head;

/* The frame of a prompt parked under strategy i. */
static void park(int i)
{
    int32_t tokens[N_TOKENS];
    kept_seq *s = NULL;
    void *data = NULL;
    size_t n = 0;
    for (int t = 0; t < N_TOKENS; t++)
        tokens[t] = 3 + t % 90;
    require(!kept_seq_new(engine, strategy[i], NULL, 1, &s, NULL) &&
            !kept_seq_prefill(s, tokens, N_TOKENS, 0, 0, NULL) && !kept_seq_end_prefill(s, NULL) &&
            !kept_seq_park(s, &data, &n, NULL));
    const uint8_t *frame = (const uint8_t *)data + n_head;
    n_sound[i] = (size_t)ZSTD_getFrameContentSize(frame, n - n_head - 64);
    sound[i] = malloc(n_sound[i]);
    require(sound[i] &&
            ZSTD_decompress(sound[i], n_sound[i], frame, n - n_head - 64) == n_sound[i]);
    free(data);
}

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
    require(!kept_strategy_parse("full+park(bits=3,first=0,last=8)", &strategy[2], NULL));
    n_head = (size_t)snprintf(head, sizeof head, "kept-parked %d\n%s\n", KEPT_PARK_VERSION, hex);
    park(1);
    park(2);
}

static void resume(int i, const void *data, size_t n)
{
    const int32_t token = 5;
    kept_seq *s = NULL;
    kept_error err = {.text = ""};
    void *again = NULL;
    size_t n_again;
    if (kept_seq_resume(engine, strategy[i], data, n, &s, &err)) {
        require(!s && err.text[0]);
        return;
    }
    kept_item it = {.seq = s, .tokens = &token, .n_tokens = 1};
    if (kept_seq_n_tokens(s) < 256)
        (void)kept_engine_forward(engine, &it, 1, &err);
    require(!kept_seq_park(s, &again, &n_again, &err));
    free(again);
}

static void resume_frame(int i, const uint8_t *raw, size_t n)
{
    const size_t room = ZSTD_compressBound(n);
    char *whole = malloc(n_head + room + 65);
    require(whole != NULL);
    memcpy(whole, head, n_head);
    const size_t frame = ZSTD_compress(whole + n_head, room, raw, n, 1);
    kept_sha256(whole, n_head + frame, whole + n_head + frame);
    resume(i, whole, n_head + frame + 64);
    free(whole);
}

/* Five bytes each: where, from the front or the end, and what. */
static void resume_changed(int i, const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n_sound[i]);
    require(copy != NULL);
    memcpy(copy, sound[i], n_sound[i]);
    for (size_t k = 0; k + 5 <= n; k += 5) {
        const size_t at =
            (data[k] | (size_t)data[k + 1] << 8 | (size_t)data[k + 2] << 16) % n_sound[i];
        copy[data[k + 3] & 1 ? at : n_sound[i] - 1 - at] = data[k + 4];
    }
    resume_frame(i, copy, n_sound[i]);
    free(copy);
}

/* The first byte says what is done with the others, and under which strategy it is resumed. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!engine)
        set_up();
    if (!n)
        return 0;
    const int i = data[0] % 3;
    switch (data[0] / 3 % 4) {
    case 0:
        resume(i, data + 1, n - 1);
        break;
    case 1:
        resume_frame(i, data + 1, n - 1);
        break;
    default:
        resume_changed(i ? i : 1, data + 1, n - 1);
    }
    return 0;
}
