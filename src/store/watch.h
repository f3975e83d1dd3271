/* watch: looking at a study while runs write to it. Each look reads what is new, a sample at a
 * time, so that a lock is held for some milliseconds at most and a writer, which waits for locks,
 * is never stopped. */
#ifndef STORE_WATCH_H
#define STORE_WATCH_H

#include "store/store.h"

typedef struct kept_watch kept_watch;

/* setting 0: all of them. The file is opened for reading only and not checked as a whole. */
kept_status kept_watch_open(const char *path, int64_t setting, kept_watch **out, kept_error *err);
void kept_watch_close(kept_watch *w); /* NULL is fine */

/* What there is now: {"samples", "complete" (samples that every row of their task has), "outcomes",
 * "outcomes_wanted", "claims", "tasks": [{"setting", "model", "label", "length", "kind", "samples",
 * "complete", "cells": [{"name", "role", "n", "failed", "value" (mean score, or NLL), "change"
 * (against the full cache on the same samples), "low", "high"}]}]}. low and high: 95 %, Tango's of
 * flips, else Student's; samples are taken as independent, so where they share a context the cells
 * of `kept run` are right and these are too narrow. */
kept_status kept_watch_look(kept_watch *w, json_t **out, kept_error *err);

#endif
