/* Runs a command and writes what it and all its descendants used: user and
 * system time in microseconds.
 * meter FILE COMMAND [ARGUMENT…] */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static long long microseconds(struct timeval time)
{
    return (long long)time.tv_sec * 1000000 + time.tv_usec;
}

int main(int argc, char **argv)
{
    struct rusage usage;
    int status;
    if (argc < 3)
        return 125;
    const pid_t child = fork();
    if (child == 0) {
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child)
        return 125;
    FILE *file = fopen(argv[1], "w");
    if (!file
        || fprintf(file, "%lld\n", microseconds(usage.ru_utime) + microseconds(usage.ru_stime)) < 0
        || fclose(file))
        return 125;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 124;
}
