/* Stacks that the program switches itself: main hands the CPU to four contexts
 * in turn, each with work some calls deep. */
#include "burn.h"

#include <ucontext.h>

#define CONTEXTS 4
#define STACK_BYTES (1 << 17)

static ucontext_t main_context, contexts[CONTEXTS];
static volatile uint64_t sink;

OWN_FRAME static uint64_t descend(uint64_t state, int levels)
{
    if (levels == 0)
        return churn(state, 20000);
    return descend(state + (uint64_t)levels, levels - 1) ^ state;
}

/* The judge knows it by its name. */
OWN_FRAME void context_start(int number)
{
    for (;;) {
        sink = descend(sink | 1, 10 + number);
        swapcontext(&contexts[number], &main_context);
    }
}

int main(int argc, char **argv)
{
    const double seconds = seconds_argument(argc, argv);
    for (int i = 0; i < CONTEXTS; i++) {
        void *stack = malloc(STACK_BYTES);
        if (!stack || getcontext(&contexts[i]))
            return 1;
        contexts[i].uc_stack.ss_sp = stack;
        contexts[i].uc_stack.ss_size = STACK_BYTES;
        makecontext(&contexts[i], (void (*)(void))context_start, 1, i);
    }
    while (cpu_seconds() < seconds)
        for (int i = 0; i < CONTEXTS; i++)
            swapcontext(&main_context, &contexts[i]);
    return 0;
}
