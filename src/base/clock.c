/* clock: the one source of time. Monotonic, so that intervals survive a change of the wall clock.
 */
#include "base/base.h"

#include <time.h>

uint64_t kept_clock_ns(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t))
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
