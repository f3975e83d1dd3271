/* kept park, kept resume: a prompt's cache as a file, and the answer from it in another process. */
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "kept/trained.h"
#include "task/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_MODEL "smollm2-135m"

static const char park_help[] =
    "usage: kept park PROMPT.txt -o FILE [options]\n"
    "Reads a prompt, lets the strategy evict, and writes what is left of the cache to FILE, from\n"
    "which 'kept resume' goes on. Bit for bit, or with park(bits=B) in about B bits a number.\n\n"
    "  -o, --out FILE     where it goes\n"
    "  --model NAME|FILE  [" DEFAULT_MODEL "]\n"
    "  --strategy SPEC    [full]\n"
    "  --trained FILE     what the strategy reads, of 'kept calibrate' or 'kept train'\n"
    "  --threads N  --isa LEVEL [KEPT_ISA]\n\n"
    "examples\n"
    "  kept park book.txt -o book.parked\n"
    "  kept park book.txt -o book.parked --strategy 'snapkv+kvtc(bits=3)@50%'\n";

static const char resume_help[] =
    "usage: kept resume FILE --text TEXT [options]\n"
    "Goes on from a file of 'kept park': reads TEXT behind the parked prompt and writes the most\n"
    "likely continuation.\n\n"
    "  --text TEXT        what comes next, for example a question\n"
    "  --model NAME|FILE  the one it was parked with [" DEFAULT_MODEL "]\n"
    "  --max-new N        tokens to write at most [64]\n"
    "  --trained FILE     what its strategy reads\n"
    "  --threads N  --isa LEVEL [KEPT_ISA]\n\n"
    "example\n"
    "  kept resume book.parked --text ' The moral of all this is'\n";

typedef struct options {
    const char *file, *out, *model, *spec, *text, *isa, *trained;
    int64_t max_new, threads;
} options;

/* What is open while a command runs. */
typedef struct session {
    char path[4096];
    kept_model *model;
    kept_trained *trained;
    kept_strategy *strategy;
    kept_engine *engine;
    kept_seq *seq;
    int32_t *tokens;
    int n;
    void *data;
    size_t size;
} session;

static void session_end(session *x)
{
    kept_seq_free(x->seq);
    kept_engine_free(x->engine);
    kept_strategy_free(x->strategy);
    kept_trained_free(x->trained);
    kept_model_free(x->model);
    free(x->tokens);
    free(x->data);
}

/* An exit code, or -1: go on. */
static int parse(options *o, bool parks, int argc, char **argv)
{
    static const kept_flag flags[] = {{"out", true},     {"model", true},  {"strategy", true},
                                      {"text", true},    {"isa", true},    {"trained", true},
                                      {"max-new", true}, {"threads", true}};
    char out[] = "--out";
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "-o"))
            argv[i] = out;
    kept_args a = {argc, argv, 1, false, NULL};
    const char **const text[] = {&o->out, &o->model, &o->spec, &o->text, &o->isa, &o->trained};
    for (int f; (f = kept_args_next(&a, flags, sizeof flags / sizeof *flags)) != KEPT_ARG_END;) {
        if (f == KEPT_ARG_HELP) {
            fputs(parks ? park_help : resume_help, stdout);
            return KEPT_EXIT_OK;
        }
        if (f == KEPT_ARG_WORD && o->file)
            return kept_usage(argv[0], "takes one file, got '%s' too", a.value);
        if (f == KEPT_ARG_WORD)
            o->file = a.value;
        if (f >= 0 && (parks ? f == 3 || f == 6 : f == 0 || f == 2))
            return kept_usage(argv[0], "unknown option '--%s'", flags[f].name);
        if (f >= 0 && f < 6)
            *text[f] = a.value;
        if (f == KEPT_ARG_ERROR ||
            (f == 6 && !kept_args_int(&a, "max-new", 1, 1 << 20, &o->max_new)) ||
            (f == 7 && !kept_args_int(&a, "threads", 0, 512, &o->threads)))
            return KEPT_EXIT_USAGE;
    }
    return -1;
}

