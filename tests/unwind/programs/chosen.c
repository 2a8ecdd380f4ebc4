// A function that is chosen when it is first called: the choice runs under
// ld.so's resolver, whose frame hangs on rbx, and spins there.
volatile long sink;

__attribute__((noipa)) static void choose_slowly(void) {
    for (;;) sink++;
}

static long first(long x) { return x; }

static void *choose(void) {
    choose_slowly();
    return first;
}

long chosen(long x) __attribute__((ifunc("choose")));
