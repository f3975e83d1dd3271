/* kern/avx512vnni: the table of avx512.c with the dot products of AVX-512 VNNI. */
#include "kern/impl.h"

#define LEVEL       "avx512vnni"
#define LEVEL_TABLE kept_kern_avx512vnni

#ifdef __AVX512VNNI__
#include "kern/avx512.c"
#else
const kept_kern *LEVEL_TABLE(void)
{
    return NULL;
}
#endif
