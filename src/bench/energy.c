/* energy: see energy.h. */
#include "bench/energy.h"

#include <dirent.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number in FOLDER/FILE; NAN: it cannot be read. */
static double number_in(const char *folder, const char *file)
{
    char path[256], text[64] = "", *end;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "r");
    const bool ok = f && fgets(text, sizeof text, f);
    if (f)
        fclose(f);
    const double x = ok ? strtod(text, &end) : NAN;
    return ok && end != text && x >= 0 ? x : NAN;
}

void kept_energy_start(kept_energy *e, const char *folder)
{
    *e = (kept_energy){.n = 0};
    DIR *d = opendir(folder);
    for (struct dirent *x; d && (x = readdir(d)) && e->n < KEPT_MAX_PACKAGES;) {
        const char *colon = strchr(x->d_name, ':');
        char *path = e->path[e->n];
        if (!colon || strchr(colon + 1, ':') || !strstr(x->d_name, "rapl"))
            continue; /* rapl:0:1 is a part of rapl:0 */
        if (!strncmp(x->d_name, "intel-rapl-mmio", 15))
            continue; /* the same package by another way */
        if (snprintf(path, sizeof e->path[0], "%s/%.64s", folder, x->d_name) >=
            (int)sizeof e->path[0])
            continue;
        e->last[e->n] = number_in(path, "energy_uj");
        e->range[e->n] = number_in(path, "max_energy_range_uj");
        e->n += isfinite(e->last[e->n]);
    }
    if (d)
        closedir(d);
}

double kept_energy_read(kept_energy *e)
{
    for (int i = 0; i < e->n; i++) {
        const double now = number_in(e->path[i], "energy_uj");
        double used = now - e->last[i];
        if (used < 0)
            used += e->range[i]; /* it wrapped */
        if (!isfinite(used))
            return NAN;
        e->joules += used / 1e6;
        e->last[i] = now;
    }
    return e->n ? e->joules : NAN;
}
