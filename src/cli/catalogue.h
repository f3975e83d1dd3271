/* catalogue: the models that packages carry (share/models.tsv, compiled in) and where their files
 * are kept: $KEPT_CACHE, else $XDG_CACHE_HOME/kept, else ~/.cache/kept. */
#ifndef CLI_CATALOGUE_H
#define CLI_CATALOGUE_H

#include "kept/kept.h"

typedef struct kept_catalogue_entry {
    char name[48];
    uint64_t bytes;  /* of the whole file */
    char sha256[65]; /* of the whole file, lower-case hexadecimal */
    char licence[32];
    char terms[96]; /* where its terms stand, which must be accepted; "" when there is no need */
    int n_parts;    /* 1..99 packages, one part each */
    uint64_t part_bytes; /* of every part but the last, which has the rest */
    char package[96]; /* name pattern: {n} part from 1, {nn} two digits, {mm} two digits from 00 */
    char version[24];
    char member[160]; /* path pattern inside the package */
    char about[96];
} kept_catalogue_entry;

typedef struct kept_catalogue {
    kept_catalogue_entry *entries; /* [n] */
    int n;
} kept_catalogue;

/* Reads the catalogue at path, or the built-in one if path is NULL. IO, FORMAT (names the line),
 * NOMEM. Clear it also after a failure. */
kept_status kept_catalogue_load(kept_catalogue *c, const char *path, kept_error *err);
void kept_catalogue_clear(kept_catalogue *c);
const kept_catalogue_entry *kept_catalogue_find(const kept_catalogue *c, const char *name);

/* Bytes of part i (0-based), and its pattern filled in. false: the text does not fit. */
uint64_t kept_catalogue_part_bytes(const kept_catalogue_entry *e, int i);
bool kept_catalogue_expand(const char *pattern, int i, char *buf, size_t cap);

/* "<cache root>/BELOW" into buf. NOT_FOUND: neither KEPT_CACHE, XDG_CACHE_HOME nor HOME is set. */
kept_status kept_cache_folder(const char *below, char *buf, size_t cap);
/* The same of "models". */
kept_status kept_models_dir(char *buf, size_t cap);

/* The file that a model argument means: a catalogue name is its file in the cache, anything else
 * is taken as a path. OK says nothing about whether a path can be opened. NOT_FOUND: a catalogue
 * model that is not here yet (advise `kept pull NAME`); buf then holds where it would be.
 * ARGUMENT: buf is too small. */
kept_status kept_model_path(const char *name_or_path, char *buf, size_t cap);

/* Downloads, joins and checks e, then renames it to path. Says what it does on stderr.
 * IO: one line about the network, the disk or the package. FORMAT: the checksum differs.
 * python: program that has pip. Interrupted, it goes on after the last whole part next time. */
kept_status kept_fetch_model(const kept_catalogue_entry *e, const char *python, const char *path,
                             kept_error *err);

#endif