/* The model of --model, open. An exit code, or -1. */
static int open_model(session *x, const char *verb, const char *name)
{
    kept_error err;
    switch (kept_model_path(name, x->path, sizeof x->path)) {
    case KEPT_OK:
        break;
    case KEPT_NOT_FOUND:
        return kept_failed(verb, "model %s is not here yet; try 'kept pull %s'", name, name);
    default:
        return kept_usage(verb, "the model's path is too long");
    }
    return kept_model_open(x->path, &x->model, &err) ? kept_failed(verb, "%s", err.text) : -1;
}

static kept_status tokenize(session *x, const char *text, size_t len, bool bos, kept_error *err)
{
    const int cap = (int)(len < INT32_MAX / 2 ? len + 2 : INT32_MAX / 2);
    x->tokens = kept_calloc((size_t)cap, sizeof *x->tokens);
    if (!x->tokens)
        return kept_fail(err, KEPT_NOMEM, "no memory for the text's tokens");
    if (kept_tokenize(x->model, text, len, bos, false, x->tokens, cap, &x->n))
        return kept_fail(err, KEPT_ARGUMENT, "the text cannot be made tokens of");
    return x->n ? KEPT_OK : kept_fail(err, KEPT_ARGUMENT, "the text has no token");
}

static kept_status engine_for(session *x, const options *o, int max_tokens, kept_error *err)
{
    const kept_engine_options e = {.n_threads = (int)o->threads,
                                   .max_tokens = max_tokens,
                                   .isa = o->isa ? o->isa : getenv("KEPT_ISA")};
    kept_status st = kept_engine_new(x->model, &e, &x->engine, err);
    if (!st && o->trained)
        st = kept_trained_open(o->trained, &x->trained, err);
    if (!st && o->trained)
        st = kept_engine_add_trained(x->engine, x->trained, err);
    return st;
}

static kept_status save(const char *path, const void *data, size_t n, kept_error *err)
{
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(data, 1, n, f) == n;
    const int why = errno;
    ok &= f && !fclose(f);
    if (f && !ok)
        unlink(path);
    return ok ? KEPT_OK : kept_fail(err, KEPT_IO, "%s: cannot be written: %s", path, strerror(why));
}

static kept_status load_text(session *x, const char *path, kept_error *err)
{
    kept_buf b = {0};
    const kept_status st = kept_buf_read_file(path, &b, err);
    x->data = b.s;
    x->size = b.n;
    return st;
}

static kept_status load(session *x, const char *path, kept_error *err)
{
    FILE *f = fopen(path, "rb");
    struct stat s;
    const bool ok = f && !fstat(fileno(f), &s) && S_ISREG(s.st_mode) && s.st_size > 0 &&
                    (x->data = malloc((size_t)s.st_size)) &&
                    fread(x->data, 1, (size_t)s.st_size, f) == (size_t)s.st_size;
    const int why = errno;
    x->size = ok ? (size_t)s.st_size : 0;
    if (f)
        fclose(f);
    return ok ? KEPT_OK
              : kept_fail(err, KEPT_IO, "%s: cannot be read: %s", path,
                          f ? "no file, or empty" : strerror(why));
}

/* ---- park ----------------------------------------------------------------------------------- */

static kept_status park(session *x, const options *o, kept_error *err)
{
    char held[32], parked[32];
    kept_account account;
    kept_status st = load_text(x, o->file, err);
    st = st ? st : tokenize(x, x->data, x->size, true, err);
    st = st ? st : engine_for(x, o, x->n + 1, err);
    st = st ? st : kept_seq_new(x->engine, x->strategy, NULL, 1, &x->seq, err);
    st = st ? st : kept_seq_prefill(x->seq, x->tokens, x->n, 0, 0, err);
    st = st ? st : kept_seq_end_prefill(x->seq, err);
    if (st)
        return st;
    free(x->data);
    x->data = NULL;
    kept_seq_account(x->seq, &account);
    const uint64_t t0 = kept_clock_ns();
    st = kept_seq_park(x->seq, &x->data, &x->size, err);
    if (st)
        return st;
    x->seq = NULL;
    const double ms = (double)(kept_clock_ns() - t0) / 1e6;
    st = save(o->out, x->data, x->size, err);
    if (st)
        return st;
    const double full = (double)kept_full_kv_bytes(kept_model_get_info(x->model), x->n);
    printf("%d tokens, %s held, %s parked: %.1f%% of what the full cache takes (%.1fx), %.0f ms\n",
           x->n, kept_format_bytes(account.kv_bytes + account.meta_bytes, held, sizeof held),
           kept_format_bytes(x->size, parked, sizeof parked), 100 * (double)x->size / full,
           full / (double)x->size, ms);
    return KEPT_OK;
}

