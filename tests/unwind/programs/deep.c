// Frames of many shapes, none with a frame pointer that the compiler does not
// need, under a leaf that spins.
#include <alloca.h>
#include <immintrin.h>
#include <string.h>

volatile long sink;

__attribute__((noipa)) static long leaf(long x) {
    for (;;) {
        for (int i = 0; i < 1000; i++) sink += x ^ i;
    }
}

__attribute__((noipa)) static long large(long x) {
    volatile char room[300000];
    room[x & 0xff] = 1;
    long found = leaf(x + 1);
    return found + room[3];
}

__attribute__((noipa)) static long growing(long x) {
    volatile char *room = alloca(100 + (x & 63));
    room[0] = 1;
    long found = large(x + 1);
    return found + room[0];
}

// A vector that must lie on 32 bytes: the compiler realigns the frame.
__attribute__((noipa, target("avx2"))) static long realigned(long x) {
    volatile __m256i wide = _mm256_set1_epi64x(x);
    long found = growing(x + 1);
    return found + _mm256_extract_epi64(wide, 1);
}

// The same with arguments on the stack and room of a size not known before,
// for which gcc keeps the frame's start in a slot.
__attribute__((noipa, target("avx2"))) static long
reached(long a, long b, long c, long d, long e, long f, long g, long h) {
    volatile __m256i wide = _mm256_set1_epi64x(a);
    volatile char *room = alloca(64 + (h & 63));
    room[0] = g;
    long found = realigned(a + b + c + d + e + f);
    return found + _mm256_extract_epi64(wide, 1) + room[0] + g + h;
}

// Enough live values for rbp to be one of them.
__attribute__((noipa)) static long crowded(long x) {
    long a = sink + 1, b = sink + 2, c = sink + 3, d = sink + 4, e = sink + 5, f = sink + 6;
    long found = reached(x, 1, 2, 3, 4, 5, 6, 7);
    return found + a * b + c * d + e * f;
}

__attribute__((noipa)) static long recurse(long x, long left) {
    if (left == 0) return crowded(x);
    long found = recurse(x + 1, left - 1);
    // No accumulator can carry this, so the recursion stays one.
    return found * left ^ sink;
}

int main(void) {
    return (int)recurse(1, 50);
}
