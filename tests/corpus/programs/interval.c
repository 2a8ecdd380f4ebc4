/* A timer's signals interrupt the work, in C and in libc, wherever it is; the
 * handler, on a stack of its own, works as well. */
#include "burn.h"

#include <signal.h>
#include <string.h>
#include <sys/time.h>

#define STACK_BYTES (1 << 16)

static volatile uint64_t sink;

static void handler(int signal)
{
    sink = churn((uint64_t)signal, 2000000);
}

OWN_FRAME static uint64_t copies(char *bytes, size_t length)
{
    uint64_t sum = 0;
    for (size_t at = 1; at < length / 2; at += 64) {
        memmove(bytes + at, bytes, length / 2);
        sum += (unsigned char)bytes[at];
    }
    return sum;
}

int main(int argc, char **argv)
{
    const double seconds = seconds_argument(argc, argv);
    const stack_t stack = {.ss_sp = malloc(STACK_BYTES), .ss_size = STACK_BYTES};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_RESTART};
    const struct itimerval each_10_ms = {{0, 10000}, {0, 10000}};
    static char bytes[1 << 14];
    if (!stack.ss_sp || sigaltstack(&stack, NULL) || sigaction(SIGPROF, &action, NULL)
        || setitimer(ITIMER_PROF, &each_10_ms, NULL))
        return 1;
    while (cpu_seconds() < seconds)
        sink = copies(bytes, sizeof bytes);
    return 0;
}
