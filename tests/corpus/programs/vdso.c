/* Reads the clock through the vDSO as fast as it can. */
#include "burn.h"

static volatile uint64_t sink;

OWN_FRAME static uint64_t read_clock(int times)
{
    uint64_t sum = 0;
    struct timespec now;
    while (times--) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        sum += (uint64_t)now.tv_nsec;
    }
    return sum;
}

int main(int argc, char **argv)
{
    const double seconds = seconds_argument(argc, argv);
    while (cpu_seconds() < seconds)
        sink = read_clock(50000);
    return 0;
}
