/* foresee: the passes over a prefix that some strategies need before they choose. */
#include "bench/job.h"

#include <stdlib.h>
#include <string.h>

static bool has_plane(const kept_job *j, kept_plane_kind kind)
{
    for (int i = 0; i < j->capture.n_planes; i++)
        if (j->capture.plane[i].kind == kind)
            return true;
    return false;
}

static bool echoes(const kept_job *j)
{
    return has_plane(j, KEPT_PLANE_ECHO) || has_plane(j, KEPT_PLANE_ECHO_PLUS);
}

int kept_look_ahead_room(const kept_job *j)
{
    return echoes(j) ? kept_echo_room(j->max_prefix) : 0;
}

/* What will come: the questions or the text that goes on, then the last reference answer if there
 * is one; of requests, the first. *out [returned n], malloc; -1: out of memory. */
static int coming(const kept_work *w, int32_t **out)
{
    const kept_model *m = w->job->model;
    const bool requests = kept_task_turn_mode(w->job->tasks[w->task].task) == KEPT_TURNS_REQUESTS;
    const int last = requests ? 0 : w->sample.n_turns - 1;
    const kept_turn *turn = w->sample.n_turns ? &w->sample.turns[last] : NULL;
    const char *answer = turn && turn->n_answers > 0 ? turn->answers[0] : "";
    const int n_suffix = turn ? w->tokens.turns[last].end : w->n_suffix;
    int cap = w->job->max_tokens, n = 0, room = cap - w->n_prefix - n_suffix;
    *out = kept_calloc((size_t)cap + 1, sizeof **out);
    if (!*out)
        return -1;
    memcpy(*out, w->suffix, (size_t)n_suffix * sizeof **out);
    if (w->job->tasks[w->task].kind != KEPT_TASK_GENERATE || room < 1 ||
        kept_tokenize(m, answer, strlen(answer), false, false, *out + n_suffix, room, &n))
        n = 0;
    return n_suffix + n;
}

kept_status kept_look_ahead(kept_work *w, kept_seq *prefix, kept_error *err)
{
    /* Each strategy that misses a pass says so itself when it evicts. */
    if (echoes(w->job))
        (void)kept_seq_echo(prefix, NULL);
    if (has_plane(w->job, KEPT_PLANE_FUTURE)) {
        int32_t *tokens;
        int n = coming(w, &tokens);
        if (n < 0)
            return kept_fail(err, KEPT_NOMEM, "out of memory for what will come");
        (void)kept_seq_foresee(prefix, tokens, n, NULL);
        free(tokens);
    }
    return KEPT_OK;
}
