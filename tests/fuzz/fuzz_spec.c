/* fuzz_spec: any text is either refused with an error that points into it, or parsed to a strategy
 * whose two spellings parse back to the same spellings.
 *
 * A libFuzzer entry; with -DFUZZ_MAIN a program of its own that runs a fixed number of random and
 * mutated specs (first argument, 200000 if none).
 */
#include "base/base.h"
#include "policy/strategy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *spec, const char *why)
{
    fprintf(stderr, "fuzz_spec: %s: \"%s\"\n", why, spec);
    abort();
}

static void check_stable(const char *spec, const char *printed, const kept_strategy *s)
{
    kept_strategy *again;
    kept_error err;
    if (kept_strategy_parse(printed, &again, &err))
        fail(spec, err.text);
    if (strcmp(kept_strategy_name(again), kept_strategy_name(s)) ||
        strcmp(kept_strategy_resolved(again), kept_strategy_resolved(s)))
        fail(spec, "the spelling changed");
    kept_strategy_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char spec[6000];
    kept_strategy *s;
    kept_error err = {"", -2};
    if (size >= sizeof spec)
        size = sizeof spec - 1;
    memcpy(spec, data, size);
    spec[size] = 0;
    if (kept_strategy_parse(spec, &s, &err)) {
        if (s || err.at < 0 || err.at > (int)strlen(spec) || !err.text[0] ||
            strpbrk(err.text, "\n\r"))
            fail(spec, "the error does not point into the spec");
        return 0;
    }
    check_stable(spec, kept_strategy_name(s), s);
    check_stable(spec, kept_strategy_resolved(s), s);
    kept_strategy_free(s);
    return 0;
}

#ifdef FUZZ_MAIN

/* Pieces that specs are made of, good and bad. */
static const char *piece(kept_rng *r, char *own)
{
    static const char *const bits[] = {"+",
                                       "@",
                                       "(",
                                       ")",
                                       ",",
                                       "=",
                                       "%",
                                       "@20%",
                                       "@5",
                                       "@1MiB",
                                       "0",
                                       "1",
                                       "0.5",
                                       "99",
                                       "1e3",
                                       "-1",
                                       "on",
                                       "off",
                                       "max",
                                       "avg",
                                       "@",
                                       "GiB",
                                       "original",
                                       "$x",
                                       "adaptive(calm=",
                                       "tight=",
                                       ",tight=",
                                       "calm=full,tight=h2o)"};
    int n_bits = (int)(sizeof bits / sizeof *bits), parts = kept_part_count();
    int i = (int)kept_rng_below(r, (uint32_t)(n_bits + parts * 2 + kept_recipe_count() + 4));
    if (i < n_bits)
        return bits[i];
    i -= n_bits;
    if (i < parts)
        return kept_part_at(i)->name;
    if ((i -= parts) < parts) {
        const kept_part *p = kept_part_at(i);
        return p->n_options ? p->options[kept_rng_below(r, (uint32_t)p->n_options)].name : "+";
    }
    if ((i -= parts) < kept_recipe_count())
        return kept_recipe_at(i)->name;
    own[0] = (char)(1 + kept_rng_below(r, 255));
    own[1] = 0;
    return own;
}

/* A sound spec with up to three bytes changed, dropped or doubled. */
static size_t mutate(kept_rng *r, char *spec)
{
    static const char *const sound[] = {
        "h2o(norm=on)+uniform+protect(sinks=4,recent=32)+prefill+original@20%",
        "snapkv(window=64,kernel=5,pool=avg)+ada(alpha=0.25)+decode(every=16)+slot@64MiB",
        "streaming(sinks=4,position=slot)+chunks(decode=3)@512",
        "expected-attention(future=512,epsilon=0.02,values=off)+global(alpha=0.1)@12.5%",
        "full",
        "adaptive(signal=kl,every=8,calm=full,tight=snapkv(window=8)+ada@10%)+slot",
        "adaptive(calm=streaming@50%,tight=h2o+decode)+protect(sinks=1)@64KiB"};
    strcpy(spec, sound[kept_rng_below(r, 7)]);
    size_t n = strlen(spec);
    for (uint32_t k = kept_rng_below(r, 4); k > 0 && n > 0; k--) {
        size_t i = kept_rng_below(r, (uint32_t)n);
        uint32_t kind = kept_rng_below(r, 3);
        if (kind == 0) {
            spec[i] = (char)(1 + kept_rng_below(r, 255));
        } else if (kind == 1) {
            memmove(spec + i, spec + i + 1, n-- - i);
        } else {
            memmove(spec + i + 1, spec + i, ++n - i);
        }
    }
    return n;
}

int main(int argc, char **argv)
{
    long n = argc > 1 ? strtol(argv[1], NULL, 10) : 200000;
    kept_rng r;
    kept_rng_init(&r, 1);
    for (long i = 0; i < n; i++) {
        char spec[2000] = "", own[2];
        if (i % 2)
            mutate(&r, spec);
        else
            for (uint32_t k = kept_rng_below(&r, 24); k > 0; k--)
                strcat(spec, piece(&r, own));
        LLVMFuzzerTestOneInput((const uint8_t *)spec, strlen(spec));
    }
    printf("ok %ld specs\n", n);
    return 0;
}

#endif
