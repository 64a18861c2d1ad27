/* Times commands against each other: race ROUNDS [NS=PATH] COMMAND ARGS... ::: [NS=PATH] COMMAND ARGS... [::: ...]
 *
 * In every round each command runs once, in an order that is shuffled anew, so that noise hits all alike and nobody
 * always runs while the kernel takes the same other's namespaces down. The time of one is from before vfork to after
 * wait4, by CLOCK_MONOTONIC. NS=PATH enters the mount namespace at PATH first. Each command's output goes to
 * /dev/null; one that does not end with status 0 ends the race. Prints one line per command: its times in nanoseconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WARM_UP = 3 };

struct contender {
    char **argv;
    int namespace;
    long *times;
};

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static long run(const struct contender *c, int null)
{
    long start = now();
    pid_t pid = vfork();
    if (pid == 0) {
        if ((c->namespace >= 0 && setns(c->namespace, CLONE_NEWNS) < 0) || dup2(null, 0) < 0 || dup2(null, 1) < 0)
            _exit(126);
        execv(c->argv[0], c->argv);
        _exit(127);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0) {
        perror("race");
        exit(1);
    }
    long end = now();
    if (status != 0) {
        fprintf(stderr, "race: %s ended with wait status %d\n", c->argv[0], status);
        exit(1);
    }
    return end - start;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    int rounds = atoi(argv[1]), count = 0;
    struct contender *all = calloc(argc, sizeof *all);
    for (int i = 2; i < argc; i++) {
        struct contender *c = &all[count++];
        c->namespace = -1;
        if (strncmp(argv[i], "NS=", 3) == 0 && (c->namespace = open(argv[i++] + 3, O_RDONLY | O_CLOEXEC)) < 0) {
            perror(argv[i - 1]);
            return 1;
        }
        c->argv = &argv[i];
        c->times = calloc(rounds, sizeof *c->times);
        while (i < argc && strcmp(argv[i], ":::") != 0)
            i++;
        argv[i] = NULL;
    }
    int *order = calloc(count, sizeof *order);
    for (int i = 0; i < count; i++)
        order[i] = i;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int round = -WARM_UP; round < rounds; round++) {
        for (int i = count - 1; i > 0; i--) {
            int other = rand() % (i + 1), kept = order[i];
            order[i] = order[other];
            order[other] = kept;
        }
        for (int i = 0; i < count; i++) {
            long time = run(&all[order[i]], null);
            if (round >= 0)
                all[order[i]].times[round] = time;
        }
    }
    for (int i = 0; i < count; i++)
        for (int round = 0; round < rounds; round++)
            printf("%ld%c", all[i].times[round], round + 1 < rounds ? ' ' : '\n');
    return 0;
}
