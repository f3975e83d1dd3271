/* codec_info: what the codecs are called, what they consist of and how many bytes they take. */
#include "kern/codec_words.h"
#include "kern/nuq.h"
#include "kern/slerp.h"

#define P64 KEPT_PAGE_SLOTS

#define S1(b, i) ((b) >> (i)&1 ? -1.0f : 1.0f)
#define S(b)     S1(b, 0), S1(b, 1), S1(b, 2), S1(b, 3), S1(b, 4), S1(b, 5), S1(b, 6), S1(b, 7)
const float kept_codec_signs[256] = {
    S(0xeb), S(0x3a), S(0x30), S(0x07), S(0xc9), S(0xc7), S(0xb8), S(0x1d),
    S(0x77), S(0xb7), S(0x31), S(0xfd), S(0x61), S(0xf7), S(0x89), S(0xb8),
    S(0x17), S(0x3f), S(0x74), S(0xd2), S(0xd6), S(0xd7), S(0xad), S(0x54),
    S(0x2c), S(0xaa), S(0x72), S(0x63), S(0xd9), S(0x0f), S(0x49), S(0x5d),
};
#undef S
#undef S1

/* Lloyd-Max levels of a unit Gaussian (Max 1960), in 1/63 of the largest: .453 1.510, .245 .756
 * 1.344 2.152, .128 .388 .657 .942 1.256 1.618 2.069 2.733. Kernels read all 16 places. */
static const int8_t lloyd2[16] = {-63, -19, 19, 63};
static const int8_t lloyd3[16] = {-63, -39, -22, -7, 7, 22, 39, 63};
static const int8_t lloyd4[16] = {-63, -48, -37, -29, -22, -15, -9, -3,
                                  3,   9,   15,  22,  29,  37,  48, 63};
