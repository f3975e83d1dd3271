/* fuzz_trained: any bytes as a trained file, as they are and with a checksum that fits. Whatever
 * parses must be written and read again as the same file, and may be held against any model's
 * shape.
 */
#include "base/base.h"
#include "kept/trained.h"
#include "policy/trained_fits.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_round_trip(const kept_trained *t)
{
    char path[] = "/tmp/kept-fuzz-XXXXXX";
    int fd = mkstemp(path);
    kept_trained *again = NULL;
    const char *key, *note;
    if (fd < 0)
        return;
    close(fd);
    require(!kept_trained_save(t, path, NULL) && !kept_trained_open(path, &again, NULL));
    require(!strcmp(kept_trained_kind(t), kept_trained_kind(again)));
    require(!strcmp(kept_trained_model_sha256(t), kept_trained_model_sha256(again)));
    for (int i = 0; (note = kept_trained_note_at(t, i, &key)); i++)
        require(!strcmp(note, kept_trained_note(again, key)));
    kept_trained_free(again);
    unlink(path);
}

static void parse(const void *data, size_t n)
{
    static const kept_model_info shape = {
        .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_size = 64, .n_embd = 64};
    kept_trained *t = NULL;
    kept_error err = {.text = ""};
    if (kept_trained_parse(data, n, "fuzz", &t, &err)) {
        require(!t && err.text[0]);
        return;
    }
    kept_trained_fits(t, &shape, &err);
    if (n < 4096 && kept_hash64(data, n, 1) % 64 == 0) /* files are slow */
        check_round_trip(t);
    kept_trained_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char head[] = "kept-trained 1\n";
    char *copy = n < 1 << 16 ? malloc(n + sizeof head + 64) : NULL, hex[65];
    if (!copy)
        return 0;
    parse(data, n);
    /* With the magic before and the checksum behind, so that what lies between is reached. */
    memcpy(copy, head, sizeof head - 1);
    memcpy(copy + sizeof head - 1, data, n);
    kept_sha256(copy, n + sizeof head - 1, hex);
    memcpy(copy + n + sizeof head - 1, hex, 64);
    parse(copy, n + sizeof head - 1 + 64);
    free(copy);
    return 0;
}
