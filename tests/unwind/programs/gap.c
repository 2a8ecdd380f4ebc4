// A function without unwind rows, built with frame pointers, between others
// that have rows: what `-fno-asynchronous-unwind-tables` leaves in a program.
volatile long sink;
long (*volatile below)(long);

long undescribed(long x);
long outer(long x);

__attribute__((noipa)) long spin(long x) {
    for (;;) sink += x;
}

int main(void) {
    below = spin;
    return (int)outer(3);
}
