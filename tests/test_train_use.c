/* test_train_use: what is done with trained files: text that may not be evaluated on, runs that say
 * what they need, arguments that make no file. */
#include "bench/run.h"
#include "train_rig.h"

/* Bytes [from, from + n) of the text; shout: in capitals, and spaces become line breaks. */
static void write_part(const char *to, size_t from, size_t n, bool shout)
{
    size_t all;
    char *x = slurp(text_path, &all);
    FILE *f = fopen(to, "w");
    for (size_t i = from; shout && i < from + n; i++)
        x[i] = (char)(x[i] == ' ' ? '\n' : x[i] >= 'a' ? x[i] - 32 : x[i]);
    CHECK(f && from + n <= all && fwrite(x + from, 1, n, f) == n && !fclose(f));
    free(x);
}

static void text_that_was_trained_on_is_refused(void)
{
    kept_trained *t = load(4), *none = load(1);
    kept_train_options o = options(4, file("held.kept"));
    kept_error err = {.text = ""};
    o.held_out = held_path;
    kept_train_report r = make(&o, KEPT_OK);
    kept_trained_free(r.file);
    CHECK_INT(kept_train_check_text(t, text_path, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "was trained on") && strstr(err.text, "--held-out"));
    CHECK(!strchr(err.text, '\n'));
    CHECK_INT(kept_train_check_text(t, other_path, &err), KEPT_OK);
    CHECK_INT(kept_train_check_text(t, held_path, &err), KEPT_OK);
    CHECK_INT(kept_train_check_text(none, text_path, &err), KEPT_OK); /* read no text */
    CHECK_INT(kept_train_check_text(t, file("missing.txt"), &err), KEPT_IO);
    kept_trained_free(t);
    kept_trained_free(none);
}

/* A file that shares a passage with what was trained on is found, whatever its name, its line
 * breaks and its case; one that shares none is not. */
static void a_shared_part_is_found(void)
{
    kept_trained *t = NULL;
    kept_error err = {.text = ""};
    kept_shingles s = {0};
    size_t all;
    char *x = slurp(text_path, &all), zero[65];
    memset(zero, '0', 64);
    zero[64] = 0;
    kept_shingles_add(&s, x + 20000, 8000);
    kept_shingles_sort(&s);
    float *hash = calloc(s.n + 1, sizeof *hash);
    for (size_t i = 0; i < s.n; i++)
        hash[i] = (float)s.hash[i];
    CHECK_INT(kept_trained_new("duo", zero, &t, NULL), KEPT_OK);
    CHECK_INT(kept_trained_set_note(t, "text", zero, NULL), KEPT_OK);
    CHECK_INT(kept_trained_put(t, "text-shingles", hash, s.n, NULL), KEPT_OK);
    for (int i = 0; i < 8; i++) {
        bool shares = i == 1 || i == 2;
        write_part(file("part.txt"), (size_t)i * 10000 + 4000, 10000, i == 2);
        err.text[0] = 0;
        CHECK_INT(kept_train_check_text(t, file("part.txt"), &err), shares ? KEPT_ARGUMENT : 0);
        CHECK(!shares || strstr(err.text, "shares text"));
    }
    kept_trained_free(t);
    kept_shingles_free(&s);
    free(hash);
    free(x);
}

/* Runs spec on a text with trained files; the line that a failure leaves. */
static kept_status run(const char *spec, const char *text, const char *trained, const char *folder,
                       kept_error *err)
{
    kept_task_options task = {.name = text ? "text" : "niah_single",
                              .length = text ? 200 : 600,
                              .n_samples = 1,
                              .seed = 3,
                              .file = text,
                              .score_tokens = 4};
    kept_run_options o = {.model_path = model_path,
                          .model_name = "random",
                          .specs = &spec,
                          .n_specs = 1,
                          .tasks = &task,
                          .n_tasks = 1,
                          .n_threads = 1,
                          .seed = 7,
                          .trained = &trained,
                          .n_trained = trained != NULL,
                          .trained_dir = folder};
    json_t *r = NULL;
    err->text[0] = 0;
    kept_status st = kept_run(&o, &r, err);
    CHECK((st == KEPT_OK) == (r != NULL));
    CHECK(!strchr(err->text, '\n'));
    json_decref(r);
    return st;
}

