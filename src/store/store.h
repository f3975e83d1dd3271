/* store: a study: one SQLite file with every sample that was ever run for it, so that a run can be
 * killed, resumed, widened, and shared by several processes.
 *
 *   setting   model, versions, kernel level, and every option that a figure may depend on
 *   task      of a setting: its options, and which prompts (hashes of their tokens)
 *   variant   of a setting: a resolved strategy, with the trained files it read
 *   cell      a task and a variant; outcome: what happened to a cell on a sample; kept_map: the
 *             positions it held (compressed)
 *
 * Another model, prompt or option is another setting, task or variant: samples of different kinds
 * never meet in one cell. A finished sample is one transaction. Which process works on which sample
 * is a claim with an end: a process that died on this machine loses its claims at once, one
 * elsewhere after two minutes. The file uses a rollback journal, so it may lie on a network file
 * system whose locks work.
 *
 * Errors are one line: IO (disk full, read-only, not there; what was stored stays), FORMAT (not a
 * study, damaged, made by a newer kept), NOMEM. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "bench/run.h"

#define KEPT_STORE_SCHEMA 3

typedef struct kept_store kept_store;

typedef enum kept_store_mode {
    KEPT_STORE_READ,  /* must be there */
    KEPT_STORE_WATCH, /* as READ, without reading the whole file to check it: watch.h */
    KEPT_STORE_WRITE, /* must be there */
    KEPT_STORE_CREATE /* made where it is not */
} kept_store_mode;

/* An older schema is brought up to date first, in one transaction (READ: refused if the file cannot
 * be written). */
kept_status kept_store_open(const char *path, kept_store_mode mode, kept_store **out,
                            kept_error *err);
void kept_store_close(kept_store *s); /* NULL is fine */
/* True: the file begins as an SQLite file does. */
bool kept_store_is_study(const char *path);

/* The sink that makes a run work on this study; valid until close. Only one run at a time. */
const kept_run_sink *kept_store_sink(kept_store *s, int rank, int n_ranks);
/* Samples of the run that the study had before it began. */
int kept_store_n_found(const kept_store *s);

/* Settings with their tasks, variants and numbers of samples, as JSON: [{"id", "model", "sha256",
 * "date", "tasks": [{"label", "samples"}], "variants": [name], "outcomes", "claims"}]. */
kept_status kept_store_list(kept_store *s, json_t **out, kept_error *err);
/* All of one setting as a result document, cells included. setting 0: the only one; ARGUMENT if
 * there are several, or no such one. */
kept_status kept_store_export(kept_store *s, int64_t setting, json_t **doc, kept_error *err);
/* Adds the samples of a result document. *n: outcomes that were not there. */
kept_status kept_store_import(kept_store *s, const json_t *doc, int64_t *n, kept_error *err);
/* Checks every page and index of the file. FORMAT: what is wrong first. */
kept_status kept_store_check(kept_store *s, kept_error *err);
/* A prompt of a study. */
typedef struct kept_store_prompt {
    int64_t setting; /* 0: any */
    int index;       /* of the sample */
    const char *hash;
} kept_store_prompt;
/* The map of kept positions (bench/keptmap.h) of a prompt under a resolved strategy, malloc'ed;
 * NOT_FOUND. */
kept_status kept_store_map(kept_store *s, const kept_store_prompt *p, const char *resolved,
                           uint8_t **map, size_t *bytes, kept_error *err);
/* Its tokens [*n], the prefix [*n_prefix] first, malloc'ed; NOT_FOUND: an imported sample. */
kept_status kept_store_tokens(kept_store *s, const kept_store_prompt *p, int32_t **tokens,
                              int *n_prefix, int *n, kept_error *err);

#endif
