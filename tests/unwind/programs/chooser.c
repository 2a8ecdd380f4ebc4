extern long chosen(long x);

volatile long result;

__attribute__((noipa)) static void call(long x) {
    result = chosen(x) + 1;
}

int main(void) {
    call(1);
    return 0;
}