static void runs_say_what_they_need(void)
{
    const char *duo = "recency+duo@50%", *ranker = "ranker@50%";
    char folder[96], hex[65];
    kept_error err;
    CHECK_INT(kept_model_sha256(model, hex, NULL), KEPT_OK);
    CHECK_INT(run(duo, other_path, NULL, NULL, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "kept calibrate duo random"));
    CHECK_INT(run(ranker, other_path, made(0), dir, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "kept train ranker random"));
    CHECK_INT(run("kvzap@50%", other_path, NULL, dir, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "kept train kvzap random"));
    CHECK_INT(run(duo, text_path, made(0), NULL, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "trained on"));
    CHECK_INT(run(duo, held_path, made(0), NULL, &err), KEPT_OK);
    CHECK_INT(run(ranker, held_path, made(8), NULL, &err), KEPT_OK);
    CHECK_INT(run("kvzap@50%", held_path, made(7), NULL, &err), KEPT_OK);
    /* in the folder where kept train puts it */
    snprintf(folder, sizeof folder, "%s/%.16s", dir, hex);
    CHECK(!mkdir(folder, 0777));
    snprintf(folder, sizeof folder, "%s/%.16s/duo.kept", dir, hex);
    CHECK(!rename(made(0), folder));
    CHECK_INT(run(duo, other_path, NULL, dir, &err), KEPT_OK);
    CHECK(!truncate(folder, 300));
    CHECK_INT(run(duo, other_path, NULL, dir, &err), KEPT_FORMAT);
    CHECK(strstr(err.text, "truncated"));
}

static void bad_arguments(void)
{
    static const struct {
        const char *kind, *variant, *says;
        int64_t tokens;
        bool text;
    } bad[] = {{"kvsap", NULL, "did you mean 'kvzap'", 0, true},
               {"xyzzyxyzzy", NULL, "nothing called", 0, true},
               {"kvzap", "cubic", "it has linear and mlp", 0, true},
               {"ranker", "mlp", "has no variants", 0, true},
               {"ranker", NULL, "needs a text", 0, false},
               {"headkv", NULL, "reads no text", 0, true},
               {"duo", NULL, "at least", 100, true},
               {"duo", NULL, "documents of 128 tokens", 1 << 20, true}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kept_train_options o = options(0, file("none.kept"));
        kept_train_report r;
        kept_error err = {.text = ""};
        o.kind = bad[i].kind;
        o.variant = bad[i].variant;
        o.text = bad[i].text ? text_path : NULL;
        o.n_tokens = bad[i].tokens ? bad[i].tokens : o.n_tokens;
        CHECK_INT(kept_train(&o, &r, &err), KEPT_ARGUMENT);
        CHECK(strstr(err.text, bad[i].says) && !strchr(err.text, '\n'));
        if (!strstr(err.text, bad[i].says))
            fprintf(stderr, "%s: %s\n", bad[i].kind, err.text);
        CHECK(!r.file && access(o.out, F_OK));
    }
    kept_train_options o = options(4, file("none.kept"));
    write_part(file("short.txt"), 0, 3000, false);
    o.text = file("short.txt");
    make(&o, KEPT_ARGUMENT);
    o.text = file("nothing.txt");
    make(&o, KEPT_IO);
    o = options(4, "/nonexistent/x.kept");
    make(&o, KEPT_IO);
}

int main(void)
{
    static const int kinds[] = {0, 1, 4, 7, 8};
    rig_open();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        kept_train_options o = options(kinds[i], made(kinds[i]));
        kept_trained_free(make(&o, KEPT_OK).file);
    }
    RUN(text_that_was_trained_on_is_refused);
    RUN(a_shared_part_is_found);
    RUN(runs_say_what_they_need);
    RUN(bad_arguments);
    rig_close();
    TEST_END();
}
