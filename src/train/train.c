/* train: the driver: opens everything, walks through the steps, saves after each, finishes. */
#include "policy/trained_fits.h"
#include "train/job.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SAVE_NS   1000000000u /* a checkpoint at most so often; one always when stopped */
#define MAX_NAMES 32
/* Tokens that a repetition needs besides those repeated: two requests of at most 256. */
#define AGAIN_MORE 544

/* ---- for the kinds -------------------------------------------------------------------------- */

void *kept_train_state(kept_train_job *j, const char *name, size_t n, size_t size)
{
    if (j->n_blobs == KEPT_MAX_BLOBS)
        return NULL;
    struct kept_blob *b = &j->blob[j->n_blobs];
    b->data = kept_calloc(n + 1, size);
    b->bytes = n * size;
    snprintf(b->name, sizeof b->name, "%s", name);
    j->n_blobs += b->data != NULL;
    return b->data;
}

kept_status kept_train_tick(kept_train_job *j, double part, kept_error *err)
{
    double done = (j->done + part) / (j->n_steps + 0.1);
    if (j->o->progress && !j->o->progress(j->o->ctx, done, j->what))
        return kept_fail(err, KEPT_CANCELLED, "stopped after step %d of %d", j->done, j->n_steps);
    return KEPT_OK;
}

kept_status kept_train_seq(kept_train_job *j, kept_seq **out, kept_error *err)
{
    kept_capture c;
    kept_status st = kept_look_capture(j->kind->eyes, &c, err);
    return st ? st : kept_seq_new(j->engine, NULL, &c, j->o->seed, out, err);
}

kept_status kept_train_feed(kept_train_job *j, kept_seq *s, const int32_t *tokens, int n,
                            kept_error *err)
{
    for (int at = 0; at < n;) {
        int k = n - at < KEPT_TRAIN_CHUNK ? n - at : KEPT_TRAIN_CHUNK;
        /* A last token alone would go another way through the matrix products. */
        k -= n - at - k == 1 && k > 2;
        kept_item it = {.seq = s, .tokens = tokens + at, .n_tokens = k, .prefill = true};
        kept_status st = kept_engine_forward(j->engine, &it, 1, err);
        if (st)
            return st;
        at += k;
    }
    return KEPT_OK;
}

kept_status kept_train_look(kept_train_job *j, kept_seq *s, bool queries_only, kept_look_fn *fn,
                            void *ctx, kept_error *err)
{
    kept_look look = {.fn = fn, .ctx = ctx, .queries_only = queries_only};
    return kept_seq_look(s, j->kind->eyes, &look, err);
}

kept_status kept_train_put(kept_trained *t, const char *name, const double *x, size_t n,
                           kept_error *err)
{
    float *f = kept_calloc(n + 1, sizeof *f);
    if (!f)
        return kept_fail(err, KEPT_NOMEM, "no memory for the array %s", name);
    for (size_t i = 0; i < n; i++)
        f[i] = (float)x[i];
    kept_status st = kept_trained_put(t, name, f, n, err);
    free(f);
    return st;
}

kept_status kept_train_note(kept_trained *t, kept_error *err, const char *key, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *c = text; *c; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    return kept_trained_set_note(t, key, text, err);
}

/* ---- opening -------------------------------------------------------------------------------- */

static kept_status find_kind(kept_train_job *j, kept_error *err)
{
    const kept_train_options *o = j->o;
    const char *names[MAX_NAMES];
    int n = kept_train_kind_count();
    for (int i = 0; i < n && i < MAX_NAMES; i++)
        names[i] = kept_train_kind_at(i)->name;
    j->kind = kept_trainer_find(o->kind);
    if (!j->kind) {
        int near = kept_nearest(o->kind, strlen(o->kind), names, n);
        return kept_fail(err, KEPT_ARGUMENT, "nothing called '%.40s' can be trained%s%s%s", o->kind,
                         near >= 0 ? ", did you mean '" : "", near >= 0 ? names[near] : "",
                         near >= 0 ? "'?" : "");
    }
    if (!j->kind->kind.reads_text && (o->text || o->held_out))
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' makes its own prompts and reads no text; leave --text away",
                         o->kind);
    if (j->kind->kind.reads_text && !o->text)
        return kept_fail(err, KEPT_ARGUMENT, "'%s' needs a text", o->kind);
    const char *const *v = j->kind->variant;
    if (o->variant && !v)
        return kept_fail(err, KEPT_ARGUMENT, "'%s' has no variants", o->kind);
    for (; o->variant && v[j->variant] && strcmp(v[j->variant], o->variant);)
        j->variant++;
    if (o->variant && !v[j->variant])
        return kept_fail(err, KEPT_ARGUMENT, "'%s' has no variant '%.40s'; it has %s and %s",
                         o->kind, o->variant, v[0], v[1]);
    return KEPT_OK;
}

