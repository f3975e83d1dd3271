/* kern/avx2: not written yet; the table is absent. */
#include "kern/impl.h"

const kept_kern *kept_kern_avx2(void)
{
    return NULL;
}
