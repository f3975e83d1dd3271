/* Decode attention over packed pages, one thread, against ggml's CPU flash attention over its own
 * quantised cache (q8_0 for codecs of 8 bits, else q4_0) and against our own F16 pages at the same
 * slots, alternated in one process. See bench_attn for the set-up; layers are as many as make 512
 * MiB of F16, and at least 256 MiB of packed pages. Low rank (low50, flat50, ...) has random
 * directions and stands against ggml's F16; it has no bars.
 *
 * Round: ggml, 4 x (packed on, packed off, F16 on, F16 on, packed off, packed on), ggml. Outputs
 * are first compared with attention in double over what each side's cache holds. Exit 1 if that
 * fails (with
 * --strict also if a bar is missed), 2 for usage, 77 if ggml has no CPU backend. */
#include "attn_rig.h"
#include "bench/lowdirs.h"

enum side { ON, OFF, F16, GGML, N_SIDES };

struct both {
    struct ours packed, f16;
    struct peer peer;
};

static void run_round(const struct setup *s, struct both *b, double *t)
{
    static const enum side order[] = {ON, OFF, F16, F16, OFF, ON};
    double unit = 1e9 / ((double)s->layers * HEADS * s->slots);
    int count[N_SIDES] = {0};

    for (int k = 0; k < N_SIDES; k++)
        t[k] = 0;
    for (int i = 0; i < 26; i++) {
        enum side side = i == 0 || i == 25 ? GGML : order[(i - 1) % 6];
        double from = seconds(CLOCK_PROCESS_CPUTIME_ID);

        if (side == GGML)
            ggml_backend_graph_compute(b->peer.backend, b->peer.graph);
        else
            run_ours(s, side == F16 ? &b->f16 : &b->packed, side != OFF);
        t[side] += (seconds(CLOCK_PROCESS_CPUTIME_ID) - from) * unit;
        count[side]++;
    }
    for (int k = 0; k < N_SIDES; k++)
        t[k] /= count[k];
}

static bool measure(const struct setup *s, struct both *b)
{
    static double t[N_SIDES][MAX_ROUNDS], peer[MAX_ROUNDS], own[MAX_ROUNDS], over[MAX_ROUNDS];
    static const char *const names[N_SIDES] = {"packed, scores on", "packed, scores off",
                                               "F16, scores on", "ggml"};
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC), x[N_SIDES];
    double bytes = (double)b->packed.page / KEPT_PAGE_SLOTS;
    bool eight = s->type == GGML_TYPE_Q8_0, vnni = strstr(s->kern->name, "512vnni"), ok = true;
    int n = s->rounds;

    for (int r = 0; r < n; r++) {
        run_round(s, b, x);
        for (int k = 0; k < N_SIDES; k++)
            t[k][r] = x[k];
        peer[r] = x[GGML] / x[ON];
        own[r] = x[ON] / x[F16];
        over[r] = 100 * (x[ON] / x[OFF] - 1);
    }
    printf(
        "%s/%s (%.3f bits a number) against ggml %s: head size %d, group %d, %d slots, %d layers, "
        "%s, %d rounds, CPU/wall %.2f\n",
        kept_codec_get(s->codec.k)->name, kept_codec_get(s->codec.v)->name, 4 * bytes / s->D,
        ggml_type_name(s->type), s->D, s->G, s->slots, s->layers, s->kern->name, n,
        (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (seconds(CLOCK_MONOTONIC) - wall));
    printf("ns per slot-head     median     best     GB/s\n");
    for (int k = 0; k < N_SIDES; k++) {
        double size = k == GGML  ? 2.0 * (double)b->peer.half / (HEADS * s->slots)
                      : k == F16 ? 4.0 * s->D
                                 : bytes;
        double mid = median(t[k], n);

        printf("%-18s %8.2f %8.2f %8.2f\n", names[k], mid, t[k][0], size / mid);
    }
    if (s->D != 128 || !strcmp(s->kern->name, "ref") || kept_codec_has_low(s->codec)) {
        printf("ggml/packed %.2f, packed/F16 %.3f, score overhead %.2f %% (bars are for head size "
               "128 and codecs of numbers)\n",
               median(peer, n), median(own, n), median(over, n));
        return true;
    }
    ok = bar("ggml / packed, scores on", median(peer, n),
             eight  ? (vnni ? 15 : 8)
             : vnni ? 25
                    : 12,
             true);
    ok = bar("packed / F16, scores on", median(own, n), eight ? 0.65 : 0.45, false) && ok;
    return bar("score overhead %", median(over, n), eight ? 5 : 6, false) && ok;
}

static bool check_outputs(const struct setup *s, const struct both *b)
{
    double worst[3] = {0}, f16[3] = {0};

    compare(s, &b->packed, &b->peer, false, worst);
    compare(s, &b->packed, &b->peer, true, worst);
    compare(s, &b->f16, &b->peer, false, f16);
    printf("check against double over what is held: packed rel L2 %.2g (<= 5e-2), mass L1 %.2g "
           "(<= 3e-2), F16 rel L2 %.2g (<= 1e-5), ggml rel L2 %.2g (<= 5e-2)\n",
           worst[0], worst[2], f16[0], worst[1]);
    return worst[0] <= 5e-2 && worst[2] <= 3e-2 && f16[0] <= 1e-5 && worst[1] <= 5e-2;
}

