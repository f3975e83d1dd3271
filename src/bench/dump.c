/* dump: which positions every KV head still holds right after eviction, as text that any language
 * reads in a few lines and that git and gzip like. Tab-separated, one line per head:
 *
 *   kept-positions 1
 *   variant  INDEX  NAME  RESOLVED SPEC
 *   task     INDEX  LABEL
 *   kept     TASK  SAMPLE  HASH  VARIANT  LAYER  HEAD  SEEN  RANGES
 *   end      complete | partial
 *
 * RANGES are the live positions ascending, "0-3,17,20-31"; "-" if there are none. SEEN is the
 * number of tokens the sequence has seen, so SEEN minus the positions listed were evicted.
 */
#include "bench/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct kept_dump {
    FILE *file;
    char *path, *temp;
    uint8_t *alive; /* [max_tokens] */
};

static kept_status io_error(const kept_dump *d, kept_error *err)
{
    return kept_fail(err, KEPT_IO, "%s: %s", d->path, strerror(errno));
}

void kept_dump_abandon(kept_dump *d)
{
    if (!d)
        return;
    if (d->file) {
        fclose(d->file);
        unlink(d->temp);
    }
    free(d->path);
    free(d->temp);
    free(d->alive);
    free(d);
}

kept_status kept_dump_open(const kept_job *j, kept_dump **out, kept_error *err)
{
    size_t len = strlen(j->o->dump_kept) + 32;
    kept_dump *d = kept_calloc(1, sizeof *d);
    if (d) {
        d->path = strdup(j->o->dump_kept);
        d->temp = kept_calloc(len, 1);
        d->alive = kept_calloc((size_t)j->max_tokens, 1);
    }
    if (!d || !d->path || !d->temp || !d->alive) {
        kept_dump_abandon(d);
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    }
    snprintf(d->temp, len, "%s.%ld.tmp", d->path, (long)getpid());
    d->file = fopen(d->temp, "w");
    if (!d->file) {
        kept_status s = io_error(d, err);
        kept_dump_abandon(d);
        return s;
    }
    fprintf(d->file, "kept-positions 1\n");
    for (int v = 0; v < j->n_variants; v++) {
        const kept_strategy *s = j->variants[v].strategy;
        fprintf(d->file, "variant\t%d\t%s\t%s\n", v, j->variants[v].name,
                s ? kept_strategy_resolved(s) : "full");
    }
    for (int t = 0; t < j->o->n_tasks; t++)
        fprintf(d->file, "task\t%d\t%s\n", t, kept_task_label(j->tasks[t].task));
    *out = d;
    return KEPT_OK;
}

static void write_ranges(const kept_dump *d, int seen)
{
    const char *comma = "";
    for (int p = 0; p < seen; p++) {
        if (!d->alive[p])
            continue;
        int begin = p;
        while (p + 1 < seen && d->alive[p + 1])
            p++;
        if (p > begin)
            fprintf(d->file, "%s%d-%d", comma, begin, p);
        else
            fprintf(d->file, "%s%d", comma, begin);
        comma = ",";
    }
    fputs(*comma ? "\n" : "-\n", d->file);
}

kept_status kept_dump_write(kept_dump *d, const kept_work *w, int variant, kept_error *err)
{
    const kept_model_info *m = w->job->info;
    const kept_seq *seq = w->out[variant].seq;
    int seen = kept_seq_n_tokens(seq), cap = w->job->max_tokens;
    for (int l = 0; l < m->n_layers; l++) {
        for (int h = 0; h < m->n_kv_heads; h++) {
            int n = kept_seq_positions(seq, l, h, w->pos, cap);
            memset(d->alive, 0, (size_t)seen);
            for (int i = 0; i < n && i < cap; i++)
                d->alive[w->pos[i]] = 1;
            fprintf(d->file, "kept\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t", w->task, w->index,
                    w->tokens.hash, variant, l, h, seen);
            write_ranges(d, seen);
        }
    }
    return ferror(d->file) ? io_error(d, err) : KEPT_OK;
}

kept_status kept_dump_close(kept_dump *d, bool complete, kept_error *err)
{
    kept_status s = KEPT_OK;
    fprintf(d->file, "end\t%s\n", complete ? "complete" : "partial");
    bool bad = ferror(d->file) != 0;
    if (fclose(d->file) || bad || rename(d->temp, d->path)) {
        s = io_error(d, err);
        unlink(d->temp);
    }
    d->file = NULL;
    kept_dump_abandon(d);
    return s;
}
