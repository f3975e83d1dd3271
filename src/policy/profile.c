/* profile: what a part asks for and what that costs, in words: help, documentation and filters say
 * the same because all read this. */
#include "policy/parts.h"

#include <stdio.h>
#include <string.h>

static void add(char *text, size_t cap, const char *what)
{
    size_t n = strlen(text);
    if (n < cap)
        snprintf(text + n, cap - n, "%s%s", n ? ", " : "", what);
}

static void add_plane(kept_profile *p, kept_plane plane)
{
    char text[64];
    static const char *const other[] = {
        [KEPT_PLANE_FUTURE] = "attention of what is to come",
        [KEPT_PLANE_ECHO] = "attention while the context is repeated",
        [KEPT_PLANE_ECHO_PLUS] = "attention while the context is repeated, by hidden state",
        [KEPT_PLANE_PREDICTED] = "predictions from hidden states"};
    p->split = plane.split;
    p->planes = 1;
    if (plane.kind == KEPT_PLANE_LOCAL)
        snprintf(text, sizeof text, "attention inside blocks of %d tokens", plane.window);
    else if (plane.kind != KEPT_PLANE_MASS)
        snprintf(text, sizeof text, "%s", other[plane.kind]);
    else if (plane.window == INT32_MAX)
        snprintf(text, sizeof text, "attention mass of all queries");
    else if (plane.window == 1)
        snprintf(text, sizeof text, "attention mass of the last query");
    else
        snprintf(text, sizeof text, "attention mass of the last %d queries", plane.window);
    add(p->needs, sizeof p->needs, text);
    if (plane.split)
        add(p->needs, sizeof p->needs, "per query head");
}

