/* check: every kernel level on this machine, verified and timed, on one screen. */
#include "bench/kerncheck.h"
#include "cache/cache.h"
#include "cli/cli.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_LEVELS      5
#define N_SIZES         2
#define SEEDS           2
#define CACHE_BYTES     ((size_t)64 << 20)
#define BANDWIDTH_BYTES ((size_t)512 << 20)
#define POOL_BYTES      ((size_t)32 << 20)

static const int sizes[N_SIZES] = {64, 128};

typedef struct level {
    const char *name;
    kept_kerncheck check[N_SIZES];
    kept_kerntime time[N_SIZES];
} level;

typedef struct check {
    level level[MAX_LEVELS];
    int n_levels, n_threads;
    const char *chosen;
    bool quick, wrong;
    double bandwidth_1, bandwidth_all; /* bytes per second */
    uint64_t pool_bytes, huge_bytes;
} check;

static kept_status check_level(check *c, level *l, kept_error *err)
{
    const kept_kern *kern = kept_kern_get(l->name);
    for (int i = 0; i < N_SIZES; i++) {
        for (uint64_t seed = 1; seed <= SEEDS && !l->check[i].failed; seed++) {
            kept_status st = kept_kerncheck_verify(kern, sizes[i], seed, &l->check[i], err);
            if (st)
                return st;
        }
        kept_status packed = l->check[i].failed
                                 ? KEPT_OK
                                 : kept_packcheck_verify(kern, sizes[i], 1, &l->check[i], err);
        if (packed)
            return packed;
        c->wrong |= l->check[i].failed != NULL;
        kept_status st =
            c->quick ? KEPT_OK : kept_kerncheck_time(kern, sizes[i], CACHE_BYTES, &l->time[i], err);
        if (st)
            return st;
    }
    return KEPT_OK;
}

/* How much of a small pool the system backs with huge pages once it has been written. */
static kept_status check_pool(check *c, kept_error *err)
{
    kept_pool *pool;
    kept_pool_account account;
    size_t n = POOL_BYTES / kept_page_bytes(sizes[0]);
    kept_status st = kept_pool_new(sizes[0], n, 64, &pool, err);
    if (st)
        return st;
    memset(kept_pool_base(pool), 1, POOL_BYTES);
    kept_pool_get_account(pool, &account);
    c->pool_bytes = account.n_pages * account.page_bytes;
    c->huge_bytes = account.huge_bytes < c->pool_bytes ? account.huge_bytes : c->pool_bytes;
    kept_pool_free(pool);
    return KEPT_OK;
}

static kept_status measure(check *c, kept_error *err)
{
    const char *names[MAX_LEVELS];
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    c->n_threads = n < 1 ? 1 : n > 256 ? 256 : (int)n;
    c->chosen = kept_kern_get(NULL)->name;
    c->n_levels = kept_kern_levels(names, MAX_LEVELS);
    for (int i = 0; i < c->n_levels; i++) {
        c->level[i].name = names[i];
        kept_status st = check_level(c, &c->level[i], err);
        if (st)
            return st;
    }
    kept_status st = check_pool(c, err);
    if (!st && !c->quick)
        st = kept_read_bandwidth(1, BANDWIDTH_BYTES / 2, &c->bandwidth_1, err);
    if (!st && !c->quick)
        st = kept_read_bandwidth(c->n_threads, BANDWIDTH_BYTES, &c->bandwidth_all, err);
    return st;
}

/* ---- output -------------------------------------------------------------------------------- */

