/* Calls between two shared libraries, every one through a procedure linkage
 * table, with next to no work in between. */
#include "burn.h"

uint64_t there(uint64_t state, int times);

int main(int argc, char **argv)
{
    const double seconds = seconds_argument(argc, argv);
    uint64_t state = 1;
    while (cpu_seconds() < seconds)
        for (int i = 0; i < 2000; i++)
            state = there(state, 30) | 1;
    return state == 0;
}
