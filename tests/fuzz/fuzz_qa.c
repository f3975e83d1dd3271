/* fuzz_qa: any bytes as a SQuAD or HotpotQA file. What is read gives samples with as many documents
 * as there are, whose evidence lies inside them.
 */
#include "task/parts.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_samples(kept_task *t)
{
    for (int i = 0; i < t->n_samples && i < 4; i++)
        for (int units = 1; units < 8; units += 3) {
            kept_sample s;
            kept_error err;
            if (kept_qa_build(t, i, units, &s, &err))
                abort();
            const size_t len = strlen(s.context);
            for (int e = 0; e < s.turns[0].n_evidence; e++)
                if (s.turns[0].evidence[e].end > len ||
                    s.turns[0].evidence[e].begin >= s.turns[0].evidence[e].end)
                    abort();
            kept_sample_clear(&s);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static char name[] = "fuzz";
    static const kept_task_options o = {.name = "qa_1"};
    if (n > 1 << 16)
        return 0;
    for (int squad = 0; squad < 2; squad++) {
        kept_task t = {.file = name, .n_samples = 4, .seed = 1, .type = kept_task_type_of(o.name)};
        kept_error err = {"", 0};
        if (!kept_qa_read(&t, (const char *)data, n, squad, &err))
            check_samples(&t);
        else if (!err.text[0])
            abort();
        kept_qa_close(&t);
    }
    return 0;
}
