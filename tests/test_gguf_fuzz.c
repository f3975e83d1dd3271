/* test_gguf_fuzz: mutants of small valid files, the same ones in every run. None may crash the
 * check; what the check lets through goes to kept_model_open and the tokenizer in a child process,
 * so that an abort inside ggml or libllama is a failure with the mutant's number and not the end of
 * the run.
 */
#include "model/model.h"

#include "mkgguf.h"
#include "test.h"

#include <sys/wait.h>
#include <unistd.h>

enum { N_CHECK = 12000, N_OPEN = 300, PER_CHILD = 60 }; /* per seed file; there are two */

typedef struct seed {
    uint8_t *data;
    size_t n, head; /* bytes of the file, and of them before the tensor data */
} seed;

static seed seeds[2];

static int make_seed(seed *f, bool bpe)
{
    mkgguf_spec s = mkgguf_default(bpe ? "qwen2" : "gemma3");
    s.n_layers = 1;
    s.n_embd = 64;
    s.n_heads = 1;
    s.n_kv_heads = 1;
    s.n_ff = 64;
    s.n_vocab = 416;
    s.type = GGML_TYPE_Q8_0;
    s.tied = true;
    s.bpe = bpe;
    char *path = mkgguf_temp();
    FILE *in = path && mkgguf_write(path, &s) == 0 ? fopen(path, "rb") : NULL;
    if (!in)
        return -1;
    fseek(in, 0, SEEK_END);
    f->n = (size_t)ftell(in);
    rewind(in);
    f->data = malloc(f->n);
    size_t got = fread(f->data, 1, f->n, in);
    fclose(in);
    struct gguf_init_params p = {.no_alloc = true};
    struct gguf_context *g = gguf_init_from_file(path, p);
    f->head = gguf_get_data_offset(g);
    gguf_free(g);
    unlink(path);
    free(path);
    return got == f->n ? 0 : -1;
}

static const uint64_t odd[] = {
    0,          1,          2,          7,          8,          9,          31,
    63,         64,         255,        256,        65535,      65536,      0x7fffffff,
    0x80000000, 0xffffffff, 1ull << 32, 1ull << 40, 1ull << 61, 1ull << 62, 0x7fffffffffffffff,
    1ull << 63, ~0ull - 7,  ~0ull};

/* Overwrites some bytes of d[0..n), mostly in its first head bytes. */
static void mutate(uint8_t *d, size_t n, size_t head, kept_rng *r)
{
    int count = 1 + (int)kept_rng_below(r, 4);
    for (int i = 0; i < count; i++) {
        size_t where = kept_rng_below(r, 8) == 0 ? n : kept_rng_below(r, 3) == 0 ? 1200 : head;
        size_t at = kept_rng_below(r, (uint32_t)(where < n ? where : n)),
               from = kept_rng_below(r, (uint32_t)head);
        uint64_t v = odd[kept_rng_below(r, sizeof odd / sizeof *odd)];
        size_t len = 0;
        switch (kept_rng_below(r, 6)) {
        case 0:
            d[at] ^= (uint8_t)(1u << kept_rng_below(r, 8));
            break;
        case 1:
            d[at] = (uint8_t)kept_rng_u64(r);
            break;
        case 2:
            memcpy(d + at, &v, at + 8 <= n ? 8 : n - at);
            break;
        case 3:
            memcpy(d + at, &v, at + 4 <= n ? 4 : n - at);
            break;
        case 4: /* another piece of the same file: plausible lengths, types and texts */
            len = 1 + kept_rng_below(r, 40);
            if (at + len <= n && from + len <= n)
                memmove(d + at, d + from, len);
            break;
        default: /* a digit or letter next to the old one: tokens that collide, keys that vanish */
            d[at] = (uint8_t)(d[at] + 1 - 2 * (int)kept_rng_below(r, 2));
        }
    }
}

/* Mutant number k of seed f in an allocation of its exact size. */
static uint8_t *make_mutant(const seed *f, uint64_t k, size_t *n)
{
    kept_rng r;
    kept_rng_init(&r, k);
    *n = kept_rng_below(&r, 10) == 0 ? 1 + kept_rng_below(&r, (uint32_t)f->n) : f->n;
    uint8_t *d = malloc(*n);
    memcpy(d, f->data, *n);
    mutate(d, *n, f->head < *n ? f->head : *n, &r);
    return d;
}

static bool one_line(const kept_error *err)
{
    return err->text[0] && !strchr(err->text, '\n');
}

