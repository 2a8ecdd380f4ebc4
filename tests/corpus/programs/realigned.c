/* Frames whose start is moved down to a multiple of 32 for vector registers
 * that are kept in memory: the canonical frame address is read from the stack. */
#include "burn.h"

#include <immintrin.h>

OWN_FRAME static void churn_lanes(__m256i *lanes, int count)
{
    for (int i = 0; i < count; i++) {
        lanes[i] = _mm256_xor_si256(lanes[i], _mm256_slli_epi64(lanes[i], 13));
        lanes[i] = _mm256_xor_si256(lanes[i], _mm256_srli_epi64(lanes[i], 7));
        lanes[i] = _mm256_xor_si256(lanes[i], _mm256_slli_epi64(lanes[i], 17));
    }
}

OWN_FRAME static uint64_t realigned(uint64_t seed, int levels)
{
    __m256i lanes[8];
    for (int i = 0; i < 8; i++)
        lanes[i] = _mm256_set1_epi64x((long long)(seed + (uint64_t)i));
    for (int i = 0; i < 200; i++)
        churn_lanes(lanes, 8);
    uint64_t below = levels ? realigned(seed * 5 + 1, levels - 1) : seed;
    return below ^ (uint64_t)_mm256_extract_epi64(lanes[levels % 8], 1);
}

int main(int argc, char **argv)
{
    const double seconds = seconds_argument(argc, argv);
    uint64_t state = 1;
    while (cpu_seconds() < seconds)
        state = realigned(state, 12) | 1;
    return state == 0;
}