static void add_needs(kept_profile *p, int needs, int recent, const char *trained)
{
    static const struct {
        int bit;
        const char *text;
    } words[] = {{KEPT_NEED_KEYS, "keys"},
                 {KEPT_NEED_KEYS0, "keys before rotation"},
                 {KEPT_NEED_VALUES, "values"},
                 {KEPT_NEED_OUTPUT, "output matrix"},
                 {KEPT_NEED_QUERIES, "query statistics"},
                 {KEPT_NEED_COSINE, "what layers do to their input"}};
    char text[64];
    if (recent) {
        snprintf(text, sizeof text, "the last %d queries", recent);
        add(p->needs, sizeof p->needs, text);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (needs & words[i].bit)
            add(p->needs, sizeof p->needs, words[i].text);
    if (trained) {
        snprintf(text, sizeof text, "trained file '%s'", trained);
        add(p->needs, sizeof p->needs, text);
    }
}

/* What the engine holds for a part while tokens come: G query heads a KV head, D numbers a row. */
static void add_state(kept_profile *p, bool plane, int recent, int needs)
{
    char text[64];
    if (plane)
        add(p->state, sizeof p->state, p->split ? "4 G B a slot" : "4 B a slot");
    if (recent) {
        snprintf(text, sizeof text, "%d G D B a head", 4 * recent);
        add(p->state, sizeof p->state, text);
    }
    if (needs & KEPT_NEED_QUERIES)
        add(p->state, sizeof p->state, "G (4 D + 4 D^2) B a head");
    if (needs & KEPT_NEED_COSINE)
        add(p->state, sizeof p->state, "8 B a layer");
}

static void score_profile(const kept_score *s, const double *options, kept_profile *p)
{
    kept_plane plane = s->plane ? s->plane(options) : (kept_plane){.kind = KEPT_PLANE_MASS};
    int recent = s->recent ? s->recent(options) : 0, needs = kept_score_needs(s, options);
    const char *trained = !s->uses_trained || s->uses_trained(options) ? s->trained : NULL;
    if (s->plane)
        add_plane(p, plane);
    add_needs(p, needs, recent, trained);
    add_state(p, s->plane != NULL, recent, needs);
    bool passes = plane.kind == KEPT_PLANE_ECHO || plane.kind == KEPT_PLANE_ECHO_PLUS;
    bool heavy = recent > 1 || needs & KEPT_NEED_QUERIES || plane.kind == KEPT_PLANE_LOCAL;
    bool rows = needs & (KEPT_NEED_KEYS | KEPT_NEED_KEYS0 | KEPT_NEED_VALUES | KEPT_NEED_OUTPUT);
    p->family = plane.kind == KEPT_PLANE_FUTURE                   ? "oracle"
                : trained                                         ? "learned"
                : passes                                          ? "passes"
                : s->plane || recent || needs & KEPT_NEED_QUERIES ? "attention"
                : rows                                            ? "keys"
                                                                  : "window";
    p->cost = passes || plane.kind == KEPT_PLANE_FUTURE ? "passes"
              : heavy                                   ? "queries"
              : rows                                    ? "rows"
              : s->plane                                ? "state"
                                                        : "none";
}

static void allocator_profile(const kept_allocator *a, const double *options, kept_profile *p)
{
    int recent = a->recent ? a->recent(options) : 0;
    if (a->needs_scores)
        add(p->needs, sizeof p->needs, "scores");
    add_needs(p, a->needs, recent, a->trained);
    add_state(p, false, recent, a->needs);
    p->family = a->trained ? "learned" : "allocation";
    p->cost = recent ? "queries" : a->observe ? "rows" : "none";
}

static void merge_profile(const kept_merge *m, const double *options, kept_profile *p)
{
    int recent = m->recent ? m->recent(options) : 0;
    if (m->plane)
        add_plane(p, m->plane(options));
    add_needs(p, m->needs, recent, NULL);
    add_state(p, m->plane != NULL, recent, 0);
    if (kept_merge_biases(m, options))
        add(p->state, sizeof p->state, "4 B a slot for the bias, which stay");
    p->cost = recent > 1 ? "queries" : m->merge ? "rows" : "none";
}

static void controller_profile(const kept_controller *c, const double *options, kept_profile *p)
{
    const kept_signal *s = kept_controller_acts(c) ? kept_signal_at((int)options[c->signal]) : NULL;
    if (s && s->attention) {
        add_plane(p, KEPT_SIGNAL_PLANE);
        p->cost = "state";
    }
    if (s && s->probe)
        add(p->needs, sizeof p->needs, "a full cache that reads the same tokens");
}

void kept_part_profile(const kept_part *part, const double *options, kept_profile *p)
{
    double defaults[KEPT_MAX_OPTIONS] = {0};
    *p = (kept_profile){.family = "", .cost = "none"};
    for (int i = 0; i < part->n_options && i < KEPT_MAX_OPTIONS; i++)
        defaults[i] = part->options[i].value;
    options = options ? options : defaults;
    /* A part is the first member of its score, wrapper or allocator. */
    if (part->axis == KEPT_AXIS_SCORE)
        score_profile((const kept_score *)(const void *)part, options, p);
    if (part->axis == KEPT_AXIS_ALLOCATOR)
        allocator_profile((const kept_allocator *)(const void *)part, options, p);
    if (part->axis == KEPT_AXIS_WRAPPER) {
        const kept_wrapper *w = (const kept_wrapper *)(const void *)part;
        add_needs(p, w->needs, 0, NULL);
        p->cost = w->needs ? "rows" : "none";
    }
    if (part->axis == KEPT_AXIS_MERGE)
        merge_profile((const kept_merge *)(const void *)part, options, p);
    if (part->axis == KEPT_AXIS_CONTROLLER)
        controller_profile((const kept_controller *)(const void *)part, options, p);
    const kept_read *r = (const kept_read *)(const void *)part;
    if (part->axis == KEPT_AXIS_READ && r->note) {
        add(p->needs, sizeof p->needs, "notes on the keys of pages");
        snprintf(p->state, sizeof p->state, "%d D B a page", 2 * r->note);
        p->cost = "state";
    }
    if (part == &kept_part_calibrated || part == &kept_part_searched)
        add_needs(p, 0, 0, part == &kept_part_searched ? "split" : "bits");
    if (part == &kept_part_values) {
        bool output = (int)options[KEPT_VALUES_KIND] == KEPT_WEIGHT_OUTPUT;
        add_needs(p, output ? KEPT_NEED_OUTPUT : KEPT_NEED_VALUES, 0, NULL);
        p->cost = "rows";
    }
}
