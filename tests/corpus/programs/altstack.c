/* A signal handler on a stack of its own does the work, some calls deep.
 * altstack CPU_SECONDS DEPTH */
#include "burn.h"

#include <signal.h>

#define STACK_BYTES (1 << 20)

static volatile uint64_t sink;
static double end_seconds;
static int depth;

OWN_FRAME static uint64_t descend(uint64_t state, int levels)
{
    if (levels == 0)
        return churn(state, 20000);
    return descend(state + (uint64_t)levels, levels - 1) ^ state;
}

static void handler(int signal)
{
    const double until = cpu_seconds() + 0.02;
    (void)signal;
    while (cpu_seconds() < until)
        sink = descend(sink | 1, depth);
}

OWN_FRAME static void raise_again_and_again(void)
{
    while (cpu_seconds() < end_seconds)
        raise(SIGUSR1);
}

int main(int argc, char **argv)
{
    const stack_t stack = {.ss_sp = malloc(STACK_BYTES), .ss_size = STACK_BYTES};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    depth = argc > 2 ? atoi(argv[2]) : 0;
    end_seconds = seconds_argument(argc, argv);
    if (!stack.ss_sp || sigaltstack(&stack, NULL) || sigaction(SIGUSR1, &action, NULL))
        return 1;
    raise_again_and_again();
    return 0;
}
