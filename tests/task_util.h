/* task_util: what the tests of tasks share: small models with both kinds of tokenizer (and the real
 * one when KEPT_MODEL names it), a temporary file, and calls that must not fail.
 */
#ifndef TESTS_TASK_UTIL_H
#define TESTS_TASK_UTIL_H

#include "task/parts.h"

enum { MAX_MODELS = 3, TEXT = 1 << 18 };
extern kept_model
    *models[MAX_MODELS]; /* [n_models] SentencePiece, byte pairs, maybe the real one */
extern int n_models;
extern char *file;      /* path of a temporary file */
extern char text[TEXT]; /* room for detokenized text */

bool task_util_open(void); /* fills all of these */
void task_util_close(void);
void write_file(const char *s);
kept_task_options options(const char *name, int length, int n);
kept_task *must_open(const kept_task_options *o, const kept_model *m);
void must_get(kept_task *t, int i, kept_sample *s, kept_tokens *k); /* k may be NULL */
int occurrences(const char *where, const char *what);
void prompt_of(kept_task *t, const kept_sample *s, char **out, size_t *split);

#endif