static int find_codec(const char *name)
{
    for (int i = 0; i < KEPT_N_CODECS; i++)
        if (!strcmp(kept_codec_get(i)->name, name))
            return i;
    return -1;
}

/* Keys as the codec says, values as goes with them. */
static kept_codecs form_of(int codec)
{
    const kept_codec_info *f = kept_codec_get(codec);
    const int v = f->basis == KEPT_BASIS_FLAT ? codec - KEPT_FLAT75 + KEPT_LOW75
                  : f->channel                ? codec - 2
                  : kept_codec_is_thin(codec) ? KEPT_F16
                                              : codec;

    return (kept_codecs){(uint8_t)codec, (uint8_t)v};
}

static bool parse(int argc, char **argv, struct setup *s, int *codec)
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
        else if (!strcmp(name, "--codec"))
            *codec = find_codec(v);
        else
            return false;
    }
    s->kern = kept_kern_get(isa);
    return s->kern && s->D >= 32 && s->D <= KEPT_MAX_HEAD_SIZE && s->D % 32 == 0 && s->G >= 1 &&
           s->G <= 16 && s->slots >= 64 && s->slots <= 1 << 17 && s->slots % 64 == 0 &&
           s->rounds >= 1 && s->rounds <= MAX_ROUNDS && *codec > KEPT_BF16 &&
           kept_codec_fits(form_of(*codec), s->D, NULL) && kept_codec_layers(form_of(*codec)) == 1;
}

static void make_low(struct setup *s)
{
    kept_lowdirs *x = NULL;
    int32_t *pos = big((size_t)s->slots * sizeof *pos);

    for (int i = 0; i < s->slots; i++)
        pos[i] = i;
    if (kept_lowdirs_new(s->D, s->slots, 1, &x, NULL) || kept_lowdirs_need(x, s->codec, NULL)) {
        fprintf(stderr, "bench_codec: no memory for directions\n");
        exit(1);
    }
    s->low = &x->low[0];
    s->pos = pos;
}

/* One codec; false: wrong outputs, or with --strict a missed bar. */
static bool run_codec(struct setup *s, int codec, bool *skip)
{
    struct both b = {.peer = {0}};
    bool ok;

    s->codec = form_of(codec);
    s->type = kept_codec_get(codec)->bits == 8    ? GGML_TYPE_Q8_0
              : kept_codec_get(codec)->bits == 16 ? GGML_TYPE_F16
                                                  : GGML_TYPE_Q4_0;
    make_data(s, 0);
    if (kept_codec_has_low(s->codec))
        make_low(s);
    make_ours(s, &b.packed);
    s->codec = (kept_codecs){KEPT_F16, KEPT_F16};
    make_ours(s, &b.f16);
    s->codec = b.packed.codec;
    *skip = !make_peer(s, &b.peer);
    if (*skip)
        return true;
    run_ours(s, &b.packed, true);
    run_ours(s, &b.f16, true);
    ggml_backend_graph_compute(b.peer.backend, b.peer.graph);
    if (!check_outputs(s, &b)) {
        printf("FAIL outputs\n");
        return false;
    }
    ok = measure(s, &b);
    munmap(b.packed.pool, (size_t)s->layers * HEADS * (size_t)(s->slots / 64) * b.packed.page);
    munmap(b.f16.pool, (size_t)s->layers * HEADS * (size_t)(s->slots / 64) * b.f16.page);
    munmap(b.peer.cache, (size_t)s->layers * 2 * b.peer.half);
    return ok || !s->strict;
}

int main(int argc, char **argv)
{
    struct setup s = {.D = 128, .G = 4, .slots = 8192, .rounds = 5};
    static const int all[] = {KEPT_Q8, KEPT_Q4, KEPT_ROT4, KEPT_LOW50, KEPT_FLAT50};
    enum { N_ALL = sizeof all / sizeof *all };
    int codec = KEPT_Q8, n = N_ALL;
    bool ok = true, skip = false;

    if (!parse(argc, argv, &s, &codec)) {
        fprintf(stderr, "usage: bench_codec [--codec NAME] [--head-size N*32] [--group 1..16] "
                        "[--slots N*64] [--rounds 1..99] [--isa LEVEL] [--strict]\n");
        return 2;
    }
    kept_kern_enter();
    for (int i = 1; i < argc; i++)
        n = !strcmp(argv[i], "--codec") ? 1 : n;
    for (int i = 0; i < n && !skip; i++)
        ok = run_codec(&s, n == 1 ? codec : all[i], &skip) && ok;
    if (skip) {
        printf("skip ggml has no CPU backend here\n");
        return 77;
    }
    return !ok;
}
