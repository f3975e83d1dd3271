/* machine: what a reader of a result must know about where it was measured. Nothing that names a
 * person or a host. */
#include "bench/run.h"

#include <ggml-backend.h>
#include <ggml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Value of the first "name : value" line of /proc/cpuinfo, or "unknown". */
static json_t *cpu_name(void)
{
    char line[512];
    json_t *found = NULL;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && !found && fgets(line, sizeof line, f)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !value)
            continue;
        value += 1 + strspn(value + 1, " \t");
        value[strcspn(value, "\n")] = 0;
        found = json_string(value); /* NULL if not UTF-8 */
    }
    if (f)
        fclose(f);
    return found ? found : json_string("unknown");
}

/* "AVX2 AVX512 ...": the features ggml's CPU backend was built with and found. */
static json_t *ggml_features(void)
{
    char all[512] = "";
    ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    ggml_backend_reg_t reg = dev ? ggml_backend_dev_backend_reg(dev) : NULL;
    void *address =
        reg ? ggml_backend_reg_get_proc_address(reg, "ggml_backend_get_features") : NULL;
    ggml_backend_get_features_t get;
    memcpy(&get, &address, sizeof get); /* ISO C has no cast from void * to a function pointer */
    for (struct ggml_backend_feature *f = get ? get(reg) : NULL; f && f->name; f++) {
        size_t used = strlen(all);
        if (!strcmp(f->value, "0"))
            continue;
        snprintf(all + used, sizeof all - used, "%s%s", used ? " " : "", f->name);
    }
    return json_string(all);
}

json_t *kept_machine_json(const char *isa, int n_threads)
{
    long n_cpus = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    struct utsname u;
    json_t *o = json_object();
    json_object_set_new(o, "cpu", cpu_name());
    json_object_set_new(o, "n_cpus", json_integer(n_cpus));
    json_object_set_new(o, "threads", json_integer(n_threads > 0 ? n_threads : n_cpus));
    json_object_set_new(o, "isa", json_string(isa ? isa : "unknown"));
    if (pages > 0 && page > 0)
        json_object_set_new(o, "memory_bytes", json_integer((json_int_t)pages * page));
    if (!uname(&u)) {
        char system[sizeof u.sysname + sizeof u.release + sizeof u.machine + 3];
        snprintf(system, sizeof system, "%s %s %s", u.sysname, u.release, u.machine);
        json_object_set_new(o, "system", json_string(system));
    }
    json_object_set_new(o, "compiler", json_string(__VERSION__));
    json_object_set_new(o, "ggml", json_string(ggml_version()));
    json_object_set_new(o, "ggml_features", ggml_features());
    return o;
}