static void print_table(const check *c)
{
    char size[32], huge[32];
    printf("%-8s %5s  %-7s %8s %8s %8s", "level", "head", "result", "error", "mass err", "packed");
    if (!c->quick)
        printf(" %9s %9s %10s", "decode", "+ mass", "prefill");
    printf("\n%-8s %5s  %-7s %8s %8s %8s", "", "size", "", "(rel.)", "(rel.)", "(rel.)");
    if (!c->quick)
        printf(" %9s %9s %10s", "ns/slot", "ns/slot", "GFLOP/s");
    putchar('\n');
    for (int l = 0; l < c->n_levels; l++)
        for (int i = 0; i < N_SIZES; i++) {
            const kept_kerncheck *k = &c->level[l].check[i];
            const kept_kerntime *t = &c->level[l].time[i];
            printf("%-8s %5d  %-7s %8.1e %8.1e %8.1e", c->level[l].name, sizes[i],
                   k->failed ? "WRONG" : "ok", k->error, k->mass_error, k->packed_error);
            if (!c->quick)
                printf(" %9.2f %9.2f %10.1f", t->decode_ns, t->decode_mass_ns, t->prefill_gflops);
            printf("%s%s\n", k->failed ? "  " : "", k->failed ? k->failed : "");
        }
    printf("\nchosen level     %s\n", c->chosen);
    if (!c->quick)
        printf("memory reads     %.1f GB/s on 1 thread, %.1f GB/s on %d\n", c->bandwidth_1 / 1e9,
               c->bandwidth_all / 1e9, c->n_threads);
    printf("huge pages       %s of a %s page pool\n",
           kept_format_bytes(c->huge_bytes, huge, sizeof huge),
           kept_format_bytes(c->pool_bytes, size, sizeof size));
    printf(
        "\nError: against a softmax in double precision, relative to the largest value; mass: to "
        "the\nslot's mass; packed: of one query, in integers, over pages of every codec, to what "
        "they hold.");
    if (!c->quick)
        printf(" A slot is K and V of one KV head, read for %d query heads, on one\nthread, from "
               "%s of pages; best of several passes.",
               KEPT_KERNCHECK_GROUP, kept_format_bytes(CACHE_BYTES, size, sizeof size));
    putchar('\n');
}

static json_t *level_json(const check *c, const level *l, int i)
{
    const kept_kerncheck *k = &l->check[i];
    const kept_kerntime *t = &l->time[i];
    json_t *j = json_pack("{ss si sb so* so* so*}", "level", l->name, "head_size", sizes[i], "ok",
                          k->failed == NULL, "failed", k->failed ? json_string(k->failed) : NULL,
                          "error", json_real(k->error), "mass_error", json_real(k->mass_error));
    json_object_set_new(j, "packed_error", json_real(k->packed_error));
    json_object_set_new(j, "widened_error", json_real(k->widened_error));
    if (!c->quick) {
        json_object_set_new(j, "decode_ns", json_real(t->decode_ns));
        json_object_set_new(j, "decode_mass_ns", json_real(t->decode_mass_ns));
        json_object_set_new(j, "prefill_gflops", json_real(t->prefill_gflops));
    }
    return j;
}

static kept_status print_json(const check *c, kept_error *err)
{
    json_t *levels = json_array();
    for (int l = 0; l < c->n_levels; l++)
        for (int i = 0; i < N_SIZES; i++)
            json_array_append_new(levels, level_json(c, &c->level[l], i));
    json_t *j =
        json_pack("{sb ss so sI sI}", "ok", !c->wrong, "chosen", c->chosen, "levels", levels,
                  "pool_bytes", (json_int_t)c->pool_bytes, "huge_bytes", (json_int_t)c->huge_bytes);
    if (!c->quick) {
        json_object_set_new(j, "group", json_integer(KEPT_KERNCHECK_GROUP));
        json_object_set_new(j, "cache_bytes", json_integer((json_int_t)CACHE_BYTES));
        json_object_set_new(j, "read_bytes_per_s_1", json_real(c->bandwidth_1));
        json_object_set_new(j, "read_bytes_per_s_all", json_real(c->bandwidth_all));
        json_object_set_new(j, "threads", json_integer(c->n_threads));
    }
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(j);
    if (!text)
        return kept_fail(err, KEPT_NOMEM, "out of memory for the JSON");
    printf("%s\n", text);
    free(text);
    return KEPT_OK;
}

int kept_cmd_check(int argc, char **argv)
{
    static const kept_flag flags[] = {{"quick", false}, {"format", true}};
    kept_args a = {argc, argv, 1, false, NULL};
    check c = {.quick = false};
    kept_error err;
    bool json = false;
    int f;
    while ((f = kept_args_next(&a, flags, 2)) >= 0) {
        if (f == 0)
            c.quick = true;
        else if (!kept_args_json(&a, &json))
            return KEPT_EXIT_USAGE;
    }
    if (f == KEPT_ARG_HELP)
        return kept_help_print("check");
    if (f == KEPT_ARG_WORD)
        return kept_usage("check", "unexpected '%s'", a.value);
    if (f != KEPT_ARG_END)
        return KEPT_EXIT_USAGE;
    if (measure(&c, &err))
        return kept_failed("check", "%s", err.text);
    if (!json)
        print_table(&c);
    else if (print_json(&c, &err))
        return kept_failed("check", "%s", err.text);
    return c.wrong ? kept_failed("check", "a kernel level computes wrong results") : KEPT_EXIT_OK;
}
