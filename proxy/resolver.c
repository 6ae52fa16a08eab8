/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Goes through the pipe in one piece: it is smaller than PIPE_BUF. */
struct answer {
    char refusal[160]; /* empty: here is the list */
    struct address_list list;
};

/* Nobody can be reached there, though it can be listened on. NULL, or why. */
static const char *check_reachable(const struct address_list *list) {
    for (int i = 0; i < list->count; i++) {
        const struct sockaddr_in *ipv4 = &list->address[i].sockaddr.ipv4;
        const struct sockaddr_in6 *ipv6 = &list->address[i].sockaddr.ipv6;

        if (address_is_local(&list->address[i]))
            continue;
        if (ipv4->sin_port == 0) /* which is where IPv6 has it too */
            return "port 0: nobody can be reached there";
        if (ipv4->sin_family == AF_INET ? ipv4->sin_addr.s_addr == INADDR_ANY
                                        : IN6_IS_ADDR_UNSPECIFIED(&ipv6->sin6_addr))
            return "stands for every address of this machine: name the one to connect to";
    }
    return NULL;
}

const char *resolver_read(struct address_list *list, const char *text) {
    const char *reason = address_resolve_number(list, text);

    return reason ? reason : check_reachable(list);
}

/* In the process that asks; fd is the end of the pipe to write to. */
_Noreturn static void ask(const char *text, const struct privileges *privileges, int fd) {
    struct privileges without_root = *privileges;
    struct answer answer = {0};
    const char *refusal;

    /* At its end it is SIGALRM that ends it: the pipe closes, and that is an answer. */
    alarm(RESOLVER_LIMIT_S);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    /* The listening sockets must not outlive the master here, nor the lifeline of the workers. */
    if (dup2(fd, STDERR_FILENO + 1) < 0 || close_range(STDERR_FILENO + 2, ~0U, 0) != 0)
        _exit(1);
    without_root.root = NULL; /* the system's configuration of names is outside */
    refusal = privileges_drop(&without_root);
    if (!refusal)
        refusal = address_resolve(&answer.list, text);
    if (refusal)
        snprintf(answer.refusal, sizeof answer.refusal, "%s", refusal);
    _exit(write(STDERR_FILENO + 1, &answer, sizeof answer) == sizeof answer ? 0 : 1);
}

bool resolver_start(struct resolver *resolver, const char *text, const struct privileges *privileges) {
    int fds[2], error;

    if (pipe2(fds, O_CLOEXEC) != 0)
        return false;
    *resolver = (struct resolver){.fd = fds[0], .pid = fork()};
    if (resolver->pid == 0)
        ask(text, privileges, fds[1]);
    error = errno;
    close(fds[1]);
    if (resolver->pid > 0)
        return true;
    close(fds[0]);
    errno = error;
    return false;
}

void resolver_abandon(struct resolver *resolver) {
    close(resolver->fd);
}

/* It comes from a process that has listened to the network: nothing of it is believed. */
static bool is_sound(const struct answer *answer) {
    bool sound = answer->list.count > 0 && answer->list.count <= ADDRESS_LIST_MAX;

    for (int i = 0; sound && i < answer->list.count; i++) {
        const struct address *address = &answer->list.address[i];
        sound = (address->sockaddr.any.sa_family == AF_INET && address->length == sizeof address->sockaddr.ipv4) ||
                (address->sockaddr.any.sa_family == AF_INET6 && address->length == sizeof address->sockaddr.ipv6);
    }
    return sound;
}

const char *resolver_finish(struct resolver *resolver, struct address_list *list) {
    static struct answer answer;
    static char late[64];
    ssize_t length;

    do
        length = read(resolver->fd, &answer, sizeof answer);
    while (length < 0 && errno == EINTR);
    close(resolver->fd);
    while (waitpid(resolver->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (length != sizeof answer) {
        snprintf(late, sizeof late, "no answer of a name server within %d s", RESOLVER_LIMIT_S);
        return late;
    }
    answer.refusal[sizeof answer.refusal - 1] = '\0';
    if (answer.refusal[0])
        return answer.refusal;
    if (!is_sound(&answer))
        return "no address that can be used";
    *list = answer.list;
    return check_reachable(list);
}

const char *resolver_resolve(struct address_list *list, const char *text, const struct privileges *privileges) {
    const char *reason = resolver_read(list, text);
    struct resolver resolver;

    if (reason || list->count)
        return reason;
    return resolver_start(&resolver, text, privileges) ? resolver_finish(&resolver, list) : strerror(errno);
}
