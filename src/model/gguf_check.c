/* gguf_check: walks a GGUF file's header, metadata and tensor table before anyone else does.
 *
 *   magic "GGUF" | version u32 | n_tensors i64 | n_kv i64
 *   n_kv x      { key str | type i32 | value }          str = u64 length + bytes
 *   n_tensors x { name str | n_dims u32 | ne i64[n_dims] | type i32 | offset u64 }
 *   padding to the alignment | tensor data, each padded to the alignment, in table order
 *
 * No number from the file is used before it is compared with the bytes that are left, so any bytes
 * at all are safe to pass. What ggml's reader and libllama's loader would refuse is refused here
 * with a better message; what would make them abort must be found here (gguf_meta.c has the
 * values).
 */
#include "model/model.h"

#include "model/gguf_index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ENTRIES 65536
#define MAX_STRING  (16u << 20)
#define MAX_KEY     512
#define MAX_ARRAY   (UINT64_C(1) << 26)
#define MAX_ALIGN   65536

/* Bytes of one value; 0 for strings, arrays and types nobody knows. */
static size_t value_size(uint32_t type)
{
    static const uint8_t size[GGUF_TYPE_COUNT] = {
        [GGUF_TYPE_UINT8] = 1,   [GGUF_TYPE_INT8] = 1,   [GGUF_TYPE_UINT16] = 2,
        [GGUF_TYPE_INT16] = 2,   [GGUF_TYPE_UINT32] = 4, [GGUF_TYPE_INT32] = 4,
        [GGUF_TYPE_FLOAT32] = 4, [GGUF_TYPE_BOOL] = 1,   [GGUF_TYPE_UINT64] = 8,
        [GGUF_TYPE_INT64] = 8,   [GGUF_TYPE_FLOAT64] = 8};
    return type < GGUF_TYPE_COUNT ? size[type] : 0;
}

/* Reading position. The first failure sticks in status. */
typedef struct cursor {
    const uint8_t *base;
    size_t n, at;
    const char *what; /* what is being read, for messages */
    kept_error *err;
    kept_status status;
} cursor;

/* The next n bytes, or NULL after a failure. */
static const uint8_t *take(cursor *c, uint64_t n)
{
    if (c->status != KEPT_OK)
        return NULL;
    if (n > c->n - c->at) {
        c->status = kept_fail(c->err, KEPT_FORMAT,
                              "the file ends inside %s at byte %zu (%llu more bytes needed): "
                              "incomplete download?",
                              c->what, c->n, (unsigned long long)(n - (c->n - c->at)));
        return NULL;
    }
    const uint8_t *p = c->base + c->at;
    c->at += (size_t)n;
    return p;
}

static uint32_t take_u32(cursor *c)
{
    const uint8_t *p = take(c, 4);
    uint32_t v = 0;
    if (p)
        memcpy(&v, p, 4);
    return v;
}

static uint64_t take_u64(cursor *c)
{
    const uint8_t *p = take(c, 8);
    uint64_t v = 0;
    if (p)
        memcpy(&v, p, 8);
    return v;
}

static kept_gguf_str take_str(cursor *c, size_t max)
{
    kept_gguf_str s = {"", 0};
    size_t at = c->at;
    uint64_t n = take_u64(c);
    if (c->status == KEPT_OK && n > max) {
        c->status = kept_fail(c->err, KEPT_FORMAT,
                              "a string of %llu bytes in %s at byte %zu (at most %zu are allowed)",
                              (unsigned long long)n, c->what, at, max);
        return s;
    }
    const uint8_t *p = take(c, n);
    if (p)
        s = (kept_gguf_str){(const char *)p, (size_t)n};
    return s;
}

/* Keys and tensor names: not empty, printable ASCII without blanks, so that messages can show them
 * and no NUL hides a part from C code. */
