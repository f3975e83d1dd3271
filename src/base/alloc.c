/* alloc: calloc and aligned allocation that check the size product and never return NULL for an
 * empty request, so that NULL always means out of memory. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>

void *kept_calloc(size_t n, size_t size)
{
    if (size && n > SIZE_MAX / size)
        return NULL;
    return n && size ? calloc(n, size) : calloc(1, 1);
}

void *kept_aligned(size_t align, size_t bytes)
{
    if (align < 8 || (align & (align - 1)) || bytes > SIZE_MAX - align)
        return NULL;
    if (!bytes)
        bytes = 1;
    bytes = (bytes + align - 1) & ~(align - 1);
    void *p = aligned_alloc(align, bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}