static void test_check_survives(void)
{
    int accepted = 0, silent = 0;
    for (int f = 0; f < 2; f++)
        for (uint64_t k = 0; k < N_CHECK; k++) {
            size_t n;
            uint8_t *d = make_mutant(&seeds[f], k, &n);
            kept_error err = {.text = ""};
            kept_status s = kept_gguf_check_mem(d, n, &err);
            accepted += s == KEPT_OK;
            silent += s != KEPT_OK && !one_line(&err);
            free(d);
        }
    printf("   %d of %d mutants accepted\n", accepted, 2 * N_CHECK);
    CHECK_INT(silent, 0);
    CHECK(accepted > 100 && accepted < 2 * N_CHECK - 100); /* both sides are really tried */
}

/* Everything an accepted model is used for here: tokens of odd texts, and back. */
static void use(const kept_model *m)
{
    static const char *const texts[] = {"hello world", "", "\n\n\t  x", "<|im_start|>user <s></s>",
                                        "\xff\xfe\x80 \xe4\xbd\xa0\xf0\x9f\x98\x80 it's 123.45"};
    int32_t tokens[128];
    char text[256];
    size_t len;
    int n;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int special = 0; special < 2; special++)
            if (kept_tokenize(m, texts[i], strlen(texts[i]), true, special, tokens, 128, &n) ==
                KEPT_OK)
                kept_detokenize(m, tokens, n, special, text, sizeof text);
    for (int32_t i = 0; i < 128; i++)
        tokens[i] = i * 5 - 10;
    kept_detokenize(m, tokens, 128, true, text, sizeof text);
    kept_token_is_end(m, tokens[100]);
    kept_chat_format(m, "be brief", "hello", text, sizeof text, &len, NULL);
}

typedef struct report {
    uint32_t k, opened, refused, silent;
} report;

/* In a child: opens mutants from k on, until done of them; tells the parent where it is. */
static void child(const seed *f, report r, bool accepted_only, int out)
{
    char *path = mkgguf_temp();
    for (int done = 0; path && done < PER_CHILD; r.k++) {
        size_t n;
        uint8_t *d = make_mutant(f, r.k, &n);
        kept_error err = {.text = ""};
        if (!accepted_only || kept_gguf_check_mem(d, n, NULL) == KEPT_OK) {
            FILE *o = fopen(path, "wb");
            if (o) {
                fwrite(d, 1, n, o);
                fclose(o);
            }
            if (write(out, &r, sizeof r) != sizeof r)
                _exit(2);
            kept_model *m;
            if (kept_model_open(path, &m, &err) == KEPT_OK) {
                r.opened++;
                use(m);
                kept_model_free(m);
            } else {
                r.refused++;
                r.silent += !one_line(&err);
            }
            done++;
        }
        free(d);
    }
    unlink(path);
    free(path);
    if (write(out, &r, sizeof r) != sizeof r)
        _exit(2);
}

/* Runs child to its end or death. The last report it wrote, in *r. */
static bool run_child(const seed *f, report *r, bool accepted_only)
{
    int fd[2], status = -1;
    if (pipe(fd) != 0)
        return false;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(fd[0]);
        child(f, *r, accepted_only, fd[1]);
        _exit(0);
    }
    close(fd[1]);
    report next;
    while (read(fd[0], &next, sizeof next) == sizeof next)
        *r = next;
    close(fd[0]);
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

static void open_mutants(bool accepted_only)
{
    for (int f = 0; f < 2; f++) {
        report r = {0};
        r.k = accepted_only ? 0 : 1000000;
        uint32_t count = accepted_only ? N_OPEN : PER_CHILD;
        bool alive = true;
        while (alive && r.opened + r.refused < count) {
            alive = run_child(&seeds[f], &r, accepted_only);
            if (!alive)
                fprintf(stderr, "seed %d: the process died opening mutant %u\n", f, r.k);
        }
        CHECK(alive);
        CHECK_INT(r.silent, 0);
        printf("   seed %d: %u opened, %u refused\n", f, r.opened, r.refused);
        CHECK(!accepted_only || r.opened > 0);
    }
}

static void test_open_survives_what_the_check_accepts(void)
{
    open_mutants(true);
}

static void test_open_survives_anything(void)
{
    open_mutants(false);
}

int main(void)
{
    if (make_seed(&seeds[0], false) != 0 || make_seed(&seeds[1], true) != 0) {
        fprintf(stderr, "cannot make the files to break\n");
        return 1;
    }
    RUN(test_check_survives);
    RUN(test_open_survives_what_the_check_accepts);
    RUN(test_open_survives_anything);
    free(seeds[0].data);
    free(seeds[1].data);
    TEST_END();
}
