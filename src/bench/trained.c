/* trained: finds what strategies need trained, and refuses it where it cannot be right. */
#include "bench/job.h"

#include "policy/strategy.h"
#include "policy/trained_fits.h"
#include "train/train.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool has_kind(const kept_job *j, const char *kind)
{
    for (int i = 0; i < j->n_trained; i++)
        if (!strcmp(kept_trained_kind(j->trained[i].file), kind))
            return true;
    return false;
}

static bool wanted(const kept_job *j, const char *kind)
{
    for (int v = 0; v < j->n_variants; v++) {
        const kept_strategy *all = j->variants[v].strategy, *s;
        for (int i = 0; all && (s = kept_strategy_state(all, i)); i++) {
            for (int k = 0; k < KEPT_TRAINED_PARTS; k++) {
                const char *reads = kept_strategy_trained(s, k);
                if (reads && !strcmp(reads, kind))
                    return true;
            }
        }
    }
    return false;
}

static kept_status check(const kept_job *j, const kept_trained *t, const char *path,
                         kept_error *err)
{
    char hex[65];
    kept_status s = kept_model_sha256(j->model, hex, err);
    if (!s && strcmp(hex, kept_trained_model_sha256(t)))
        s = kept_fail(err, KEPT_ARGUMENT,
                      "%s is for the model with SHA-256 %.12s..., this one has %.12s...; make one "
                      "for it",
                      path, kept_trained_model_sha256(t), hex);
    for (int i = 0; !s && i < j->o->n_tasks; i++) {
        const kept_task_options *o = &j->o->tasks[i];
        bool needed;
        if (o->file && kept_task_reads(o->name, &needed))
            s = kept_train_check_text(t, o->file, err);
    }
    return s;
}

/* Opens path and keeps it if a variant reads its kind. */
static kept_status add(kept_job *j, const char *path, kept_error *err)
{
    kept_run_trained *r = &j->trained[j->n_trained];
    const char *slash = strrchr(path, '/');
    kept_status s = kept_trained_open(path, &r->file, err);
    if (s)
        return s;
    const char *kind = kept_trained_kind(r->file);
    if (has_kind(j, kind))
        s = kept_fail(err, KEPT_ARGUMENT, "%s: a second trained file of kind '%s'", path, kind);
    else if (j->n_trained == (int)(sizeof j->trained / sizeof *j->trained) - 1)
        s = kept_fail(err, KEPT_ARGUMENT, "too many trained files");
    if (!s && !wanted(j, kind)) {
        kept_trained_free(r->file);
        r->file = NULL;
        return KEPT_OK;
    }
    if (!s)
        s = check(j, r->file, path, err);
    if (!s)
        s = kept_sha256_file(path, r->sha256, err);
    snprintf(r->name, sizeof r->name, "%.120s", slash ? slash + 1 : path);
    j->n_trained++; /* also where it failed: it is closed with the others */
    return s;
}

static kept_status find(kept_job *j, const kept_variant *v, const char *kind, kept_error *err)
{
    char path[4096] = "", hex[65];
    if (!kind || has_kind(j, kind))
        return KEPT_OK;
    kept_status s = kept_model_sha256(j->model, hex, err);
    if (s)
        return s;
    if (j->o->trained_dir)
        snprintf(path, sizeof path, "%.3900s/%.16s/%s.kept", j->o->trained_dir, hex, kind);
    if (*path && !access(path, F_OK))
        return add(j, path, err);
    return kept_fail(err, KEPT_ARGUMENT,
                     "'%s' needs a trained file of kind '%s' for this model; make it with: kept %s "
                     "%s %s",
                     v->name, kind, kept_trained_verb(kind), kind,
                     j->o->model_name ? j->o->model_name : j->o->model_path);
}

/* NULL: there is none. */
static const kept_trained *file_of(const kept_job *j, const char *kind)
{
    for (int i = 0; i < j->n_trained; i++)
        if (!strcmp(kept_trained_kind(j->trained[i].file), kind))
            return j->trained[i].file;
    return NULL;
}

kept_status kept_prepare_trained(kept_job *j, kept_error *err)
{
    kept_status s = KEPT_OK;
    for (int i = 0; !s && i < j->o->n_trained; i++)
        s = add(j, j->o->trained[i], err);
    for (int v = 0; !s && v < j->n_variants; v++) {
        const kept_strategy *all = j->variants[v].strategy, *one;
        for (int i = 0; !s && all && (one = kept_strategy_state(all, i)); i++) {
            for (int k = 0; k < KEPT_TRAINED_PARTS && !s; k++)
                s = find(j, &j->variants[v], kept_strategy_trained(one, k), err);
        }
    }
    for (int v = 0; !s && v < j->n_variants; v++)
        if (j->variants[v].strategy)
            s = kept_strategy_bind(j->variants[v].strategy, file_of(j, "split"), err);
    return s;
}

kept_status kept_lend_trained(kept_job *j, kept_error *err)
{
    kept_status s = KEPT_OK;
    for (int i = 0; !s && i < j->n_trained; i++)
        s = kept_engine_add_trained(j->engine, j->trained[i].file, err);
    return s;
}

const char *kept_trained_sha256(const kept_job *j, const char *kind)
{
    for (int i = 0; kind && i < j->n_trained; i++)
        if (!strcmp(kept_trained_kind(j->trained[i].file), kind))
            return j->trained[i].sha256;
    return NULL;
}

json_t *kept_trained_json(const kept_job *j)
{
    json_t *list = json_array();
    for (int i = 0; i < j->n_trained; i++) {
        const kept_run_trained *r = &j->trained[i];
        const char *text = kept_trained_note(r->file, "text");
        json_t *o = json_object();
        json_object_set_new(o, "kind", json_string(kept_trained_kind(r->file)));
        json_object_set_new(o, "file", json_string(r->name));
        json_object_set_new(o, "sha256", json_string(r->sha256));
        json_object_set_new(o, "text", text ? json_string(text) : json_null());
        json_array_append_new(list, o);
    }
    return list;
}

void kept_trained_close(kept_job *j)
{
    for (int i = 0; i < (int)(sizeof j->trained / sizeof *j->trained); i++)
        kept_trained_free(j->trained[i].file);
}
