// Built with frame pointers and without rows.
extern volatile long sink;
extern long (*volatile below)(long);

__attribute__((noipa)) long undescribed(long x) {
    long found = below(x + 1);
    sink++;
    return found;
}

__attribute__((noipa)) long outer(long x) {
    long found = undescribed(x + 1);
    sink++;
    return found;
}
