// Starts processes at a fixed rate: loop CHILD SECONDS PER_SECOND MILLISECONDS.
// Descriptor 3 is memory that all of them share. Prints what they used.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static uint64_t ns(struct timeval time) {
    return time.tv_sec * 1000000000ull + time.tv_usec * 1000ull;
}

int main(int count, char **arguments) {
    if (count != 5) {
        return 2;
    }
    double seconds = atof(arguments[2]);
    double per_second = atof(arguments[3]);
    int memory = memfd_create("burnt", 0);
    if (memory < 0 || ftruncate(memory, 4096) != 0 || dup2(memory, 3) != 3) {
        return 1;
    }
    volatile uint64_t *burnt = mmap(NULL, 4096, PROT_READ, MAP_SHARED, 3, 0);
    if (burnt == MAP_FAILED) {
        return 1;
    }
    double start = now();
    unsigned long started = 0;
    for (double past = 0; past < seconds; past = now() - start) {
        while (started < past * per_second) {
            char *child[] = {"short_child", arguments[4], NULL};
            pid_t pid = fork();
            if (pid == 0) {
                execv(arguments[1], child);
                _exit(127);
            }
            if (pid < 0) {
                return 1;
            }
            started++;
        }
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
        usleep(500);
    }
    while (wait(NULL) > 0) {
    }
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    printf("{\"pid\":%d,\"processes\":%lu,\"cpu_ns\":%lu,\"burnt_ns\":%lu}\n", getpid(), started,
           (unsigned long)(ns(used.ru_utime) + ns(used.ru_stime)), (unsigned long)burnt[0]);
    return 0;
}
