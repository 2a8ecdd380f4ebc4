// A handler on an alternate stack that spins, over code that was interrupted
// in a library's leaf.
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

volatile long sink;

__attribute__((noipa)) static void burn(void) {
    for (;;) sink++;
}

static void handler(int number) {
    (void)number;
    burn();
    sink++;
}

__attribute__((noipa)) static void work(void) {
    raise(SIGUSR1);
    sink++;
}

int main(void) {
    stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    sigaltstack(&stack, 0);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, 0);
    work();
    return 0;
}
