/* One of a crowd: `member PERIOD_MS` sleeps and works a little, without end, at
 * the bottom of some calls. Built without frame pointers. */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

enum { DEPTH = 12, STEPS = 40000 };

static volatile uint64_t sink;

__attribute__((noinline)) static uint64_t work(uint64_t state, int depth) {
    if (depth > 0) {
        return work(state + 1, depth - 1) + 1;
    }
    for (int step = 0; step < STEPS; step++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    return state;
}

int main(int argc, char **argv) {
    useconds_t period_us = argc > 1 ? 1000u * (useconds_t)atoi(argv[1]) : 1000000u;
    /* Not all at once. */
    usleep((useconds_t)getpid() * 7919u % period_us);
    for (uint64_t round = 1;; round++) {
        sink += work(round, DEPTH);
        usleep(period_us);
    }
}
