/* cli: what the subcommands share. Each command is one file with one `int kept_cmd_NAME(int argc,
 * char **argv)`, argv[0] being the command's name, and one row of the table in main.c.
 *
 * Data goes to stdout, messages to stderr as "kept NAME: what". A command returns one of the exit
 * codes below and neither flushes stdout nor checks it: main does both in one place.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/base.h"

#include <stdio.h>

enum { KEPT_EXIT_OK, KEPT_EXIT_FAILED, KEPT_EXIT_USAGE };

typedef struct kept_command {
    const char *name;
    const char *args;    /* what follows the name in a synopsis */
    const char *summary; /* one line */
    int (*run)(int argc, char **argv);
} kept_command;

extern const kept_command kept_commands[];
extern const int kept_n_commands;

int kept_cmd_run(int argc, char **argv);
int kept_cmd_selftest(int argc, char **argv);
int kept_cmd_power(int argc, char **argv);
int kept_cmd_compare(int argc, char **argv);
int kept_cmd_report(int argc, char **argv);
int kept_cmd_watch(int argc, char **argv);
int kept_cmd_advise(int argc, char **argv);
int kept_cmd_study(int argc, char **argv);
int kept_cmd_train(int argc, char **argv);
int kept_cmd_calibrate(int argc, char **argv);
int kept_cmd_park(int argc, char **argv);
int kept_cmd_resume(int argc, char **argv);
int kept_cmd_pull(int argc, char **argv);
int kept_cmd_plan(int argc, char **argv);
int kept_cmd_ls(int argc, char **argv);
int kept_cmd_show(int argc, char **argv);
int kept_cmd_check(int argc, char **argv);
int kept_cmd_version(int argc, char **argv);
int kept_cmd_help(int argc, char **argv);

/* ---- messages ------------------------------------------------------------------------------ */
/* "kept COMMAND: text" and "Try 'kept COMMAND --help'." on stderr; returns KEPT_EXIT_USAGE. */
int kept_usage(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "kept COMMAND: text" on stderr; returns KEPT_EXIT_FAILED. */
int kept_failed(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A spec that did not parse: the message, then the spec with a caret under err->at. Returns
 * KEPT_EXIT_USAGE. */
int kept_usage_spec(const char *command, const char *spec, const kept_error *err);

/* ---- arguments ----------------------------------------------------------------------------- */
typedef struct kept_flag {
    const char *name; /* without the dashes */
    bool value;       /* takes one: --name VALUE or --name=VALUE */
} kept_flag;

typedef struct kept_args {
    int argc;
    char **argv;
    int next;          /* index of the next argument; start with 1 */
    bool only_words;   /* after "--" */
    const char *value; /* of the flag just returned, or the word */
} kept_args;

enum { KEPT_ARG_END = -1, KEPT_ARG_WORD = -2, KEPT_ARG_ERROR = -3, KEPT_ARG_HELP = -4 };

/* Index into flags of the next argument, or one of the above. ERROR: the message, with the nearest
 * flag, is on stderr; return KEPT_EXIT_USAGE. HELP: -h or --help. */
int kept_args_next(kept_args *a, const kept_flag *flags, int n_flags);

/* Whole decimal number in [min, max] of flag --name. False: the message is on stderr. */
bool kept_args_int(const kept_args *a, const char *name, int64_t min, int64_t max, int64_t *out);
/* A number in [min, max] of flag --name, "pt" or "%" after it or not. False: the message is on
 * stderr. */
bool kept_args_number(const kept_args *a, const char *name, double min, double max, double *out);
/* Up to cap such numbers between commas into out, how many into *n. */
bool kept_args_numbers(const kept_args *a, const char *name, const double range[2], double *out,
                       int cap, int *n);
/* "table" or "json" of --format. False: the message is on stderr. */
bool kept_args_json(const kept_args *a, bool *json);

/* ---- output -------------------------------------------------------------------------------- */
/* Prints the help page of a command or topic to stdout; returns KEPT_EXIT_OK. */
int kept_help_print(const char *topic);
/* Prints text wrapped to 78 columns, every line indented, the first one after `lead`. */
void kept_print_wrapped(FILE *out, int indent, const char *lead, const char *text);
/* "10.5 GB", three significant digits, powers of 1000; returns buf. */
const char *kept_format_decimal(double bytes, char *buf, size_t cap);

#endif
