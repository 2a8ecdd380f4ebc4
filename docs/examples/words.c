/* Counts the words of all files below a directory, again and again for some
 * seconds. The program in the flame graph of the README:
 *
 *     gcc -O2 -g -pthread -o words words.c
 *     ./words DIRECTORY SECONDS
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 1 << 16, WORD_BYTES = 24, READ_BYTES = 1 << 16 };

struct slot {
    char word[WORD_BYTES];
    uint64_t times;
};

struct counter {
    struct slot slots[SLOTS];
    char buffer[READ_BYTES];
};

static const char *directory;
static time_t deadline;
static _Thread_local struct counter *own;

static uint32_t hash(const char *word, size_t length) {
    uint32_t state = 2166136261u;
    for (size_t i = 0; i < length; i++)
        state = (state ^ (uint8_t)word[i]) * 16777619u;
    return state;
}

__attribute__((noinline)) static void count_word(const char *word, size_t length) {
    char key[WORD_BYTES] = {0};
    memcpy(key, word, length < WORD_BYTES - 1 ? length : WORD_BYTES - 1);
    uint32_t at = hash(word, length) % SLOTS;
    for (int probes = 0; probes < 64; probes++, at = (at + 1) % SLOTS) {
        struct slot *slot = &own->slots[at];
        if (slot->times == 0)
            memcpy(slot->word, key, WORD_BYTES);
        if (memcmp(slot->word, key, WORD_BYTES) == 0) {
            slot->times++;
            return;
        }
    }
}

__attribute__((noinline)) static void count_text(const char *text, size_t length) {
    size_t start = 0;
    for (size_t i = 0; i <= length; i++) {
        if (i < length && isalpha((unsigned char)text[i]))
            continue;
        if (i > start)
            count_word(text + start, i - start);
        start = i + 1;
    }
}

__attribute__((noinline)) static void count_file(const char *path) {
    int file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0)
        return;
    for (ssize_t length; (length = read(file, own->buffer, READ_BYTES)) > 0;)
        count_text(own->buffer, (size_t)length);
    close(file);
}

__attribute__((noinline)) static void count_directory(const char *path) {
    DIR *listing = opendir(path);
    if (!listing)
        return;
    for (struct dirent *entry; time(NULL) < deadline && (entry = readdir(listing));) {
        char below[PATH_MAX];
        if (entry->d_name[0] == '.' ||
            snprintf(below, sizeof below, "%s/%s", path, entry->d_name) >= PATH_MAX)
            continue;
        if (entry->d_type == DT_DIR)
            count_directory(below);
        else if (entry->d_type == DT_REG)
            count_file(below);
    }
    closedir(listing);
}

/* Not qsort: libc, built without frame pointers, would stand between. */
__attribute__((noinline)) static void sort_by_times(struct slot *slots, int length) {
    for (int gap = length / 2; gap > 0; gap = gap * 5 / 11)
        for (int i = gap; i < length; i++) {
            struct slot moved = slots[i];
            int at = i;
            for (; at >= gap && slots[at - gap].times < moved.times; at -= gap)
                slots[at] = slots[at - gap];
            slots[at] = moved;
        }
}

__attribute__((noinline)) static void *work(void *name) {
    pthread_setname_np(pthread_self(), name);
    own = calloc(1, sizeof *own);
    while (own && time(NULL) < deadline) {
        count_directory(directory);
        sort_by_times(own->slots, SLOTS);
        printf("%s: %s, %lu times\n", (char *)name, own->slots[0].word, own->slots[0].times);
        memset(own->slots, 0, sizeof own->slots);
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    directory = argv[1];
    deadline = time(NULL) + atoi(argv[2]);
    pthread_t threads[2];
    static char names[2][8] = {"words-0", "words-1"};
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, work, names[i]) != 0)
            return 1;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
