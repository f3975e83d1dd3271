/* cli: what the subcommands share. A subcommand is one file cmd_NAME.c with one constant
 * kept_command; main.c lists them. Data goes to stdout, everything else to stderr. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

/* Exit statuses of every subcommand. */
enum { KEPT_EXIT_OK = 0, KEPT_EXIT_FAILED = 1, KEPT_EXIT_USAGE = 2 };

typedef struct kept_command {
    const char *name;                  /* "pull" */
    const char *summary;               /* one line for `kept help` */
    const char *help;                  /* the whole --help text, ends with a newline */
    int (*run)(int argc, char **argv); /* argv[0] is the name; returns an exit status */
} kept_command;

extern const kept_command kept_command_pull;

#endif