const int8_t kept_codec_even4[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
static const int8_t plain4[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

#define LOW(name, quarters, basis, inner)                                                          \
    {                                                                                              \
        name, 16, false, false, false, false, NULL, quarters, KEPT_BASIS_##basis, KEPT_##inner,    \
            false, 0                                                                               \
    }
#define NUQ(name, bits, kind)                                                                      \
    {                                                                                              \
        name, bits, false, false, false, false, NULL, 0, 0, 0, false, KEPT_NUQ_##kind              \
    }
const kept_codec_info kept_codec_infos[KEPT_N_CODECS] = {
    [KEPT_F16] = {"f16", 16, false, false, false, false, NULL, 0, 0, 0, false, 0},
    [KEPT_BF16] = {"bf16", 16, false, false, false, false, NULL, 0, 0, 0, false, 0},
    [KEPT_Q8] = {"q8", 8, false, false, false, false, NULL, 0, 0, 0, false, 0},
    [KEPT_Q4] = {"q4", 4, true, false, false, false, kept_codec_even4, 0, 0, 0, false, 0},
    [KEPT_Q4G] = {"q4g", 4, false, true, false, false, kept_codec_even4, 0, 0, 0, false, 0},
    [KEPT_ROT4] = {"rot4", 4, true, false, false, false, lloyd4, 0, 0, 0, false, 0},
    [KEPT_ROT3] = {"rot3", 3, true, false, false, false, lloyd3, 0, 0, 0, false, 0},
    [KEPT_ROT2] = {"rot2", 2, true, false, false, false, lloyd2, 0, 0, 0, false, 0},
    [KEPT_TOK4] = {"tok4", 4, false, true, true, false, plain4, 0, 0, 0, false, 0},
    [KEPT_TOK2] = {"tok2", 2, false, true, true, false, plain4, 0, 0, 0, false, 0},
    [KEPT_CHAN4] = {"chan4", 4, false, false, true, true, plain4, 0, 0, 0, false, 0},
    [KEPT_CHAN2] = {"chan2", 2, false, false, true, true, plain4, 0, 0, 0, false, 0},
    [KEPT_THIN75] = {"thin75", 16, false, false, false, false, NULL, 3, 0, 0, false, 0},
    [KEPT_THIN50] = {"thin50", 16, false, false, false, false, NULL, 2, 0, 0, false, 0},
    [KEPT_THIN25] = {"thin25", 16, false, false, false, false, NULL, 1, 0, 0, false, 0},
    [KEPT_LOW100] = LOW("low100", 4, LOW, F16),
    [KEPT_LOW75] = LOW("low75", 3, LOW, F16),
    [KEPT_LOW50] = LOW("low50", 2, LOW, F16),
    [KEPT_LOW25] = LOW("low25", 1, LOW, F16),
    [KEPT_LOW75Q8] = LOW("low75q8", 3, LOW, Q8),
    [KEPT_LOW50Q8] = LOW("low50q8", 2, LOW, Q8),
    [KEPT_LOW25Q8] = LOW("low25q8", 1, LOW, Q8),
    [KEPT_MINI] = {"mini", 16, false, false, false, false, NULL, 0, 0, 0, true, 0},
    [KEPT_FLAT75] = LOW("flat75", 3, FLAT, F16),
    [KEPT_FLAT50] = LOW("flat50", 2, FLAT, F16),
    [KEPT_FLAT25] = LOW("flat25", 1, FLAT, F16),
    [KEPT_PAIR100] = LOW("pair100", 4, PAIR, F16),
    [KEPT_QUAD100] = LOW("quad100", 4, QUAD, F16),
    [KEPT_PAIR75] = LOW("pair75", 3, PAIR, F16),
    [KEPT_QUAD75] = LOW("quad75", 3, QUAD, F16),
    [KEPT_PAIR50] = LOW("pair50", 2, PAIR, F16),
    [KEPT_QUAD50] = LOW("quad50", 2, QUAD, F16),
    [KEPT_PAIR25] = LOW("pair25", 1, PAIR, F16),
    [KEPT_QUAD25] = LOW("quad25", 1, QUAD, F16),
    [KEPT_NUQ4] = NUQ("nuq4", 4, DENSE),
    [KEPT_NUQ3] = NUQ("nuq3", 3, DENSE),
    [KEPT_NUQ4S] = NUQ("nuq4s", 4, SPARSE),
    [KEPT_NUQ3S] = NUQ("nuq3s", 3, SPARSE),
};
#undef LOW
#undef NUQ

bool kept_codec_fits(kept_codecs c, int head_size, const char **why)
{
    const char *said = NULL;

    if (head_size < 16 || head_size > KEPT_MAX_HEAD_SIZE || head_size % 16)
        said = "the head size is not a multiple of 16 up to 256";
    else if (kept_codec_infos[c.v].channel)
        said = "scales per channel are for keys";
    else if (kept_codec_is_thin(c.v))
        said = "channels are dropped of keys";
    else if (kept_codec_infos[c.v].basis == KEPT_BASIS_FLAT)
        said = "values are not rotated, so low is all there is for them";
    else if (kept_codec_layers(c) != kept_codec_layers((kept_codecs){c.v, c.v}) ||
             kept_codec_infos[c.k].slerp != kept_codec_infos[c.v].slerp)
        said = "a page of several layers holds keys and values of all of them";
    else if (kept_codec_channels(c.k, head_size) % 16 || kept_codec_channels(c.v, head_size) % 16)
        said = "that part of the head size is not a multiple of 16";
    else if ((kept_codec_infos[c.k].grouped || kept_codec_infos[c.v].grouped) && head_size % 32)
        said = "groups of 32 channels do not fill the head size";
    if (why)
        *why = said;
    return !said;
}

int kept_codec_channels(int codec, int head_size)
{
    const int quarters = kept_codec_infos[codec].quarters;

    return quarters ? head_size * quarters / 4 : head_size;
}

const uint8_t *kept_codec_channels_of(const uint8_t *half, int codec, int head_size)
{
    return half + (size_t)(2 * P64) * (size_t)kept_codec_channels(codec, head_size);
}

static size_t n_scales(int codec, int head_size)
{
    const kept_codec_info *f = &kept_codec_infos[codec];
    size_t n = f->channel ? 2 * (size_t)head_size : f->grouped ? 2 * (size_t)head_size : P64;

    return f->bits == 16 ? 0 : f->zero ? 2 * n : n;
}

size_t kept_codec_half_bytes(int codec, bool v, int head_size)
{
    int n = kept_codec_channels(codec, head_size);
    size_t codes = kept_words_bytes(kept_codec_infos[codec].bits, v, n);

    if (kept_codec_infos[codec].slerp)
        return kept_slerp_bytes(head_size);
    if (kept_codec_infos[codec].nuq)
        return kept_nuq_half_bytes(codec, v, head_size);
    if (kept_codec_infos[codec].basis)
        return kept_codec_half_bytes(kept_codec_infos[codec].inner, v, n);
    if (kept_codec_is_thin(codec))
        codes += (size_t)n;
    return (codes + 2 * n_scales(codec, head_size) + 63) / 64 * 64;
}

size_t kept_codec_page_bytes(kept_codecs c, int head_size)
{
    return kept_codec_half_bytes(c.k, false, head_size) +
           kept_codec_half_bytes(c.v, true, head_size);
}

bool kept_codec_has_rows(kept_codecs c)
{
    return !kept_codec_infos[c.k].channel && kept_codec_infos[c.k].nuq != KEPT_NUQ_SPARSE &&
           kept_codec_infos[c.v].nuq != KEPT_NUQ_SPARSE && kept_codec_layers(c) == 1;
}

void kept_codec_choose(const double *sum, int D, int n, uint8_t *channels)
{
    bool stays[KEPT_MAX_HEAD_SIZE] = {false};

    for (int k = 0; k < n; k++) {
        int best = -1;

        for (int d = 0; d < D; d++)
            if (!stays[d] && (best < 0 || sum[d] > sum[best]))
                best = d;
        stays[best] = true;
    }
    for (int d = 0; d < D; d++)
        if (stays[d])
            *channels++ = (uint8_t)d;
}
