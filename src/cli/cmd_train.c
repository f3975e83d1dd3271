/* kept train, kept calibrate: make what learned and static strategies need of a model. */
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "train/train.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_MODEL "smollm2-135m"

typedef struct options {
    const char *kind, *model, *text, *out, *held_out, *type, *isa;
    int64_t tokens, seed, threads;
    bool quiet;
    char model_path[4096], text_path[4096], out_path[4096];
} options;

static const char tail[] =
    "  --text FILE       UTF-8 text to read [the one that 'make setup' brings]\n"
    "  --held-out FILE   also write the part of the text that is held out, to evaluate on\n"
    "  --tokens N        how much is read [what the list above says]\n"
    "  -o, --out FILE    where the result goes [CACHE/trained/<model>/KIND.kept, which kept run "
    "finds]\n"
    "  --seed N [1]  --threads N  --isa LEVEL  --quiet\n\n"
    "MODEL is a name of 'kept pull' or a file [" DEFAULT_MODEL
    "]. Stopped with Ctrl-C or worse, the\n"
    "same command goes on where it was. The same arguments give the same bytes.\n";

static int print_help(bool calibrates)
{
    const char *verb = calibrates ? "calibrate" : "train";
    printf("usage: kept %s KIND [MODEL] [options]\n%s\n\n", verb,
           calibrates ? "Measures what strategies with static tables need to know of a model."
                      : "Trains what learned strategies need for a model.");
    for (int i = 0; i < kept_train_kind_count(); i++) {
        const kept_train_kind *k = kept_train_kind_at(i);
        char lead[24], text[320];
        if (k->calibrates != calibrates)
            continue;
        snprintf(lead, sizeof lead, "  %s", k->name);
        snprintf(text, sizeof text, "%s [%d tokens]", k->summary, k->n_tokens);
        kept_print_wrapped(stdout, 17, lead, text);
    }
    kept_print_wrapped(stdout, 17, "  all", "every kind above, one after the other");
    printf("\n%s%s\nexample\n  kept %s %s\n",
           calibrates ? "" : "  --type T          kvzap: linear or mlp\n", tail, verb,
           calibrates ? "duo smollm2-135m --seed 2" : "ranker smollm2-135m --text my.txt");
    return KEPT_EXIT_OK;
}

/* ---- arguments ------------------------------------------------------------------------------ */

enum { TEXT, HELD_OUT, TOKENS, OUT, SEED, THREADS, ISA, QUIET, TYPE };
static const kept_flag flags[] = {
    {"text", true},    {"held-out", true}, {"tokens", true}, {"out", true},  {"seed", true},
    {"threads", true}, {"isa", true},      {"quiet", false}, {"type", true},
};

static int set_flag(options *o, const kept_args *a, int i, bool calibrates)
{
    bool ok = true;
    if (i == TYPE && calibrates)
        return kept_usage(a->argv[0], "unknown option '--type'");
    switch (i) {
    case TOKENS:
        ok = kept_args_int(a, "tokens", 64, INT64_C(1) << 40, &o->tokens);
        break;
    case SEED:
        ok = kept_args_int(a, "seed", 0, INT64_MAX, &o->seed);
        break;
    case THREADS:
        ok = kept_args_int(a, "threads", 0, 512, &o->threads);
        break;
    case QUIET:
        o->quiet = true;
        break;
    default:
        *(i == TEXT       ? &o->text
          : i == HELD_OUT ? &o->held_out
          : i == OUT      ? &o->out
          : i == ISA      ? &o->isa
                          : &o->type) = a->value;
    }
    return ok ? -1 : KEPT_EXIT_USAGE;
}

