/* The fixed piece of work: `worker THREADS ROUNDS` recurses DEPTH calls deep and
 * mixes numbers at the bottom, on THREADS threads at once, and prints the
 * nanoseconds from the start of the first to the end of the last. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { DEPTH = 40, STEPS = 2000 };

static uint64_t rounds;
/* Where the results go, so that the work cannot be optimised away. */
static _Atomic uint64_t sink;

static uint64_t mix(uint64_t state) {
    for (int step = 0; step < STEPS; step++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    return state;
}

__attribute__((noinline)) static uint64_t descend(uint64_t state, int depth) {
    uint64_t below = depth == 0 ? mix(state) : descend(state + 1, depth - 1);
    /* Used after the call, so that it cannot become a jump. */
    __asm__ volatile("" : "+r"(below));
    return below + 1;
}

static void *work(void *start) {
    uint64_t state = (uintptr_t)start | 1;
    for (uint64_t round = 0; round < rounds; round++) {
        state = descend(state, DEPTH);
    }
    sink += state;
    return NULL;
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: worker THREADS ROUNDS\n");
        return 2;
    }
    long threads = strtol(argv[1], NULL, 10);
    rounds = strtoull(argv[2], NULL, 10);
    pthread_t *all = calloc((size_t)threads, sizeof *all);
    if (all == NULL) {
        return 1;
    }
    int64_t start_ns = now_ns();
    for (long at = 0; at < threads; at++) {
        if (pthread_create(&all[at], NULL, work, (void *)(uintptr_t)(at * 2)) != 0) {
            return 1;
        }
    }
    for (long at = 0; at < threads; at++) {
        pthread_join(all[at], NULL);
    }
    printf("%" PRId64 "\n", now_ns() - start_ns);
    free(all);
    return 0;
}
