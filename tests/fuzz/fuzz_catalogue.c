/* Arbitrary bytes as a catalogue of models: whatever is accepted is safe in paths and arguments. */
#include "cli/catalogue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64];
    kept_catalogue c;
    char name[256];
    if (!*path)
        snprintf(path, sizeof path, "/dev/shm/kept-fuzz-%d", (int)getpid());
    FILE *f = fopen(path, "w");
    if (!f)
        return 0;
    fwrite(data, 1, size, f);
    fclose(f);
    kept_catalogue_load(&c, path, NULL);
    unlink(path);
    for (int i = 0; i < c.n; i++) {
        const kept_catalogue_entry *e = &c.entries[i];
        uint64_t sum = 0;
        for (int part = 0; part < e->n_parts; part++) {
            if (!kept_catalogue_expand(e->member, part, name, sizeof name) || *name == '/' ||
                strstr(name, ".."))
                abort();
            sum += kept_catalogue_part_bytes(e, part);
        }
        if (sum != e->bytes || strchr(e->name, '/') || *e->package == '-')
            abort();
    }
    kept_catalogue_clear(&c);
    return 0;
}