static int parse(options *o, int argc, char **argv, bool calibrates)
{
    char out[] = "--out";
    for (int i = 1; i < argc; i++) /* -o is --out: the only short option there is */
        if (!strcmp(argv[i], "-o"))
            argv[i] = out;
    kept_args a = {argc, argv, 1, false, NULL};
    for (;;) {
        int i = kept_args_next(&a, flags, sizeof flags / sizeof *flags), code = -1;
        if (i == KEPT_ARG_END)
            return -1;
        if (i == KEPT_ARG_ERROR)
            return KEPT_EXIT_USAGE;
        if (i == KEPT_ARG_HELP)
            return print_help(calibrates);
        if (i >= 0)
            code = set_flag(o, &a, i, calibrates);
        else if (!o->kind)
            o->kind = a.value;
        else if (!o->model)
            o->model = a.value;
        else
            code = kept_usage(argv[0], "unexpected argument '%s'", a.value);
        if (code >= 0)
            return code;
    }
}

/* ---- checks --------------------------------------------------------------------------------- */

static int check_kind(const char *verb, const options *o, bool calibrates)
{
    const char *names[32];
    int n = 0;
    for (int i = 0; i < kept_train_kind_count() && n < 32; i++)
        if (kept_train_kind_at(i)->calibrates == calibrates)
            names[n++] = kept_train_kind_at(i)->name;
    if (!o->kind)
        return kept_usage(verb, "KIND is missing: %s, ...", names[0]);
    const kept_train_kind *k = kept_train_kind_find(o->kind);
    if (k && k->calibrates != calibrates)
        return kept_usage(verb, "'%s' is made with: kept %s %s", o->kind,
                          calibrates ? "train" : "calibrate", o->kind);
    if (k && !k->reads_text && (o->text || o->held_out))
        return kept_usage(verb, "'%s' makes its own prompts and reads no text", o->kind);
    if (k)
        return -1;
    int near = kept_nearest(o->kind, strlen(o->kind), names, n);
    return near >= 0
               ? kept_usage(verb, "unknown kind '%s', did you mean '%s'?", o->kind, names[near])
               : kept_usage(verb, "unknown kind '%s'", o->kind);
}

static int find_files(const char *verb, options *o)
{
    if (!o->model)
        o->model = DEFAULT_MODEL;
    kept_status s = kept_model_path(o->model, o->model_path, sizeof o->model_path);
    if (s == KEPT_NOT_FOUND)
        return kept_failed(verb, "model %s is not here yet; try 'kept pull %s'", o->model,
                           o->model);
    if (s)
        return kept_usage(verb, "the model's path is too long");
    if (o->text || !kept_train_kind_find(o->kind)->reads_text)
        return -1;
    if (kept_cache_folder("text/kjv.txt", o->text_path, sizeof o->text_path) ||
        access(o->text_path, R_OK))
        return kept_failed(verb, "no text is here; run make setup, or name one with --text FILE");
    o->text = o->text_path;
    return -1;
}

/* Makes every folder of path but the last part, which is a file. */
static bool make_folders(char *path)
{
    for (char *c = path + 1; *c; c++) {
        if (*c != '/')
            continue;
        *c = '\0';
        bool bad = mkdir(path, 0777) && errno != EEXIST;
        *c = '/';
        if (bad)
            return false;
    }
    return true;
}

static int find_out(const char *verb, options *o)
{
    char dir[3000], hex[65];
    kept_error err;
    if (o->out) {
        const char *slash = strrchr(o->out, '/');
        snprintf(o->out_path, sizeof o->out_path, "%.*s", slash ? (int)(slash - o->out + 1) : 2,
                 slash ? o->out : "./");
        if (strlen(o->out) > sizeof o->out_path - 16)
            return kept_usage(verb, "the path of --out is too long");
        return access(o->out_path, W_OK)
                   ? kept_failed(verb, "%s: the folder cannot be written to", o->out)
                   : -1;
    }
    if (kept_sha256_file(o->model_path, hex, &err))
        return kept_failed(verb, "%s", err.text);
    if (kept_cache_folder("trained", dir, sizeof dir))
        return kept_usage(verb, "no place for the result: set KEPT_CACHE or HOME, or say -o FILE");
    snprintf(o->out_path, sizeof o->out_path, "%s/%.16s/%s.kept", dir, hex, o->kind);
    o->out = o->out_path;
    return make_folders(o->out_path)
               ? -1
               : kept_failed(verb, "%s: cannot be made: %s", o->out_path, strerror(errno));
}

