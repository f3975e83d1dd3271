/* gguf_index: look-ups in a checked file's metadata. The lists are short or searched once, except
 * for the search for equal texts, which goes over whole vocabularies and hashes. */
#include "model/gguf_index.h"

#include <stdlib.h>
#include <string.h>

kept_gguf_str kept_gguf_next_str(const uint8_t **at)
{
    uint64_t n;
    memcpy(&n, *at, 8);
    kept_gguf_str s = {(const char *)*at + 8, (size_t)n};
    *at += 8 + n;
    return s;
}

const kept_gguf_kv *kept_gguf_find(const kept_gguf_index *x, const char *key)
{
    size_t n = strlen(key);
    for (uint64_t i = 0; i < x->n_kv; i++)
        if (x->kv[i].key.n == n && memcmp(x->kv[i].key.s, key, n) == 0)
            return &x->kv[i];
    return NULL;
}

int64_t kept_gguf_duplicate(const kept_gguf_str *s, size_t n)
{
    size_t cap = 16;
    while (cap < 2 * n)
        cap *= 2;
    uint32_t *table = kept_calloc(cap, sizeof *table); /* index + 1; 0 is free */
    if (!table)
        return -2;
    int64_t found = -1;
    for (size_t i = 0; i < n && found < 0; i++) {
        size_t at = (size_t)kept_hash64(s[i].s, s[i].n, 1) & (cap - 1);
        for (; table[at] && found < 0; at = (at + 1) & (cap - 1)) {
            const kept_gguf_str *o = &s[table[at] - 1];
            if (o->n == s[i].n && memcmp(o->s, s[i].s, o->n) == 0)
                found = (int64_t)i;
        }
        if (found < 0)
            table[at] = (uint32_t)i + 1;
    }
    free(table);
    return found;
}