static kept_status open_model(kept_train_job *j, kept_error *err)
{
    const kept_train_options *o = j->o;
    const kept_train_kind *k = &j->kind->kind;
    kept_status st = kept_model_open(o->model_path, &j->model, err);
    if (st || (st = kept_model_sha256(j->model, j->sha256, err)))
        return st;
    const kept_model_info *m = j->info = kept_model_get_info(j->model);
    int64_t tokens = o->n_tokens ? o->n_tokens : k->n_tokens;
    j->length = o->length ? o->length : k->length;
    if (j->length > m->n_ctx_train)
        j->length = m->n_ctx_train;
    if (j->length < 64 || tokens < j->length || tokens / j->length > 1000000)
        return kept_fail(err, KEPT_ARGUMENT,
                         "%lld tokens are no whole documents of %d tokens; --tokens must be at "
                         "least that",
                         (long long)tokens, j->length);
    j->n_docs = (int)(tokens / j->length);
    j->n_held = j->kind->n_held;
    j->n_steps = j->n_docs + j->kind->n_epochs + j->n_held;
    j->n_layers = m->n_layers;
    j->n_heads = m->n_kv_heads;
    j->group = m->n_heads / m->n_kv_heads;
    j->head_size = m->head_size;
    return KEPT_OK;
}

static kept_status open_text(kept_train_job *j, kept_error *err)
{
    const kept_train_options *o = j->o;
    if (!o->text)
        return KEPT_OK;
    kept_status st = kept_train_text_open(o->text, &j->text, err);
    if (!st && o->held_out)
        st = kept_train_text_write_held(&j->text, o->held_out, err);
    if (!st)
        st = kept_train_text_documents(&j->text, j->model, false, o->seed, j->n_docs, j->length,
                                       &j->docs, err);
    if (!st)
        st = kept_train_text_documents(&j->text, j->model, true, o->seed, j->n_held, j->length,
                                       &j->held, err);
    return st;
}

static kept_status open_engine(kept_train_job *j, kept_error *err)
{
    const kept_model_info *m = j->info;
    int seqs = j->kind->n_seqs > 1 ? j->kind->n_seqs : 1;
    int more = j->kind->n_more == KEPT_TRAIN_AGAIN ? j->length + AGAIN_MORE : j->kind->n_more;
    int tokens = j->length + more;
    size_t page = (size_t)m->head_size * 64 * 4;
    kept_engine_options e = {
        .n_threads = j->o->n_threads,
        .pool_bytes = page * (size_t)seqs * (size_t)m->n_layers * (size_t)m->n_kv_heads *
                      ((size_t)tokens / 64 + 3),
        .max_tokens = tokens,
        .max_batch_tokens = KEPT_TRAIN_CHUNK,
        .max_seqs = seqs,
        .isa = j->o->isa,
    };
    return kept_engine_new(j->model, &e, &j->engine, err);
}

static void close_job(kept_train_job *j)
{
    if (j->kind && j->kind->close)
        j->kind->close(j);
    kept_engine_free(j->engine);
    kept_model_free(j->model);
    kept_train_text_close(&j->text);
    for (int i = 0; i < j->n_blobs; i++)
        free(j->blob[i].data);
    free(j->docs);
    free(j->held);
    free(j);
}

/* ---- checkpoints ---------------------------------------------------------------------------- */

/* What must be the same for a checkpoint, or a finished file, to be of use. */
static void arguments(const kept_train_job *j, char *buf, size_t cap)
{
    snprintf(buf, cap, "%s %s; %d documents of %d tokens, seed %llu, %s", j->kind->kind.name,
             j->kind->variant ? j->kind->variant[j->variant] : "-", j->n_docs, j->length,
             (unsigned long long)j->o->seed, kept_version());
}

