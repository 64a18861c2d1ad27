/* Both ends of the measured connections, lean enough not to be what is measured.
 *
 *   connect serve                         prints its port; one byte for a 2, a gibibyte for a 1
 *   connect pass PORT                     prints its port; takes connections and passes each on to that port of this host,
 *                                         and does nothing else: the least that any proxy does
 *   connect stream HOST PORT              bytes a second of one stream
 *   connect each HOST PORT COUNT          connections one after another: the median of their seconds
 *   connect many HOST PORT COUNT FLIGHT   connections a second with as many as FLIGHT at once
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, BLOCKS = 1 << 10, EVENTS = 256 };

static char block[BLOCK];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void *stream(void *argument) {
    int connection = (int)(long)argument;
    for (int sent = 0; sent < BLOCKS; sent++)
        for (ssize_t at = 0; at < BLOCK;) {
            ssize_t length = send(connection, block + at, BLOCK - at, MSG_NOSIGNAL);
            if (length <= 0) goto end;
            at += length;
        }
end:
    close(connection);
    return NULL;
}

/* Listens on the loopback, and prints where. */
static int listening(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (void *)&address, length) || listen(listener, 4096)) fail("listen");
    getsockname(listener, (void *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void serve(void) {
    int listener = listening(), events = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[EVENTS];
    epoll_ctl(events, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(events, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            char asked = 0;
            if (fd == listener) {
                while ((fd = accept(listener, NULL, NULL)) >= 0) {
                    event.data.fd = fd;
                    epoll_ctl(events, EPOLL_CTL_ADD, fd, &event);
                }
            } else if (recv(fd, &asked, 1, 0) == 1 && asked == 1) {
                pthread_t thread;
                epoll_ctl(events, EPOLL_CTL_DEL, fd, NULL);
                if (pthread_create(&thread, NULL, stream, (void *)(long)fd)) fail("thread");
                pthread_detach(thread);
            } else {
                if (asked == 2) send(fd, "!", 1, MSG_NOSIGNAL);
                close(fd);
            }
        }
    }
}

/* Its two sockets; what comes at one goes to the other, and the end of one is the end of both. */
struct passed {
    int fd;
    struct passed *other;
};

static struct passed *add_passed(int events, int fd, struct passed *other) {
    struct passed *passed = malloc(sizeof *passed);
    *passed = (struct passed){fd, other};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = passed};
    epoll_ctl(events, EPOLL_CTL_ADD, fd, &event);
    return passed;
}

static void pass(int port) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int listener = listening(), events = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, ready[EVENTS];
    epoll_ctl(events, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(events, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct passed *from = ready[i].data.ptr;
            if (from == NULL) {
                for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                    int to = socket(AF_INET, SOCK_STREAM, 0);
                    if (connect(to, (void *)&server, sizeof server)) fail("connect");
                    struct passed *one = add_passed(events, fd, NULL);
                    one->other = add_passed(events, to, one);
                }
                continue;
            }
            /* Small things only, as `many` sends them. */
            ssize_t got = recv(from->fd, block, BLOCK, MSG_DONTWAIT);
            if (got > 0) {
                send(from->other->fd, block, got, MSG_NOSIGNAL);
                continue;
            }
            if (got < 0) continue;
            close(from->fd);
            close(from->other->fd);
            /* What was told of the other in the same breath is about nobody. */
            for (int later = i + 1; later < count; later++)
                if (ready[later].data.ptr == from->other) ready[later] = ready[--count];
            free(from->other);
            free(from);
        }
    }
}

static struct sockaddr_in target(char **words) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    struct sockaddr_in address;
    if (getaddrinfo(words[0], words[1], &hints, &found)) fail("getaddrinfo");
    memcpy(&address, found->ai_addr, sizeof address);
    freeaddrinfo(found);
    return address;
}

static int begin(const struct sockaddr_in *address, char asked) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (void *)address, sizeof *address)) fail("connect");
    if (send(fd, &asked, 1, 0) != 1) fail("send");
    return fd;
}

static int by_size(const void *left, const void *right) {
    double difference = *(double *)left - *(double *)right;
    return (difference > 0) - (difference < 0);
}

static double each(const struct sockaddr_in *address, int count) {
    double *times = calloc(count, sizeof *times);
    for (int i = 0; i < count; i++) {
        char answer;
        times[i] = now();
        int fd = begin(address, 2);
        if (recv(fd, &answer, 1, 0) != 1) fail("recv");
        times[i] = now() - times[i];
        close(fd);
    }
    qsort(times, count, sizeof *times, by_size);
    return times[count / 2];
}

static void add(int events, const struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connect(fd, (void *)address, sizeof *address);
    struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
    epoll_ctl(events, EPOLL_CTL_ADD, fd, &event);
}

static double many(const struct sockaddr_in *address, int count, int flight) {
    int events = epoll_create1(0), begun = 0;
    struct epoll_event ready[EVENTS];
    double start = now();
    for (; begun < flight && begun < count; begun++) add(events, address);
    for (int done = 0; done < count;) {
        int found = epoll_wait(events, ready, EVENTS, 20000);
        if (found <= 0) fail("nothing comes");
        for (int i = 0; i < found; i++) {
            int fd = ready[i].data.fd;
            char byte = 2;
            if (ready[i].events & EPOLLOUT) {
                struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
                if (send(fd, &byte, 1, 0) != 1) fail("send");
                epoll_ctl(events, EPOLL_CTL_MOD, fd, &event);
            } else {
                if (recv(fd, &byte, 1, 0) != 1) fail("recv");
                close(fd);
                done++;
                if (begun < count) begun++, add(events, address);
            }
        }
    }
    return count / (now() - start);
}

static double whole(const struct sockaddr_in *address) {
    int fd = begin(address, 1);
    double start = now(), bytes = 0;
    for (ssize_t length; (length = recv(fd, block, BLOCK, 0)) > 0;) bytes += length;
    return bytes / (now() - start);
}

int main(int count, char **words) {
    if (count == 2 && !strcmp(words[1], "serve")) serve();
    if (count == 3 && !strcmp(words[1], "pass")) pass(atoi(words[2]));
    if (count < 4) return 2;
    struct sockaddr_in address = target(words + 2);
    if (!strcmp(words[1], "stream")) printf("%.0f\n", whole(&address));
    else if (!strcmp(words[1], "each") && count == 5) printf("%.9f\n", each(&address, atoi(words[4])));
    else if (!strcmp(words[1], "many") && count == 6) printf("%.1f\n", many(&address, atoi(words[4]), atoi(words[5])));
    else return 2;
    return 0;
}