static kept_gguf_str take_name(cursor *c, size_t max)
{
    size_t at = c->at;
    kept_gguf_str s = take_str(c, max);
    bool good = s.n > 0;
    for (size_t i = 0; i < s.n; i++)
        good = good && s.s[i] > 32 && s.s[i] < 127;
    if (!good && c->status == KEPT_OK)
        c->status = kept_fail(c->err, KEPT_FORMAT, "%s at byte %zu is empty or not printable ASCII",
                              c->what, at);
    return s;
}

static void read_array(cursor *c, kept_gguf_kv *kv)
{
    size_t at = c->at;
    uint32_t item = take_u32(c);
    kv->count = take_u64(c);
    size_t size = value_size(item);
    if (c->status != KEPT_OK)
        return;
    if ((size == 0 && item != GGUF_TYPE_STRING) || kv->count > MAX_ARRAY) {
        c->status = kept_fail(c->err, KEPT_FORMAT,
                              "key %.*s at byte %zu: an array of %llu elements of type %u",
                              (int)kv->key.n, kv->key.s, at, (unsigned long long)kv->count, item);
        return;
    }
    kv->item = (enum gguf_type)item;
    kv->data = c->base + c->at;
    if (size)
        take(c, kv->count * size);
    else
        for (uint64_t i = 0; i < kv->count && c->status == KEPT_OK; i++)
            take_str(c, MAX_STRING);
}

static void read_kv(cursor *c, kept_gguf_kv *kv)
{
    c->what = "a metadata key";
    kv->key = take_name(c, MAX_KEY);
    c->what = "the metadata";
    size_t at = c->at;
    uint32_t type = take_u32(c);
    if (c->status != KEPT_OK)
        return;
    if (type >= GGUF_TYPE_COUNT) {
        c->status = kept_fail(c->err, KEPT_FORMAT, "key %.*s: value type %u at byte %zu is unknown",
                              (int)kv->key.n, kv->key.s, type, at);
        return;
    }
    kv->type = kv->item = (enum gguf_type)type;
    kv->count = 1;
    kv->data = c->base + c->at;
    if (type == GGUF_TYPE_ARRAY)
        read_array(c, kv);
    else if (type == GGUF_TYPE_STRING)
        take_str(c, MAX_STRING);
    else
        take(c, value_size(type));
}

static void read_shape(cursor *c, kept_gguf_tensor *t)
{
    uint32_t dims = take_u32(c);
    uint64_t total = 1;
    if (c->status == KEPT_OK && (dims < 1 || dims > 4)) {
        c->status = kept_fail(c->err, KEPT_FORMAT, "tensor %.*s has %u dimensions, must be 1 to 4",
                              (int)t->name.n, t->name.s, dims);
        return;
    }
    for (uint32_t i = 0; i < 4; i++) {
        t->ne[i] = i < dims ? (int64_t)take_u64(c) : 1;
        if (c->status != KEPT_OK)
            return;
        if (t->ne[i] < 1 || (uint64_t)t->ne[i] > (UINT64_C(1) << 40) / total) {
            c->status = kept_fail(c->err, KEPT_FORMAT, "tensor %.*s: dimension %u is %lld",
                                  (int)t->name.n, t->name.s, i, (long long)t->ne[i]);
            return;
        }
        total *= (uint64_t)t->ne[i];
    }
}

