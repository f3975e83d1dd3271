/* Packing by every level against plain C, which test_kern_codec holds to the definition: bit for
 * bit, all codecs and head sizes, ordinary pages and extreme ones. */
#include "kern/impl.h"
#include "test.h"

enum { P64 = KEPT_PAGE_SLOTS, MOST = 256 * KEPT_MAX_HEAD_SIZE };

static uint64_t seed = 11;
static uint32_t draw(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

/* One F16 number of a kind of page. */
static kept_f16 number(int kind, int i)
{
    static const kept_f16 odd[] = {0,      0x8000, 1,      0x8001, 0x3ff,  0x7bff,
                                   0xfbff, 0x7c00, 0xfc00, 0x7e01, 0xfe01, 0x3c00};
    const float x = (float)draw() / 1073741824.0f - 1, y = (float)draw() / 1073741824.0f - 1;

    switch (kind) {
    case 0:
        return kept_f32_to_f16(x + y);
    case 1: /* any bits at all */
        return (kept_f16)draw();
    case 2: /* rows and channels of one number */
        return kept_f32_to_f16(i % 2 ? 0.25f : (float)(i / 97 % 5));
    case 3: /* zeros of both signs, and one outlier */
        return i == 771 ? 0xfbff : (kept_f16)(draw() % 2 ? 0 : 0x8000);
    case 4: /* denormals */
        return (kept_f16)(draw() % 0x400 | (draw() % 2 ? 0x8000 : 0));
    case 5: /* multiples: sizes on the bounds between levels */
        return kept_f32_to_f16((float)((int)(draw() % 255) - 127));
    case 6:
        return kept_f32_to_f16(x * x * x * 40000.0f);
    default:
        return odd[draw() % 12];
    }
}

static void levels(void)
{
    static const int sizes[] = {16, 32, 48, 64, 80, 96, 112, 128, 192, 256};
    const char *names[5];
    const int n = kept_kern_levels(names, 5);
    kept_f16 *f16 = aligned_alloc(64, MOST);
    uint8_t *want = aligned_alloc(64, MOST), *got = aligned_alloc(64, MOST);
    int packers = 0;

    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int kind = 0; kind < 8; kind++)
            for (uint8_t c = KEPT_F16; c < KEPT_N_PLAIN; c++) {
                const int D = sizes[s];
                const kept_codecs form = {c, kept_codec_get(c)->channel ? KEPT_ROT3
                                             : kept_codec_is_thin(c)    ? KEPT_F16
                                                                        : c};

                if (!kept_codec_fits(form, D, NULL))
                    continue;
                for (int i = 0; i < 128 * D; i++)
                    f16[i] = number(kind, i);
                const kept_packed to = {.at = want, .c = form, .head_size = D};
                kept_packed by = to;
                by.at = got;
                memset(want, 0x5a, MOST);
                kept_codec_pack_by(kept_kern_get("ref"), to, (const uint8_t *)f16);
                for (int k = 0; k < n; k++) {
                    packers += kept_kern_get(names[k])->pack != NULL;
                    memset(got, 0x5a, MOST);
                    kept_codec_pack_by(kept_kern_get(names[k]), by, (const uint8_t *)f16);
                    const size_t size = kept_codec_half_bytes(c, false, D);
                    const bool same = !memcmp(want, got, kept_codec_page_bytes(form, D));
                    if (!same)
                        fprintf(stderr, "  %s, %s/%s, head size %d, kind %d: %s\n", names[k],
                                kept_codec_get(c)->name, kept_codec_get(form.v)->name, D, kind,
                                memcmp(want, got, size) ? "K" : "V");
                    CHECK(same);
                }
            }
    CHECK(packers > 0 || n == 1);
    free(f16);
    free(want);
    free(got);
}

int main(void)
{
    kept_kern_enter();
    RUN(levels);
    TEST_END();
}