int kept_cmd_park(int argc, char **argv)
{
    options o = {.model = DEFAULT_MODEL, .spec = "full"};
    session x = {.n = 0};
    kept_error err = {.text = ""};
    int code = parse(&o, true, argc, argv);
    if (code >= 0)
        return code;
    if (!o.file || !o.out)
        return kept_usage("park", o.file ? "needs -o FILE" : "needs a file with the prompt");
    if (kept_strategy_parse(o.spec, &x.strategy, &err))
        return kept_usage_spec("park", o.spec, &err);
    code = open_model(&x, "park", o.model);
    if (code < 0) {
        const kept_status st = park(&x, &o, &err);
        code = st ? kept_failed("park", "%s", err.text) : KEPT_EXIT_OK;
    }
    session_end(&x);
    return code;
}

/* ---- resume --------------------------------------------------------------------------------- */

/* Reads the text and writes what follows. */
static kept_status answer(session *x, const options *o, kept_error *err)
{
    const int n_vocab = kept_model_get_info(x->model)->n_vocab;
    kept_status st = KEPT_OK;
    for (int at = 0; at < x->n && !st; at += 256) {
        const int n = x->n - at < 256 ? x->n - at : 256;
        const kept_item it = {
            .seq = x->seq, .tokens = x->tokens + at, .n_tokens = n, .n_logits = at + n == x->n};
        st = kept_engine_forward(x->engine, &it, 1, err);
    }
    for (int64_t i = 0; i < o->max_new && !st; i++) {
        const float *logits = kept_engine_logits(x->engine);
        char piece[256];
        int32_t best = 0;
        for (int32_t v = 1; v < n_vocab; v++)
            best = logits[v] > logits[best] ? v : best;
        if (kept_token_is_end(x->model, best))
            break;
        kept_detokenize(x->model, &best, 1, false, piece, sizeof piece);
        fputs(piece, stdout);
        fflush(stdout);
        const kept_item it = {.seq = x->seq, .tokens = &best, .n_tokens = 1, .n_logits = 1};
        st = kept_engine_forward(x->engine, &it, 1, err);
    }
    putchar('\n');
    return st;
}

static kept_status resume(session *x, const options *o, kept_error *err)
{
    kept_parked about;
    kept_status st = load(x, o->file, err);
    if (!st && kept_parked_look(x->data, x->size, &about, err))
        st = kept_fail(err, KEPT_FORMAT, "%s: no file of 'kept park' of this version, or damaged",
                       o->file);
    st = st ? st : kept_strategy_parse(about.spec, &x->strategy, err);
    st = st ? st : tokenize(x, o->text, strlen(o->text), false, err);
    st = st ? st : engine_for(x, o, about.n_tokens + x->n + (int)o->max_new, err);
    const uint64_t t0 = kept_clock_ns();
    const bool full = !st && !strcmp(about.spec, "full");
    st = st ? st
            : kept_seq_resume(x->engine, full ? NULL : x->strategy, x->data, x->size, &x->seq, err);
    if (st)
        return st;
    fprintf(stderr, "%d tokens under %s, resumed in %.0f ms\n", about.n_tokens,
            kept_strategy_name(x->strategy), (double)(kept_clock_ns() - t0) / 1e6);
    return answer(x, o, err);
}

int kept_cmd_resume(int argc, char **argv)
{
    options o = {.model = DEFAULT_MODEL, .max_new = 64};
    session x = {.n = 0};
    kept_error err = {.text = ""};
    int code = parse(&o, false, argc, argv);
    if (code >= 0)
        return code;
    if (!o.file || !o.text)
        return kept_usage("resume", o.file ? "needs --text TEXT" : "needs a file of 'kept park'");
    code = open_model(&x, "resume", o.model);
    if (code < 0) {
        const kept_status st = resume(&x, &o, &err);
        code = st ? kept_failed("resume", "%s", err.text) : KEPT_EXIT_OK;
    }
    session_end(&x);
    return code;
}
