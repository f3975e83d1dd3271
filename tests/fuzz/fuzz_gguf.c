/* fuzz_gguf: libFuzzer entry for the GGUF check. Start it with a small valid model as its corpus;
 * tests/test_gguf_fuzz.c runs a fixed number of mutants of one without libFuzzer. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    kept_error err = {.text = ""};
    kept_status s = kept_gguf_check_mem(data, n, &err);
    if (s != KEPT_OK && (!err.text[0] || strchr(err.text, '\n')))
        abort();
    return 0;
}
