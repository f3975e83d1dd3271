/* Decode attention, one thread: our kernel, with and without fused scores, against ggml's CPU flash
 * attention over an F16 cache, alternated in one process.
 *
 * A layer is 8 KV heads of the same --slots. There are enough layers for 512 MiB per side, so that
 * caches do not help, on 2 MiB pages; our page table is a random permutation. ggml gets its own
 * layout ([slot][head][channel], as llama.cpp keeps it) and is called through the backend registry.
 * Times are CPU times of the process, because the machine may be shared; the wall ratio is printed.
 * Round: ggml, 4 x (on off off on), ggml, streaming read. Both outputs are first compared with
 * attention in double. Exit 1 if that fails (with --strict also if a bar is missed), 2 for usage,
 * 77 if ggml has no CPU backend. */
#include "attn_rig.h"

/* ggml sums V in F16, hence its wider limit. */
static bool check_outputs(const struct setup *s, const struct ours *o, const struct peer *g)
{
    double worst[3] = {0};

    compare(s, o, g, false, worst);
    compare(s, o, g, true, worst);
    printf("check against double: ours rel L2 %.2g (<= 1e-5), mass L1 %.2g (<= 1e-3), "
           "ggml rel L2 %.2g (<= 5e-2)\n",
           worst[0], worst[2], worst[1]);
    return worst[0] <= 1e-5 && worst[2] <= 1e-3 && worst[1] <= 5e-2;
}

enum side { OFF, ON, GGML, STREAM, N_SIDES };

struct times {
    double best[N_SIDES], mid[N_SIDES]; /* ns per slot and KV head */
    double ratio[2], over;              /* ggml/ours, score overhead in %: medians over rounds */
    double busy;                        /* CPU time / wall time */
};

/* One round: t[side] = mean ns per slot and KV head. */
static void run_round(const struct setup *s, struct ours *o, struct peer *g, double *t)
{
    static const enum side order[] = {GGML, ON,  OFF, OFF, ON,  ON,  OFF, OFF,  ON,    ON,
                                      OFF,  OFF, ON,  ON,  OFF, OFF, ON,  GGML, STREAM};
    double unit = 1e9 / ((double)s->layers * HEADS * s->slots);
    volatile uint64_t sink = 0;
    int count[N_SIDES] = {0};

    for (int k = 0; k < N_SIDES; k++)
        t[k] = 0;
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        double from = seconds(CLOCK_PROCESS_CPUTIME_ID);

        if (order[i] == GGML)
            ggml_backend_graph_compute(g->backend, g->graph);
        else if (order[i] == STREAM)
            sink = sink ^ stream(s, g);
        else
            run_ours(s, o, order[i] == ON);
        t[order[i]] += (seconds(CLOCK_PROCESS_CPUTIME_ID) - from) * unit;
        count[order[i]]++;
    }
    for (int k = 0; k < N_SIDES; k++)
        t[k] /= count[k];
}

static struct times measure(const struct setup *s, struct ours *o, struct peer *g)
{
    static double t[N_SIDES][MAX_ROUNDS], ratio[2][MAX_ROUNDS], over[MAX_ROUNDS];
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
    struct times y;

