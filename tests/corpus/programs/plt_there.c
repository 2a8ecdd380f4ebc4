/* One of the two libraries of plt_main. */
#include <stdint.h>

uint64_t back(uint64_t state, int times);

uint64_t there(uint64_t state, int times)
{
    return times == 0 ? state : back(state * 3 + 1, times - 1) + 1;
}
