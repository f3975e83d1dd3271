/* progress: at most five lines a second, written over each other. */
#include "cli/progress.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define PROGRESS_NS 200000000u

static volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
    (void)number;
    stop_asked = 1;
}

void kept_catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal};
    a.sa_flags = (int)SA_RESETHAND;
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error, not an end */
}

void kept_progress_start(kept_progress *p, bool quiet)
{
    *p = (kept_progress){
        .show = !quiet && isatty(STDERR_FILENO), .quiet = quiet, .start = kept_clock_ns()};
}

static void print_left(double seconds)
{
    if (seconds >= 90)
        fprintf(stderr, "about %.0f min left", seconds / 60);
    else
        fprintf(stderr, "about %.0f s left", seconds);
}

bool kept_progress_show(void *ctx, double done, const char *what)
{
    kept_progress *p = ctx;
    uint64_t now = kept_clock_ns();
    if (p->show && now - p->last > PROGRESS_NS) {
        p->last = now;
        fprintf(stderr, "\r\033[K%3.0f%%  %s  ", 100 * done, what);
        if (done > 0.02)
            print_left((double)(now - p->start) / 1e9 * (1 - done) / done);
        fflush(stderr);
    }
    return !stop_asked;
}

void kept_progress_wipe(const kept_progress *p)
{
    if (p->show)
        fputs("\r\033[K", stderr);
}
