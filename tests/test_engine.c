/* test_engine: the forward pass against libllama on random models of all four architectures, and
 * against itself: threads, chunks, batches, instruction sets. */
#include "engine_util.h"
#include "mkgguf.h"
#include "test.h"

#include <llama.h>
#include <unistd.h>

enum { N_PREFILL = 200, N_DECODE = 40 };

static char model_path[4][64];

static const mkgguf_options shapes[4] = {
    {.arch = "llama", .n_layers = 4, .n_embd = 256, .n_ff = 512, .n_heads = 8, .n_kv_heads = 2,
     .head_size = 64, .n_vocab = 512, .type = GGML_TYPE_F32, .seed = 1},
    {.arch = "qwen2", .n_layers = 4, .n_embd = 192, .n_ff = 384, .n_heads = 6, .n_kv_heads = 2,
     .head_size = 80, .n_vocab = 512, .type = GGML_TYPE_F16, .seed = 2, .tied = true},
    {.arch = "qwen3", .n_layers = 4, .n_embd = 256, .n_ff = 512, .n_heads = 4, .n_kv_heads = 4,
     .head_size = 128, .n_vocab = 512, .type = GGML_TYPE_F32, .seed = 3},
    {.arch = "gemma3", .n_layers = 7, .n_embd = 256, .n_ff = 512, .n_heads = 4, .n_kv_heads = 1,
     .head_size = 256, .n_vocab = 512, .type = GGML_TYPE_F32, .seed = 4, .sliding_window = 64,
     .tied = true},
};
