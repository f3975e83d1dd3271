/* split: see kept_matrix. A block of Q4_1 is F16 d and m, then 16 bytes of quants, of Q4_0 F16 d
 * and the same 16 bytes. */
#include "model/model.h"

#include <string.h>

enum { HALF = 2, QUANTS = KEPT_SPLIT_BLOCK / 2, FROM = 2 * HALF + QUANTS, TO = HALF + QUANTS };

void kept_split_weights(const uint8_t *from, int64_t n_blocks, uint8_t *to)
{
    for (int64_t i = 0; i < n_blocks; i++, from += FROM, to += TO) {
        memcpy(to, from, HALF);
        memcpy(to + HALF, from + 2 * HALF, QUANTS);
    }
}

void kept_split_shift(const uint8_t *from, int64_t rows, int64_t blocks_per_row, int64_t width,
                      uint16_t *to)
{
    memset(to, 0, (size_t)(rows * width) * sizeof *to);
    for (int64_t r = 0; r < rows; r++, to += width)
        for (int64_t b = 0; b < blocks_per_row; b++, from += FROM) {
            ggml_fp16_t half[2];
            memcpy(half, from, sizeof half);
            to[b] = ggml_fp32_to_fp16(8 * ggml_fp16_to_fp32(half[0]) + ggml_fp16_to_fp32(half[1]));
        }
}
