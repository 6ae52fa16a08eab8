/* SPDX-License-Identifier: MIT */
#include "spare_sockets.h"

#include "plan.h"

#include <sys/socket.h>
#include <unistd.h>

bool spare_sockets_serve(const struct plan *plan) {
    if (plan->source.count > 0)
        return false;
    for (int i = 0; i < plan->targets; i++)
        if (plan->target[i].address.sockaddr.any.sa_family != plan->target[0].address.sockaddr.any.sa_family)
            return false;
    return !address_is_local(&plan->target[0].address);
}

/* The target's FIN was the last thing that came: to disconnect before that would send RST. */
static bool is_at_its_end(int fd) {
    char byte;

    return recv(fd, &byte, sizeof byte, MSG_DONTWAIT) == 0;
}

bool spare_socket_disconnect(int fd) {
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC}; /* dissolves the association, connect(2) */

    if (connect(fd, &nowhere, sizeof nowhere) == 0)
        return true;
    close(fd);
    return false;
}

void spare_sockets_keep(struct spare_sockets *spare, int fd) {
    if (spare->count == SPARE_SOCKETS_MAX || !is_at_its_end(fd))
        close(fd);
    else if (spare_socket_disconnect(fd))
        spare->fds[spare->count++] = fd;
}

int spare_sockets_take(struct spare_sockets *spare) {
    return spare->count > 0 ? spare->fds[--spare->count] : -1;
}

void spare_sockets_end(struct spare_sockets *spare) {
    while (spare->count > 0)
        close(spare_sockets_take(spare));
}