/* Opens path if it was made with the arguments of this job; NULL: not there, or not of use. */
static kept_trained *open_same(const kept_train_job *j, const char *path, bool *other)
{
    kept_trained *t = NULL;
    char want[256];
    arguments(j, want, sizeof want);
    if (kept_trained_open(path, &t, NULL)) {
        *other = !access(path, F_OK);
        return NULL;
    }
    const char *args = kept_trained_note(t, "arguments"), *text = kept_trained_note(t, "text");
    if (args && !strcmp(args, want) && !strcmp(kept_trained_model_sha256(t), j->sha256) &&
        (text ? !strcmp(text, j->text.sha256) : !j->o->text))
        return t;
    kept_trained_free(t);
    *other = true;
    return NULL;
}

/* The same of a finished file, which must also have what its readers look for. */
static kept_trained *open_finished(const kept_train_job *j)
{
    bool other = false;
    kept_trained *t = open_same(j, j->o->out, &other);
    if (t && kept_trained_fits(t, j->info, NULL)) {
        kept_trained_free(t);
        return NULL;
    }
    return t;
}

static kept_status new_file(const kept_train_job *j, kept_trained **out, kept_error *err)
{
    char args[256];
    arguments(j, args, sizeof args);
    kept_status st = kept_trained_new(j->kind->kind.name, j->sha256, out, err);
    if (!st)
        st = kept_trained_set_note(*out, "arguments", args, err);
    if (!st && j->o->text)
        st = kept_trained_set_note(*out, "text", j->text.sha256, err);
    return st;
}

static void checkpoint_path(const kept_train_job *j, char *buf, size_t cap)
{
    snprintf(buf, cap, "%.4080s.ckpt", j->o->out);
}

/* The state's bytes travel as the bits of floats. */
static kept_status save(kept_train_job *j, kept_error *err)
{
    kept_trained *t = NULL;
    char path[4096];
    kept_status st = new_file(j, &t, err);
    if (!st)
        st = kept_train_note(t, err, "done", "%d", j->done);
    for (int i = 0; !st && i < j->n_blobs; i++)
        st = kept_trained_put(t, j->blob[i].name, j->blob[i].data, j->blob[i].bytes / sizeof(float),
                              err);
    checkpoint_path(j, path, sizeof path);
    if (!st)
        st = kept_trained_save(t, path, err);
    kept_trained_free(t);
    j->saved_ns = kept_clock_ns();
    return st;
}

static void restore(kept_train_job *j, kept_train_report *r)
{
    char path[4096];
    checkpoint_path(j, path, sizeof path);
    kept_trained *t = open_same(j, path, &r->stale);
    const char *done = t ? kept_trained_note(t, "done") : NULL;
    long n = done ? strtol(done, NULL, 10) : 0;
    bool fits = n > 0 && n <= j->n_steps;
    for (int i = 0; fits && i < j->n_blobs; i++) {
        size_t len;
        const float *x = kept_trained_array(t, j->blob[i].name, &len);
        fits = x && len * sizeof *x == j->blob[i].bytes;
    }
    for (int i = 0; fits && i < j->n_blobs; i++) {
        size_t len;
        memcpy(j->blob[i].data, kept_trained_array(t, j->blob[i].name, &len), j->blob[i].bytes);
    }
    j->done = r->resumed = fits ? (int)n : 0;
    r->stale |= t && !fits;
    kept_trained_free(t);
}

/* ---- steps ---------------------------------------------------------------------------------- */

static void name_step(kept_train_job *j)
{
    int i = j->done, epoch = i - j->n_docs, held = epoch - j->kind->n_epochs;
    if (epoch < 0)
        snprintf(j->what, sizeof j->what, "document %d of %d", i + 1, j->n_docs);
    else if (held < 0)
        snprintf(j->what, sizeof j->what, "epoch %d of %d", epoch + 1, j->kind->n_epochs);
    else
        snprintf(j->what, sizeof j->what, "held-out document %d of %d", held + 1, j->n_held);
}

