/* Sixty functions that call each other in a chain. Their frames differ in size
 * and in the registers that they save; some of the work is done on each level. */
#include "burn.h"

#define STEPS_ON_EACH_LEVEL 40
#define STEPS_AT_THE_END 20000

OWN_FRAME static uint64_t f60(uint64_t a, uint64_t b)
{
    return churn(a ^ b, STEPS_AT_THE_END);
}

/* What is still needed after the call stands in registers that are saved. */
#define LINK(name, callee, words)                            \
    OWN_FRAME static uint64_t name(uint64_t a, uint64_t b)   \
    {                                                        \
        volatile uint64_t local[words];                      \
        uint64_t c = churn(a, STEPS_ON_EACH_LEVEL);          \
        local[c % (words)] = b;                              \
        uint64_t d = callee(b, c);                           \
        return churn(d, 3) + a * c + local[c % (words)];     \
    }

LINK(f59, f60, 23)
LINK(f58, f59, 16)
LINK(f57, f58, 9)
LINK(f56, f57, 2)
LINK(f55, f56, 18)
LINK(f54, f55, 11)
LINK(f53, f54, 4)
LINK(f52, f53, 20)
LINK(f51, f52, 13)
LINK(f50, f51, 6)
LINK(f49, f50, 22)
LINK(f48, f49, 15)
LINK(f47, f48, 8)
LINK(f46, f47, 1)
LINK(f45, f46, 17)
LINK(f44, f45, 10)
LINK(f43, f44, 3)
LINK(f42, f43, 19)
LINK(f41, f42, 12)
LINK(f40, f41, 5)
LINK(f39, f40, 21)
LINK(f38, f39, 14)
LINK(f37, f38, 7)
LINK(f36, f37, 23)
LINK(f35, f36, 16)
LINK(f34, f35, 9)
LINK(f33, f34, 2)
LINK(f32, f33, 18)
LINK(f31, f32, 11)
LINK(f30, f31, 4)
LINK(f29, f30, 20)
LINK(f28, f29, 13)
LINK(f27, f28, 6)
LINK(f26, f27, 22)
LINK(f25, f26, 15)
LINK(f24, f25, 8)
LINK(f23, f24, 1)
LINK(f22, f23, 17)
LINK(f21, f22, 10)
LINK(f20, f21, 3)
LINK(f19, f20, 19)
LINK(f18, f19, 12)
LINK(f17, f18, 5)
LINK(f16, f17, 21)
LINK(f15, f16, 14)
LINK(f14, f15, 7)
LINK(f13, f14, 23)
LINK(f12, f13, 16)
LINK(f11, f12, 9)
LINK(f10, f11, 2)
LINK(f9, f10, 18)
LINK(f8, f9, 11)
LINK(f7, f8, 4)
LINK(f6, f7, 20)
LINK(f5, f6, 13)
LINK(f4, f5, 6)
LINK(f3, f4, 22)
LINK(f2, f3, 15)
LINK(f1, f2, 8)
LINK(f0, f1, 1)

int main(int argc, char **argv)
{
    const double seconds = seconds_argument(argc, argv);
    uint64_t state = 88172645463325252u;
    while (cpu_seconds() < seconds)
        for (int i = 0; i < 20; i++)
            state = f0(state, state >> 1) | 1;
    return state == 0;
}
