/* fuzz_nolima: any bytes as a needle set of NoLiMa. What is read gives samples whose needle lies
 * inside the context.
 */
#include "task/parts.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static char name[] = "fuzz";
    if (n > 1 << 16)
        return 0;
    kept_task t = {.file = name, .n_samples = 4, .seed = 1, .type = kept_task_type_of("nolima")};
    kept_error err = {"", 0};
    const kept_status st = kept_nolima_read(&t, (const char *)data, n, &err);
    if (st && !err.text[0])
        abort();
    for (int i = 0; !st && i < 4; i++) {
        kept_sample s;
        if (kept_nolima_build(&t, i, 3, &s, &err))
            continue; /* a needle that is too long */
        const kept_turn *turn = &s.turns[0];
        if (turn->evidence[0].end > strlen(s.context) ||
            turn->evidence[0].begin > turn->evidence[0].end || !turn->n_answers)
            abort();
        kept_sample_clear(&s);
    }
    kept_nolima_close(&t);
    return 0;
}
