/* The other library of plt_main. */
#include <stdint.h>

uint64_t there(uint64_t state, int times);

uint64_t back(uint64_t state, int times)
{
    return times == 0 ? state : there(state ^ (state >> 5), times - 1) + 1;
}
