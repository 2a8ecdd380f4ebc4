/* `deep PROCESSES CPUS THRASH`: PROCESSES processes, spread over the first CPUS
 * CPUs, each at the bottom of a chain of calls nearly all the time. What comes
 * after this text is generated: the links of the chain, and `main`. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEPS = 20000, THRASH_BYTES = 64 << 20 };

/* Used after a call, so that it cannot become a jump. */
#define KEEP(value) __asm__ volatile("" : "+r"(value))

static volatile uint64_t *thrashed;

__attribute__((noinline)) static uint64_t link_0(uint64_t state) {
    volatile uint64_t *memory = thrashed;
    for (int step = 0; step < STEPS; step++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if (memory) {
            memory[state % (THRASH_BYTES / 8)] = state;
        }
    }
    return state;
}

/* A function that has WORDS words of its own and two values across the call. */
#define LINK(next, words, salt)                                                \
    volatile uint64_t own[words];                                              \
    uint64_t a = state * 3 + salt, b = state ^ salt;                           \
    KEEP(a);                                                                   \
    KEEP(b);                                                                   \
    own[0] = a;                                                                \
    uint64_t below = next(state);                                              \
    KEEP(below);                                                               \
    return below + a + b + own[0]

/* COUNT functions of about 300 bytes with nine rows of unwind table each. */
#define FILLERS(count)                                                         \
    __asm__(".text\n"                                                          \
            ".rept " #count "\n"                                               \
            ".p2align 4\n"                                                     \
            ".cfi_startproc\n"                                                 \
            "push %rbp\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset %rbp, 0\n"   \
            "push %rbx\n.cfi_adjust_cfa_offset 8\n"                            \
            "push %r12\n.cfi_adjust_cfa_offset 8\n"                            \
            "sub $40, %rsp\n.cfi_adjust_cfa_offset 40\n"                       \
            ".skip 256, 0x90\n"                                                \
            "add $40, %rsp\n.cfi_adjust_cfa_offset -40\n"                      \
            "pop %r12\n.cfi_adjust_cfa_offset -8\n"                            \
            "pop %rbx\n.cfi_adjust_cfa_offset -8\n"                            \
            "pop %rbp\n.cfi_adjust_cfa_offset -8\n.cfi_restore %rbp\n"         \
            "ret\n"                                                            \
            ".cfi_endproc\n"                                                   \
            ".endr\n");

static void pin(long cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    /* A CPU that may not be used is left to the scheduler. */
    (void)sched_setaffinity(0, sizeof set, &set);
}

/* Returns in each of the processes; the first one waits for SIGTERM, and ends
 * with them all gone. */
static void start(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: deep PROCESSES CPUS THRASH\n");
        exit(2);
    }
    long processes = strtol(argv[1], NULL, 10);
    long cpus = strtol(argv[2], NULL, 10);
    pid_t parent = getpid();
    pid_t *children = calloc((size_t)processes, sizeof *children);
    sigset_t end;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    if (!children || sigprocmask(SIG_BLOCK, &end, NULL) != 0) {
        exit(1);
    }
    for (long at = 0; at < processes; at++) {
        pid_t child = fork();
        if (child < 0) {
            exit(1);
        }
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) {
                exit(1);
            }
            pin(at % cpus);
            if (strtol(argv[3], NULL, 10) != 0) {
                thrashed = malloc(THRASH_BYTES);
                if (!thrashed) {
                    exit(1);
                }
            }
            return;
        }
        children[at] = child;
    }
    int signal;
    sigwait(&end, &signal);
    for (long at = 0; at < processes; at++) {
        kill(children[at], SIGKILL);
    }
    while (wait(NULL) > 0) {
    }
    exit(0);
}