static void read_tensor(cursor *c, kept_gguf_tensor *t)
{
    c->what = "a tensor name";
    t->name = take_name(c, GGML_MAX_NAME - 1);
    c->what = "the tensor table";
    read_shape(c, t);
    t->type = (int)take_u32(c);
    t->offset = take_u64(c);
    if (c->status != KEPT_OK)
        return;
    const struct ggml_type_traits *traits = t->type >= 0 && t->type < GGML_TYPE_COUNT
                                                ? ggml_get_type_traits((enum ggml_type)t->type)
                                                : NULL;
    if (!traits || traits->blck_size < 1 || traits->type_size < 1) {
        c->status = kept_fail(c->err, KEPT_UNSUPPORTED,
                              "tensor %.*s is of type %d, which the installed ggml does not know",
                              (int)t->name.n, t->name.s, t->type);
        return;
    }
    if (t->ne[0] % traits->blck_size) {
        c->status = kept_fail(c->err, KEPT_FORMAT,
                              "tensor %.*s: rows of %lld are not whole blocks of %lld (%s)",
                              (int)t->name.n, t->name.s, (long long)t->ne[0],
                              (long long)traits->blck_size, traits->type_name);
        return;
    }
    /* at most 2^40 elements of at most a few bytes each: no overflow */
    uint64_t n = (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
    t->bytes = n / (uint64_t)traits->blck_size * traits->type_size;
}

static void read_header(cursor *c, kept_gguf_index *x)
{
    c->what = "the header";
    const uint8_t *magic = take(c, 4);
    if (magic && memcmp(magic, "GGUF", 4) != 0) {
        c->status =
            kept_fail(c->err, KEPT_FORMAT, "not a GGUF file: it does not begin with \"GGUF\"");
        return;
    }
    uint32_t version = take_u32(c);
    x->n_tensors = take_u64(c);
    x->n_kv = take_u64(c);
    if (c->status != KEPT_OK)
        return;
    if (version != 2 && version != 3)
        c->status = kept_fail(c->err, KEPT_UNSUPPORTED,
                              version & 0xFFFF ? "GGUF version %u is not supported (2 and 3 are)"
                                               : "big-endian GGUF (version %#x) is not supported",
                              version);
    else if (x->n_tensors < 1 || x->n_tensors > MAX_ENTRIES || x->n_kv < 1 || x->n_kv > MAX_ENTRIES)
        c->status =
            kept_fail(c->err, KEPT_FORMAT,
                      "the header counts %llu tensors and %llu keys (1 to %d are allowed)",
                      (unsigned long long)x->n_tensors, (unsigned long long)x->n_kv, MAX_ENTRIES);
}

/* Tensor data begin behind the table and lie in its order, each padded: ggml accepts nothing else.
 */
static kept_status check_data(const kept_gguf_index *x, const cursor *c)
{
    const kept_gguf_kv *kv = kept_gguf_find(x, "general.alignment");
    uint32_t align = GGUF_DEFAULT_ALIGNMENT;
    if (kv && kv->type != GGUF_TYPE_UINT32)
        return kept_fail(c->err, KEPT_FORMAT, "general.alignment is of type %s, expected u32",
                         gguf_type_name(kv->type));
    if (kv)
        memcpy(&align, kv->data, 4);
    if (align < 8 || align > MAX_ALIGN || (align & (align - 1)))
        return kept_fail(c->err, KEPT_FORMAT,
                         "general.alignment is %u: must be a power of two from 8 to %d", align,
                         MAX_ALIGN);
    uint64_t start = ((uint64_t)c->at + align - 1) / align * align, expected = 0, end = 0;
    for (uint64_t i = 0; i < x->n_tensors; i++) {
        const kept_gguf_tensor *t = &x->tensors[i];
        if (t->offset != expected)
            return kept_fail(c->err, KEPT_FORMAT, "tensor %.*s is at offset %llu, expected %llu",
                             (int)t->name.n, t->name.s, (unsigned long long)t->offset,
                             (unsigned long long)expected);
        end = expected + t->bytes; /* 2^16 tensors below 2^44 bytes: no overflow */
        expected = (end + align - 1) / align * align;
        if (start + end > c->n && start + t->offset <= c->n) {
            uint64_t all = start;
            for (uint64_t k = 0; k < x->n_tensors; k++)
                all += k + 1 < x->n_tensors ? (x->tensors[k].bytes + align - 1) / align * align
                                            : x->tensors[k].bytes;
            return kept_fail(c->err, KEPT_FORMAT,
                             "the file ends inside tensor %.*s: %llu of %llu bytes are missing, "
                             "incomplete download?",
                             (int)t->name.n, t->name.s, (unsigned long long)(all - c->n),
                             (unsigned long long)all);
        }
    }
    if (start + end > c->n)
        return kept_fail(c->err, KEPT_FORMAT,
                         "the file ends before its tensors: %llu bytes missing",
                         (unsigned long long)(start + end - c->n));
    return KEPT_OK;
}

static kept_status check_unique(const kept_gguf_index *x, kept_error *err)
{
    uint64_t most = x->n_kv > x->n_tensors ? x->n_kv : x->n_tensors;
    kept_gguf_str *s = kept_calloc(most, sizeof *s);
    if (!s)
        return kept_fail(err, KEPT_NOMEM, "out of memory checking %llu names",
                         (unsigned long long)most);
    const char *what = "key";
    for (uint64_t i = 0; i < x->n_kv; i++)
        s[i] = x->kv[i].key;
    int64_t twice = kept_gguf_duplicate(s, x->n_kv);
    if (twice == -1) {
        what = "tensor";
        for (uint64_t i = 0; i < x->n_tensors; i++)
            s[i] = x->tensors[i].name;
        twice = kept_gguf_duplicate(s, x->n_tensors);
    }
    kept_status status = KEPT_OK;
    if (twice >= 0)
        status = kept_fail(err, KEPT_FORMAT, "%s %.*s is there twice", what, (int)s[twice].n,
                           s[twice].s);
    else if (twice == -2)
        status = kept_fail(err, KEPT_NOMEM, "out of memory checking names");
    free(s);
    return status;
}

kept_status kept_gguf_check_mem(const uint8_t *data, size_t n, kept_error *err)
{
    cursor c = {.base = data, .n = n, .err = err, .status = KEPT_OK};
    kept_gguf_index x = {0};
    read_header(&c, &x);
    if (c.status != KEPT_OK)
        return c.status;
    x.kv = kept_calloc(x.n_kv, sizeof *x.kv);
    x.tensors = kept_calloc(x.n_tensors, sizeof *x.tensors);
    if (!x.kv || !x.tensors)
        c.status = kept_fail(err, KEPT_NOMEM, "out of memory reading the header");
    for (uint64_t i = 0; i < x.n_kv && c.status == KEPT_OK; i++)
        read_kv(&c, &x.kv[i]);
    for (uint64_t i = 0; i < x.n_tensors && c.status == KEPT_OK; i++)
        read_tensor(&c, &x.tensors[i]);
    if (c.status == KEPT_OK)
        c.status = check_unique(&x, err);
    if (c.status == KEPT_OK)
        c.status = check_data(&x, &c);
    if (c.status == KEPT_OK)
        c.status = kept_gguf_check_meta(&x, err);
    free(x.kv);
    free(x.tensors);
    return c.status;
}

kept_status kept_gguf_check(const char *path, kept_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return kept_fail(err, KEPT_IO, "cannot open %.200s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return kept_fail(err, KEPT_IO, "%.200s is not a regular file", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        int e = errno;
        if (fd >= 0)
            close(fd);
        return kept_fail(err, KEPT_IO, "cannot open %.200s: %s", path, strerror(e));
    }
    size_t n = (size_t)st.st_size;
    void *map = n ? mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int e = errno;
    close(fd);
    if (n == 0)
        return kept_fail(err, KEPT_FORMAT, "%.200s is empty", path);
    if (map == MAP_FAILED)
        return kept_fail(err, KEPT_IO, "cannot map %.200s: %s", path, strerror(e));
    kept_error inner;
    kept_status s = kept_gguf_check_mem(map, n, &inner);
    munmap(map, n);
    if (s != KEPT_OK)
        return kept_fail(err, s, "%.160s: %.300s", path, inner.text);
    return KEPT_OK;
}
