/* train_rig: a small random model, texts of random words, and every kind that can be trained of
 * them, for the tests of trainers. */
#ifndef TESTS_TRAIN_RIG_H
#define TESTS_TRAIN_RIG_H

#include "engine_util.h"
#include "mkgguf.h"
#include "test.h"
#include "train/job.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/kept-train-XXXXXX";
static char *model_path, text_path[64], other_path[64], held_path[64];
static kept_model *model;
static kept_model_info info;

enum { LENGTH = 128 };

static const struct {
    const char *kind, *variant;
    int length;
} job[] = {{"duo", NULL, LENGTH},          {"headkv", NULL, 1024},     {"qfilters", NULL, LENGTH},
           {"triattention", NULL, LENGTH}, {"expected", NULL, LENGTH}, {"lu-kv", NULL, LENGTH},
           {"kvzap", "linear", LENGTH},    {"kvzap", "mlp", LENGTH},   {"ranker", NULL, 512},
           {"bits", NULL, LENGTH},         {"split", NULL, LENGTH},    {"basis", NULL, LENGTH},
           {"nuq", NULL, LENGTH}};
enum { N_JOBS = sizeof job / sizeof *job };

static inline const char *file(const char *name)
{
    static char buf[4][96];
    static int turn;
    char *b = buf[turn++ % 4];
    snprintf(b, sizeof *buf, "%s/%s", dir, name);
    return b;
}

/* Random words, the same for the same seed. */
static inline void write_text(const char *path, size_t n, uint64_t seed)
{
    kept_rng rng;
    FILE *f = fopen(path, "w");
    kept_rng_init(&rng, seed);
    for (size_t at = 0; f && at < n;) {
        int len = 2 + (int)kept_rng_below(&rng, 7);
        for (int i = 0; i < len; i++)
            fputc('a' + (int)kept_rng_below(&rng, 26), f);
        at += (size_t)len + 1;
        fputc(kept_rng_below(&rng, 12) ? ' ' : '\n', f);
    }
    CHECK(f && !fclose(f));
}

static inline kept_train_options options(int i, const char *out)
{
    const kept_train_kind *k = kept_train_kind_find(job[i].kind);
    return (kept_train_options){.kind = job[i].kind,
                                .model_path = model_path,
                                .text = k->reads_text ? text_path : NULL,
                                .out = out,
                                .n_tokens = 2 * job[i].length,
                                .length = job[i].length,
                                .seed = 5,
                                .n_threads = 1,
                                .variant = job[i].variant};
}

static inline char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *data = calloc(1, 1 << 24);
    *n = f && data ? fread(data, 1, 1 << 24, f) : 0;
    if (f)
        fclose(f);
    return data;
}

static inline bool same_bytes(const char *a, const char *b)
{
    size_t n, m;
    char *x = slurp(a, &n), *y = slurp(b, &m);
    bool same = n == m && n > 0 && !memcmp(x, y, n);
    free(x);
    free(y);
    return same;
}

static inline kept_train_report make(const kept_train_options *o, kept_status want)
{
    kept_train_report r;
    kept_error err = {.text = ""};
    kept_status st = kept_train(o, &r, &err);
    if (st != want)
        fprintf(stderr, "%s: %s\n", o->kind, err.text);
    CHECK_INT(st, want);
    CHECK((st == KEPT_OK) == (r.file != NULL));
    return r;
}

static inline const char *made(int i)
{
    char name[48];
    snprintf(name, sizeof name, "%s-%s.kept", job[i].kind, job[i].variant ? job[i].variant : "");
    return file(name);
}

static inline kept_trained *load(int i)
{
    kept_trained *t = NULL;
    kept_error err = {.text = ""};
    if (kept_trained_open(made(i), &t, &err))
        fprintf(stderr, "%s\n", err.text);
    CHECK(t != NULL);
    return t;
}

static inline int drop(const char *path, const struct stat *s, int flag, struct FTW *f)
{
    (void)s, (void)flag, (void)f;
    return remove(path);
}

static inline void rig_open(void)
{
    mkgguf_spec spec = mkgguf_default("llama");
    kept_error err = {.text = ""};
    spec.n_layers = 2;
    spec.n_ctx = 2048;
    spec.n_embd = 64;
    spec.n_ff = 64;
    spec.qk_gain = 2;
    CHECK(mkdtemp(dir) != NULL);
    model_path = mkgguf_temp();
    if (!model_path || mkgguf_write(model_path, &spec) ||
        kept_model_open(model_path, &model, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    info = *kept_model_get_info(model);
    snprintf(text_path, sizeof text_path, "%s", file("text.txt"));
    snprintf(other_path, sizeof other_path, "%s", file("other.txt"));
    snprintf(held_path, sizeof held_path, "%s", file("heldout.txt"));
    write_text(text_path, 90000, 1);
    write_text(other_path, 30000, 2);
}

static inline void rig_close(void)
{
    kept_model_free(model);
    unlink(model_path);
    free(model_path);
    nftw(dir, drop, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
