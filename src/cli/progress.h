/* progress: the line on stderr that says how far a long command is, and Ctrl-C. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "base/base.h"

typedef struct kept_progress {
    bool show, quiet;
    uint64_t start, last;
} kept_progress;

/* The first Ctrl-C asks to stop, the second one kills. */
void kept_catch_signals(void);
/* Shows nothing if quiet, or where stderr is no terminal. */
void kept_progress_start(kept_progress *p, bool quiet);
/* For options.progress; ctx is the kept_progress. False: the user wants to stop. */
bool kept_progress_show(void *ctx, double done, const char *what);
void kept_progress_wipe(const kept_progress *p);

#endif