/* ---- result --------------------------------------------------------------------------------- */

static void print_result(const options *o, const kept_train_report *r, double seconds)
{
    char hex[65];
    const char *key, *value;
    printf("%-28s %s\n", "file", o->out);
    if (!kept_sha256_file(o->out, hex, NULL))
        printf("%-28s %s\n", "sha256", hex);
    printf("%-28s %s\n%-28s %s\n", "kind", kept_trained_kind(r->file), "model",
           kept_trained_model_sha256(r->file));
    for (int i = 0; (value = kept_trained_note_at(r->file, i, &key)); i++)
        printf("%-28s %s\n", key, value);
    if (r->was_there)
        fprintf(stderr, "it was there already, made with these arguments\n");
    else
        fprintf(stderr, "%d steps in %.0f s\n", r->n_steps - r->resumed, seconds);
}

static int work(const char *verb, options *o)
{
    kept_progress p;
    kept_train_report r;
    kept_error err = {.text = ""};
    kept_progress_start(&p, o->quiet);
    const kept_train_options t = {
        .kind = o->kind,
        .model_path = o->model_path,
        .text = o->text,
        .out = o->out,
        .n_tokens = o->tokens,
        .seed = (uint64_t)o->seed,
        .n_threads = (int)o->threads,
        .isa = o->isa ? o->isa : getenv("KEPT_ISA"),
        .variant = o->type,
        .held_out = o->held_out,
        .progress = kept_progress_show,
        .ctx = &p,
    };
    kept_status s = kept_train(&t, &r, &err);
    kept_progress_wipe(&p);
    if (r.stale)
        fprintf(stderr, "kept %s: what was begun with other arguments was thrown away\n", verb);
    if (r.resumed)
        fprintf(stderr, "kept %s: went on after step %d of %d\n", verb, r.resumed, r.n_steps);
    if (s == KEPT_CANCELLED)
        return kept_failed(verb, "%s; the same command goes on from there", err.text);
    if (s) {
        int code = kept_failed(verb, "%s", err.text);
        return s == KEPT_ARGUMENT ? KEPT_EXIT_USAGE : code;
    }
    print_result(o, &r, (double)(kept_clock_ns() - p.start) / 1e9);
    kept_trained_free(r.file);
    return KEPT_EXIT_OK;
}

static int one_kind(const char *verb, options *o, bool calibrates)
{
    int code = check_kind(verb, o, calibrates);
    if (code < 0)
        code = find_files(verb, o);
    if (code < 0)
        code = find_out(verb, o);
    if (code < 0)
        code = work(verb, o);
    return code;
}

/* Every kind of the command, one after the other; stops at the first that fails. */
static int all_kinds(const char *verb, const options *all, bool calibrates)
{
    int code = KEPT_EXIT_OK, n = 0;
    if (all->out)
        return kept_usage(verb, "'all' writes a file per kind where kept run finds them; leave "
                                "--out away");
    for (int i = 0; i < kept_train_kind_count() && code == KEPT_EXIT_OK; i++) {
        const kept_train_kind *k = kept_train_kind_at(i);
        if (k->calibrates != calibrates)
            continue;
        options o = *all;
        o.kind = k->name;
        if (!k->reads_text)
            o.text = o.held_out = NULL;
        if (!k->has_types)
            o.type = NULL;
        if (n++)
            putchar('\n');
        code = one_kind(verb, &o, calibrates);
        fflush(stdout);
    }
    return code;
}

static int command(int argc, char **argv, bool calibrates)
{
    options o = {.seed = 1};
    int code = parse(&o, argc, argv, calibrates);
    if (code >= 0)
        return code;
    kept_catch_signals();
    return o.kind && !strcmp(o.kind, "all") ? all_kinds(argv[0], &o, calibrates)
                                            : one_kind(argv[0], &o, calibrates);
}

int kept_cmd_train(int argc, char **argv)
{
    return command(argc, argv, false);
}

int kept_cmd_calibrate(int argc, char **argv)
{
    return command(argc, argv, true);
}
