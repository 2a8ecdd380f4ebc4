/* What the programs of the corpus share: work, and how long to do it.
 * Each is run as PROGRAM CPU_SECONDS. */
#ifndef BURN_H
#define BURN_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* Not inlined, not cloned, not merged: a frame of its own. */
#define OWN_FRAME __attribute__((noinline, noclone, noipa))

static inline double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline double seconds_argument(int argc, char **argv)
{
    return argc > 1 ? strtod(argv[1], NULL) : 1.0;
}

static inline uint64_t churn(uint64_t state, uint64_t steps)
{
    while (steps--) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    return state;
}

#endif
