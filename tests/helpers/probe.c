/* Makes system calls by number and says what the kernel said, one line each:
 *
 *   probe calls NAME:NUMBER[,ARG...]...   each in a child: `NAME returned N`, `NAME errno N`, `NAME killed SIGNAL`
 *   probe int80 NUMBER                    one by the 32-bit gate, whose numbers are another architecture's
 *   probe forks MOST                      children that stay, until fork fails: `forked N errno E`
 *   probe memory KIND MIB                 fills so much: `private`, `memfd`, `shm`, `file`, `sysv`
 *
 * ARG is a number, `@text` for a pointer to text, or `&` for a pointer to zeroes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char zeroes[8][4096] __attribute__((aligned(64)));

static void one_call(char *spec) {
    long args[6] = {0}, number;
    int count = 0;
    char *name = strsep(&spec, ":"), *word;
    number = strtol(strsep(&spec, ","), NULL, 0);
    while (count < 6 && (word = strsep(&spec, ","))) {
        if (*word == '@') args[count] = (long)(word + 1);
        else if (*word == '&') args[count] = (long)zeroes[count];
        else args[count] = (long)strtoul(word, NULL, 0);
        count++;
    }
    fflush(stdout);
    int answer[2];
    if (pipe(answer)) exit(9);
    pid_t child = fork();
    if (child < 0) exit(9);
    if (child == 0) {
        errno = 0;
        long result = syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
        long report[2] = {result, result == -1 ? errno : 0};
        /* What a call such as clone made must not speak too. */
        if (write(answer[1], report, sizeof report) != sizeof report) _exit(9);
        _exit(0);
    }
    int status;
    long report[2];
    waitpid(child, &status, 0);
    close(answer[1]);
    if (WIFSIGNALED(status)) printf("%s killed %d\n", name, WTERMSIG(status));
    else if (read(answer[0], report, sizeof report) != sizeof report) exit(9);
    else if (report[0] == -1) printf("%s errno %ld\n", name, report[1]);
    else printf("%s returned %ld\n", name, report[0]);
    close(answer[0]);
}

static long int80(long number) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0) : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
#else
    (void)number;
    return 0;
#endif
}

static void *fill(void *at, size_t size) {
    if (at == MAP_FAILED) { printf("errno %d\n", errno); exit(3); }
    for (size_t n = 0; n < size; n += 4096) ((volatile char *)at)[n] = 1;
    return at;
}

static int memory(const char *kind, size_t size) {
    int fd = -1;
    if (!strcmp(kind, "private")) {
        fill(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), size);
    } else if (!strcmp(kind, "sysv")) {
        int id = shmget(IPC_PRIVATE, size, 0600);
        if (id < 0) { printf("errno %d\n", errno); return 3; }
        fill(shmat(id, NULL, 0), size);
    } else {
        static char chunk[1 << 20];
        if (!strcmp(kind, "memfd")) fd = memfd_create("x", 0);
        else if (!strcmp(kind, "shm")) fd = open("/dev/shm/x", O_RDWR | O_CREAT, 0600);
        else fd = open("/sandbox/x", O_RDWR | O_CREAT, 0600);
        memset(chunk, 1, sizeof chunk);
        for (size_t n = 0; n < size; n += sizeof chunk)
            if (write(fd, chunk, sizeof chunk) != sizeof chunk) { printf("errno %d\n", errno); return 3; }
    }
    printf("filled\n");
    fflush(stdout);
    sleep(2);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    if (!strcmp(argv[1], "calls")) {
        for (int n = 2; n < argc; n++) one_call(argv[n]);
        return 0;
    }
    if (!strcmp(argv[1], "int80")) {
        printf("survived %ld\n", int80(atol(argv[2])));
        return 0;
    }
    if (!strcmp(argv[1], "forks")) {
        int count = 0, most = atoi(argv[2]);
        for (; count < most; count++) {
            pid_t child = fork();
            if (child < 0) break;
            if (child == 0) { pause(); _exit(0); }
        }
        printf("forked %d errno %d\n", count, count < most ? errno : 0);
        /* Who watches from outside has to look. */
        sleep(1);
        return count < most;
    }
    if (!strcmp(argv[1], "memory") && argc > 3) return memory(argv[2], (size_t)atol(argv[3]) << 20);
    return 2;
}
