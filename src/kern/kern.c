/* kern: which table this CPU runs. A level is offered only if its file was built with its
 * instruction set and both the CPU and the operating system (saved registers) support it. */
#include "kern/impl.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#include <xmmintrin.h>

static bool has_avx2(void)
{
    unsigned a, b, c, d;

    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx2vnni(void)
{
    unsigned a, b, c, d;

    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

static bool has_avx512vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
#else
static bool has_avx2(void)
{
    return false;
}
static bool has_avx2vnni(void)
{
    return false;
}
static bool has_avx512(void)
{
    return false;
}
static bool has_avx512vnni(void)
{
    return false;
}
#endif

/* The tables this CPU runs, lowest first. Asked for once: in a virtual machine CPUID can cost tens
 * of microseconds. */
static const kept_kern *levels[5];
static int n_levels;

static void find_levels(void)
{
    levels[n_levels++] = kept_kern_ref();
    if (kept_kern_avx2() && has_avx2())
        levels[n_levels++] = kept_kern_avx2();
    if (kept_kern_avx2vnni() && has_avx2vnni())
        levels[n_levels++] = kept_kern_avx2vnni();
    if (kept_kern_avx512() && has_avx512())
        levels[n_levels++] = kept_kern_avx512();
    if (kept_kern_avx512vnni() && has_avx512vnni())
        levels[n_levels++] = kept_kern_avx512vnni();
}

static void need_levels(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, find_levels);
}

const kept_kern *kept_kern_get(const char *isa)
{
    need_levels();
    if (!isa || !*isa)
        return levels[n_levels - 1];
    for (int i = 0; i < n_levels; i++) {
        if (!strcmp(levels[i]->name, isa))
            return levels[i];
    }
    return NULL;
}

int kept_kern_levels(const char **names, int cap)
{
    int n;

    need_levels();
    n = n_levels < cap ? n_levels : cap;
    for (int i = 0; i < n; i++)
        names[i] = levels[i]->name;
    return n;
}

void kept_kern_enter(void)
{
#if defined(__SSE__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* FTZ | DAZ */
#elif defined(__aarch64__)
    uint64_t fpcr;

    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr | (1u << 24)));
#endif
}
