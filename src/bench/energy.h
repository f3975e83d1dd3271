/* energy: what the processor packages used, from the counters that Linux has under
 * /sys/class/powercap (RAPL). Nothing is estimated: where no counter can be read, it is not known.
 * Private to src/bench. */
#ifndef BENCH_ENERGY_H
#define BENCH_ENERGY_H

#define KEPT_POWERCAP     "/sys/class/powercap"
#define KEPT_MAX_PACKAGES 16

typedef struct kept_energy {
    int n; /* packages whose counter can be read */
    char path[KEPT_MAX_PACKAGES][160];
    double last[KEPT_MAX_PACKAGES], range[KEPT_MAX_PACKAGES]; /* microjoules; where it wraps */
    double joules;                                            /* used so far */
} kept_energy;

/* Packages (intel-rapl:N and the like, not their parts) under a folder. */
void kept_energy_start(kept_energy *e, const char *folder);
/* Adds what was used since the last call; call it more often than a counter wraps (minutes). NAN:
 * no counter can be read. */
double kept_energy_read(kept_energy *e);

#endif
