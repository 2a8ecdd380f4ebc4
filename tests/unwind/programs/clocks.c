// Reads the clock, most of the time in the vDSO.
#include <time.h>

volatile long sink;

__attribute__((noipa)) static void read_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    sink += now.tv_nsec;
}

int main(void) {
    for (;;) read_clock();
}
