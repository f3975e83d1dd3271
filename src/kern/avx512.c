/* kern/avx512: not written yet; the table is absent. */
#include "kern/impl.h"

const kept_kern *kept_kern_avx512(void)
{
    return NULL;
}
