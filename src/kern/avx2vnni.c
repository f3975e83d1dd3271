/* kern/avx2vnni: the table of avx2.c with the dot products of AVX-VNNI. */
#include "kern/impl.h"

#define LEVEL       "avx2vnni"
#define LEVEL_TABLE kept_kern_avx2vnni

#ifdef __AVXVNNI__
#include "kern/avx2.c"
#else
const kept_kern *LEVEL_TABLE(void)
{
    return NULL;
}
#endif
