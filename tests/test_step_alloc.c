/* test_step_alloc: a decode step allocates nothing, whatever its sequences' strategies. malloc and
 * its family are counted by definitions of our own in front of the C library's. */
#include "engine_util.h"
#include "mkgguf.h"
#include "test.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static atomic_long n_allocs;
static atomic_bool counting;

#ifndef SANITIZED
/* glibc's own entry points: no dlsym needed, which would itself allocate. */
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

static void count(void)
{
    if (atomic_load_explicit(&counting, memory_order_relaxed))
        atomic_fetch_add(&n_allocs, 1);
}
void *malloc(size_t n)
{
    count();
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    count();
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    count();
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t align, size_t n)
{
    count();
    return __libc_memalign(align, n);
}
int posix_memalign(void **p, size_t align, size_t n)
{
    count();
    *p = __libc_memalign(align, n);
    return *p ? 0 : 12;
}
#endif

static kept_model *model;

/* Steps enough to warm up (graph, scratch growth), then counts over 100 steps that cross page
 * boundaries and evict. */
static long allocations(const char *const *specs, int n)
{
    const int32_t token = 5;
    kept_error err;
    kept_engine *e = NULL;
    kept_engine_options o = {
        .n_threads = 2, .max_tokens = 1024, .max_seqs = 8, .pool_bytes = (size_t)64 << 20};
    CHECK_INT(kept_engine_new(model, &o, &e, &err), KEPT_OK);
    kept_strategy *st[8], *by[8];
    kept_seq *s[8];
    int32_t *prompt = util_tokens(300, kept_model_get_info(model)->n_vocab, 3);
    util_run r = {.engine = e, .n_vocab = kept_model_get_info(model)->n_vocab};
    kept_item it[8];
    for (int i = 0; i < n; i++) {
        CHECK_INT(kept_strategy_parse(specs[i], &st[i], &err), KEPT_OK);
        by[i] = i && !strcmp(specs[i], specs[i - 1]) ? by[i - 1] : st[i]; /* a group */
        CHECK_INT(kept_seq_new(e, by[i], NULL, 1, &s[i], &err), KEPT_OK);
        CHECK_INT(util_prefill(&r, s[i], prompt, 300, 300, NULL), KEPT_OK);
        CHECK_INT(kept_seq_end_prefill(s[i], &err), KEPT_OK);
        (void)kept_seq_set_reference(s[i], s[0], &err); /* for those who can use it */
        it[i] = (kept_item){.seq = s[i], .tokens = &token, .n_tokens = 1, .n_logits = 1};
    }
    for (int t = 0; t < 20; t++)
        CHECK_INT(kept_engine_forward(e, it, n, &err), KEPT_OK);
    atomic_store(&n_allocs, 0);
    atomic_store(&counting, true);
    kept_status st_all = KEPT_OK;
    for (int t = 0; t < 100 && !st_all; t++) {
        for (int i = 0; i < n; i++)
            (void)kept_seq_hint(s[i], t / 10 % 2); /* those who listen switch here */
        st_all = kept_engine_forward(e, it, n, &err);
    }
    atomic_store(&counting, false);
    CHECK_INT(st_all, KEPT_OK);
    for (int i = 0; i < n; i++) {
        kept_seq_free(s[i]);
        kept_strategy_free(st[i]);
    }
    free(prompt);
    kept_engine_free(e);
    return atomic_load(&n_allocs);
}

static void full_step(void)
{
    static const char *const specs[] = {"full"};
    CHECK_INT(allocations(specs, 1), 0);
}

static void mixed_batch_step(void)
{
    static const char *const specs[] = {"full",
                                        "h2o+decode(every=1)@128",
                                        "tova+decode(every=4)@25%",
                                        "streaming+decode(every=1)@100",
                                        "keydiff+decode(every=16)@64",
                                        "snapkv+ada+decode(every=8)@96",
                                        "knorm@25%",
                                        "compactor+decode(every=16)@80"};
    CHECK_INT(allocations(specs, 8), 0);
}

/* Controllers that read, switch, evict for the first time and move budgets while steps count. */
static void controlled_step(void)
{
    static const char *const specs[] = {
        "full",
        "adaptive(signal=task,every=1,hold=0,calm=full,tight=expected-attention+ada)@25%",
        "adaptive(signal=task,every=1,hold=0,calm=h2o@90%,tight=cakekv+values(kind=output)@25%)",
        "adaptive(signal=entropy,every=1,high=1,low=0.5,calm=full,tight=snapkv+decode(every=8))@64",
        "adaptive(signal=kl,every=1,calm=full,tight=keydiff+decode(every=8))@64",
        "h2o+balance(every=4)@25%",
        "h2o+balance(every=4)@25%",
        "adaptive(signal=pressure,every=1,high=0.01,low=0,calm=full,tight=tova+decode)@64"};
    CHECK_INT(allocations(specs, 8), 0);
}

/* Pages are chosen at every step, of caches that evict too. */
static void sparse_step(void)
{
    static const char *const specs[] = {"full",
                                        "full+quest(share=0.5,pages=1,skip=1)",
                                        "full+landmarks(pages=2)",
                                        "h2o+decode(every=1)+rocket(pages=1)@200",
                                        "streaming+decode(every=4)+quest(pages=1,skip=0)@200",
                                        "snapkv+quest(pages=2,gqa=soft)@60%"};
    CHECK_INT(allocations(specs, 6), 0);
}

/* The counter counts. */
static void counter_works(void)
{
    atomic_store(&n_allocs, 0);
    atomic_store(&counting, true);
    void *volatile p = malloc(10);
    atomic_store(&counting, false);
    free(p);
    CHECK_INT(atomic_load(&n_allocs), 1);
}

int main(void)
{
#ifdef SANITIZED
    SKIP("the sanitizer owns malloc");
#endif
    kept_error err;
    const mkgguf_spec spec = mkgguf_default("llama");
    char *path = mkgguf_temp();
    if (!path || mkgguf_write(path, &spec) || kept_model_open(path, &model, &err)) {
        fprintf(stderr, "no model\n");
        return 1;
    }
    RUN(counter_works);
    RUN(full_step);
    RUN(mixed_batch_step);
    RUN(controlled_step);
    RUN(sparse_step);
    unlink(path);
    free(path);
    kept_model_free(model);
    TEST_END();
}
