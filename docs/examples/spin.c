/* A loop that calls a function that calls nothing: what frame pointers do not
 * tell (docs/limits.md).
 *
 *     gcc -O2 -g -fno-omit-frame-pointer -o spin spin.c
 *     ./spin SECONDS
 */
#include <stdlib.h>
#include <time.h>

__attribute__((noinline)) static void spin(volatile unsigned long *turns) {
    for (int i = 0; i < 100000; i++)
        ++*turns;
}

int main(int argc, char **argv) {
    volatile unsigned long turns = 0;
    time_t deadline = time(NULL) + (argc > 1 ? atoi(argv[1]) : 1);
    while (time(NULL) < deadline)
        spin(&turns);
    return 0;
}
