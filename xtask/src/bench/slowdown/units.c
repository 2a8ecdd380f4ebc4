/* `units THREADS DESCENTS`: a thread on each of the first THREADS CPUs works
 * without a pause, in units of DESCENTS calls of a chain DEPTH deep.
 *
 * A line `NANOSECONDS EXTRA` on stdin is answered, after so long, by what each
 * thread noted meanwhile: seven words of 64 bits (the CPU, the start and the
 * end by CLOCK_MONOTONIC, CPU time, time that it waited for the CPU, both in
 * nanoseconds, whether the room for units was too small, the number of units),
 * then each unit's nanoseconds in a word of 32 bits. A unit ends where the
 * next one starts, so that nothing falls between two. With EXTRA, every
 * EXTRA-th unit is done twice.
 *
 * `units burn THREADS MICROSECONDS`: on each of the CPUs, a hundred times a
 * second, that much CPU time is spent. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum {
    DEPTH = 40,
    STEPS = 1000,
    MEMORY_WORDS = 16384, /* 128 KiB: what another program's memory pushes out */
    MOST_UNITS = 1 << 20,
    PERIOD_NS = 10000000,
};

struct noted {
    uint64_t cpu, start_ns, end_ns, cpu_ns, waited_ns, is_full, count;
};

struct worker {
    pthread_t thread;
    struct noted noted;
    uint32_t *units;
    uint64_t *memory;
    int cpu;
};

static uint64_t descents;
/* The window under way: its number, how long, how often a unit is doubled. */
static _Atomic uint64_t window;
static uint64_t window_ns, extra;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_done = PTHREAD_COND_INITIALIZER;
static long running;

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t waited_ns(void) {
    char text[128] = "";
    int file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    uint64_t ran, waited = 0;
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) < 0 ||
            sscanf(text, "%" SCNu64 " %" SCNu64, &ran, &waited) != 2) {
            waited = 0;
        }
        close(file);
    }
    return waited;
}

static uint64_t mix(uint64_t state, uint64_t *memory) {
    for (int step = 0; step < STEPS; step++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        memory[state % MEMORY_WORDS] += state;
    }
    return state;
}

__attribute__((noinline)) static uint64_t descend(uint64_t state, int depth, uint64_t *memory) {
    uint64_t below =
        depth == 0 ? mix(state, memory) : descend(state + 1, depth - 1, memory);
    /* Used after the call, so that it cannot become a jump. */
    __asm__ volatile("" : "+r"(below));
    return below + 1;
}

static uint64_t unit(uint64_t state, uint64_t *memory) {
    for (uint64_t at = 0; at < descents; at++) {
        state = descend(state, DEPTH, memory);
    }
    return state;
}

static uint64_t note(struct worker *own, uint64_t state) {
    uint64_t waited = waited_ns(), used = clock_ns(CLOCK_THREAD_CPUTIME_ID), count = 0;
    uint64_t start = clock_ns(CLOCK_MONOTONIC), now = start;
    while (now - start < window_ns && count < MOST_UNITS) {
        state = unit(state, own->memory);
        if (extra != 0 && count % extra == extra - 1) {
            state = unit(state, own->memory);
        }
        uint64_t end = clock_ns(CLOCK_MONOTONIC), took = end - now;
        own->units[count++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
        now = end;
    }
    own->noted = (struct noted){
        .cpu = (uint64_t)own->cpu,
        .start_ns = start,
        .end_ns = now,
        .cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - used,
        .waited_ns = waited_ns() - waited,
        .is_full = count == MOST_UNITS,
        .count = count,
    };
    return state;
}

static void *work(void *argument) {
    struct worker *own = argument;
    uint64_t state = (uintptr_t)own | 1, seen = 0;
    for (;;) {
        state = unit(state, own->memory);
        if (window != seen) {
            seen = window;
            state = note(own, state);
            pthread_mutex_lock(&lock);
            running--;
            pthread_cond_signal(&all_done);
            pthread_mutex_unlock(&lock);
        }
    }
    return NULL;
}

static void *burn(void *argument) {
    uint64_t most_ns = *(uint64_t *)argument;
    for (;;) {
        struct timespec pause = {.tv_nsec = PERIOD_NS};
        nanosleep(&pause, NULL);
        uint64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        while (clock_ns(CLOCK_THREAD_CPUTIME_ID) - start < most_ns) {
        }
    }
    return NULL;
}

/* A thread that may use only the AT-th of the CPUs that this process may. */
static int start(pthread_t *thread, long at, int *cpu, void *(*run)(void *), void *argument) {
    cpu_set_t all, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof all, &all) != 0) {
        return 1;
    }
    for (*cpu = 0; *cpu < CPU_SETSIZE; ++*cpu) {
        if (CPU_ISSET(*cpu, &all) && at-- == 0) {
            break;
        }
    }
    CPU_SET(*cpu, &one);
    pthread_attr_t attributes;
    return pthread_attr_init(&attributes) != 0 ||
           pthread_attr_setaffinity_np(&attributes, sizeof one, &one) != 0 ||
           pthread_create(thread, &attributes, run, argument) != 0;
}

static int answer(struct worker *workers, long threads) {
    for (long at = 0; at < threads; at++) {
        struct noted *noted = &workers[at].noted;
        if (fwrite(noted, sizeof *noted, 1, stdout) != 1 ||
            fwrite(workers[at].units, sizeof(uint32_t), noted->count, stdout) != noted->count) {
            return 1;
        }
    }
    return fflush(stdout) != 0;
}

int main(int argc, char **argv) {
    /* Whatever becomes of the one who asks, nothing works on without it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc == 4 && strcmp(argv[1], "burn") == 0) {
        static uint64_t most_ns;
        most_ns = strtoull(argv[3], NULL, 10) * 1000;
        for (long at = 0; at < strtol(argv[2], NULL, 10); at++) {
            pthread_t thread;
            int cpu;
            if (start(&thread, at, &cpu, burn, &most_ns) != 0) {
                return 1;
            }
        }
        pause();
        return 0;
    }
    if (argc != 3) {
        fprintf(stderr, "usage: units THREADS DESCENTS | units burn THREADS MICROSECONDS\n");
        return 2;
    }
    long threads = strtol(argv[1], NULL, 10);
    descents = strtoull(argv[2], NULL, 10);
    struct worker *workers = calloc((size_t)threads, sizeof *workers);
    if (workers == NULL) {
        return 1;
    }
    for (long at = 0; at < threads; at++) {
        struct worker *own = &workers[at];
        own->units = malloc(MOST_UNITS * sizeof *own->units);
        own->memory = calloc(MEMORY_WORDS, sizeof *own->memory);
        if (own->units == NULL || own->memory == NULL) {
            return 1;
        }
        /* Its pages are there before the first window. */
        memset(own->units, 1, MOST_UNITS * sizeof *own->units);
        if (start(&own->thread, at, &own->cpu, work, own) != 0) {
            return 1;
        }
    }
    while (scanf("%" SCNu64 " %" SCNu64, &window_ns, &extra) == 2) {
        pthread_mutex_lock(&lock);
        running = threads;
        window++;
        while (running > 0) {
            pthread_cond_wait(&all_done, &lock);
        }
        pthread_mutex_unlock(&lock);
        if (answer(workers, threads) != 0) {
            return 1;
        }
    }
    return 0;
}