    for (int r = 0; r < s->rounds; r++) {
        double x[N_SIDES];

        run_round(s, o, g, x);
        for (int k = 0; k < N_SIDES; k++)
            t[k][r] = x[k];
        ratio[OFF][r] = x[GGML] / x[OFF];
        ratio[ON][r] = x[GGML] / x[ON];
        over[r] = 100 * (x[ON] / x[OFF] - 1);
    }
    for (int k = 0; k < N_SIDES; k++) {
        y.mid[k] = median(t[k], s->rounds);
        y.best[k] = t[k][0];
    }
    y.ratio[OFF] = median(ratio[OFF], s->rounds);
    y.ratio[ON] = median(ratio[ON], s->rounds);
    y.over = median(over, s->rounds);
    y.busy = (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (seconds(CLOCK_MONOTONIC) - wall);
    return y;
}

static void print_line(const char *name, const struct setup *s, const struct times *y, int k)
{
    printf("%-18s %8.2f %8.2f %8.2f %8.0f %%\n", name, y->mid[k], y->best[k],
           4.0 * s->D / y->mid[k], 100 * y->mid[STREAM] / y->mid[k]);
}

static bool report(const struct setup *s, const struct peer *g, const struct times *y)
{
    bool wide = !strncmp(s->kern->name, "avx512", 6), ok = true;

    printf("ours: %s; ggml CPU features:", s->kern->name);
    print_features(g);
    printf("head size %d, group %d, %d KV heads, %d slots, %d layers, 1 thread, %d rounds, "
           "CPU/wall %.2f\n",
           s->D, s->G, HEADS, s->slots, s->layers, s->rounds, y->busy);
    printf("ns per slot-head     median     best     GB/s  of stream\n");
    print_line("ours, scores on", s, y, ON);
    print_line("ours, scores off", s, y, OFF);
    print_line("ggml", s, y, GGML);
    print_line("streaming read", s, y, STREAM);
    printf("ggml/ours: scores on %.2f (of best times %.2f), off %.2f (of best times %.2f)\n",
           y->ratio[ON], y->best[GGML] / y->best[ON], y->ratio[OFF], y->best[GGML] / y->best[OFF]);
    if (strcmp(s->kern->name, "ref"))
        ok = bar("ratio with scores", y->ratio[ON], wide ? 5.5 : 4.0, true);
    if (s->D == 128)
        ok = bar("score overhead %", y->over, 4.0, false) && ok;
    else
        printf("score overhead %%: %.2f (no bar at this head size)\n", y->over);
    return ok;
}

static bool parse(int argc, char **argv, struct setup *s)
{
    const char *isa = NULL;

    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *v;

        if (!strcmp(name, "--strict")) {
            s->strict = 1;
            continue;
        }
        if (!(v = argv[++i]))
            return false;
        if (!strcmp(name, "--head-size"))
            s->D = atoi(v);
        else if (!strcmp(name, "--group"))
            s->G = atoi(v);
        else if (!strcmp(name, "--slots"))
            s->slots = atoi(v);
        else if (!strcmp(name, "--rounds"))
            s->rounds = atoi(v);
        else if (!strcmp(name, "--isa"))
            isa = v;
        else
            return false;
    }
    s->kern = kept_kern_get(isa);
    return s->kern && s->D >= 16 && s->D <= KEPT_MAX_HEAD_SIZE && s->D % 16 == 0 && s->G >= 1 &&
           s->G <= 16 && s->slots >= 64 && s->slots <= 1 << 17 && s->slots % 64 == 0 &&
           s->rounds >= 1 && s->rounds <= MAX_ROUNDS;
}

int main(int argc, char **argv)
{
    struct setup s = {.D = 128, .G = 4, .slots = 8192, .rounds = 9, .type = GGML_TYPE_F16};
    struct peer g = {0};
    struct ours o;
    struct times y;
    bool ok;

    if (!parse(argc, argv, &s)) {
        fprintf(stderr, "usage: bench_attn [--head-size N*16] [--group 1..16] [--slots N*64] "
                        "[--rounds 1..99] [--isa ref|avx2|avx512] [--strict]\n");
        return 2;
    }
    kept_kern_enter();
    make_data(&s, 0);
    make_ours(&s, &o);
    if (!make_peer(&s, &g)) {
        printf("skip ggml has no CPU backend here\n");
        return 77;
    }
    run_ours(&s, &o, true);
    ggml_backend_graph_compute(g.backend, g.graph);
    if (!check_outputs(&s, &o, &g)) {
        printf("FAIL outputs\n");
        return 1;
    }
    y = measure(&s, &o, &g);
    ok = report(&s, &g, &y);
    return s.strict && !ok;
}