static kept_status one_step(kept_train_job *j, kept_error *err)
{
    int i = j->done, epoch = i - j->n_docs, held = epoch - j->kind->n_epochs;
    size_t length = (size_t)j->length;
    if (epoch < 0)
        return j->kind->document(j, i, false, j->docs ? j->docs + (size_t)i * length : NULL, err);
    if (held < 0)
        return j->kind->epoch(j, epoch, err);
    return j->kind->document(j, held, true, j->held ? j->held + (size_t)held * length : NULL, err);
}

/* A step that is stopped half way may have touched the state, so only whole steps are saved. */
static kept_status walk(kept_train_job *j, kept_error *err)
{
    j->saved_ns = kept_clock_ns();
    while (j->done < j->n_steps) {
        name_step(j);
        kept_status st = kept_train_tick(j, 0, err);
        if (st && j->done) {
            kept_status saved = save(j, err);
            if (!saved)
                kept_fail(err, st, "stopped after step %d of %d", j->done, j->n_steps);
            return saved ? saved : st;
        }
        if (st || (st = one_step(j, err)))
            return st;
        j->done++;
        if (kept_clock_ns() - j->saved_ns > SAVE_NS && (st = save(j, err)))
            return st;
    }
    return KEPT_OK;
}

/* ---- finishing ------------------------------------------------------------------------------ */

static kept_status put_text_notes(const kept_train_job *j, kept_trained *t, kept_error *err)
{
    kept_shingles s = {0};
    size_t cap = (size_t)j->length * 64;
    char *text = kept_calloc(cap, 1);
    float *x = NULL;
    const char *slash = strrchr(j->o->text, '/');
    kept_status st = kept_train_note(t, err, "text-name", "%.200s", slash ? slash + 1 : j->o->text);
    if (!st)
        st = kept_train_note(t, err, "split", "blocks of %zu bytes by hash, one in %d held out",
                             j->text.block, KEPT_SPLIT_EVERY);
    for (int i = 0; text && i < j->n_docs; i++) {
        size_t n = kept_detokenize(j->model, j->docs + (size_t)i * (size_t)j->length, j->length,
                                   false, text, cap);
        kept_shingles_add(&s, text, n < cap ? n : cap - 1);
    }
    kept_shingles_sort(&s);
    x = kept_calloc(s.n + 1, sizeof *x);
    for (size_t i = 0; x && i < s.n; i++)
        x[i] = (float)s.hash[i];
    if (!text || !x || s.failed)
        st = kept_fail(err, KEPT_NOMEM, "no memory for the fingerprint of the text");
    if (!st)
        st = kept_trained_put(t, "text-shingles", x, s.n, err);
    kept_shingles_free(&s);
    free(text);
    free(x);
    return st;
}

static kept_status finish(kept_train_job *j, kept_train_report *r, kept_error *err)
{
    char path[4096];
    kept_trained *t = NULL;
    kept_status st = new_file(j, &t, err);
    if (!st)
        st = kept_train_note(t, err, "tokens", "%lld", (long long)j->n_docs * j->length);
    if (!st && j->o->text)
        st = put_text_notes(j, t, err);
    if (!st)
        st = j->kind->finish(j, t, err);
    if (!st)
        st = kept_trained_save(t, j->o->out, err);
    if (st) {
        kept_trained_free(t);
        return st;
    }
    checkpoint_path(j, path, sizeof path);
    unlink(path);
    r->file = t;
    return KEPT_OK;
}

kept_status kept_train(const kept_train_options *o, kept_train_report *r, kept_error *err)
{
    kept_train_job *j = kept_calloc(1, sizeof *j);
    *r = (kept_train_report){0};
    if (!j)
        return kept_fail(err, KEPT_NOMEM, "no memory to train");
    j->o = o;
    kept_status st = find_kind(j, err);
    if (!st)
        st = open_model(j, err);
    if (!st)
        st = open_text(j, err);
    if (!st && (r->file = open_finished(j))) {
        r->was_there = true;
        goto out;
    }
    if (!st)
        st = open_engine(j, err);
    if (!st)
        st = j->kind->open(j, err);
    if (st)
        goto out;
    restore(j, r);
    st = walk(j, err);
    if (!st)
        st = finish(j, r, err);
out:
    r->n_steps = j->n_steps;
    close_job(j);
    return st;
}
