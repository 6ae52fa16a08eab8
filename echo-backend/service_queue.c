/* SPDX-License-Identifier: MIT */
#include "service_queue.h"

#include "clock.h"
#include "log.h"
#include "shared_memory.h"
#include "units.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* How often a worker looks what the others' coming and going did to its own: nobody tells it. */
#define LOOK_NS (NS_PER_MS / 2)

struct service {
    pthread_mutex_t lock; /* robust: a worker that dies with it leaves at most one stretch of time counted twice */
    const struct service_model *model;
    int workers;
    double work;    /* done on each of the requests in flight, summed up over all time */
    uint64_t at_ns; /* work is of this moment */
    uint64_t served, total_ns, longest_ns;
    unsigned most_in_flight;
    unsigned in_flight[]; /* of each worker */
};

struct service *service_new(const struct service_model *model, int workers) {
    struct service *service = shared_memory_new(sizeof *service + (size_t)workers * sizeof *service->in_flight);
    pthread_mutexattr_t attributes;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&service->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    service->model = model;
    service->workers = workers;
    return service;
}

static unsigned in_flight(const struct service *service) {
    unsigned sum = 0;

    for (int i = 0; i < service->workers; i++)
        sum += service->in_flight[i];
    return sum;
}

/* Brings the work up to this moment, which it returns: to be done before any change to what is in flight. */
static uint64_t lock(struct service *service) {
    unsigned requests;
    uint64_t now_ns;

    if (pthread_mutex_lock(&service->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&service->lock);
    now_ns = monotonic_ns();
    requests = in_flight(service);
    if (requests > 0 && now_ns > service->at_ns)
        service->work += (double)(now_ns - service->at_ns) / service_model_ns(service->model, requests);
    service->at_ns = now_ns;
    return now_ns;
}

static void unlock(struct service *service) {
    pthread_mutex_unlock(&service->lock);
}

void service_worker_ended(struct service *service, int worker) {
    lock(service);
    service->in_flight[worker] = 0;
    unlock(service);
}

static void arm(struct service_queue *queue, uint64_t in_ns) {
    const struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(in_ns / NS_PER_S), .tv_nsec = (long)(in_ns % NS_PER_S)}};

    timerfd_settime(queue->timer.fd, 0, &at, NULL);
    queue->armed = in_ns > 0;
}

static void take_out(struct service_queue *queue, struct service_job *job) {
    *(job->before ? &job->before->after : &queue->first) = job->after;
    *(job->after ? &job->after->before : &queue->last) = job->before;
    job->in_service = false;
}

/* With the lock: in how many ns the first is done if nothing changes, or when to look if it has. At least 1. */
static uint64_t due_ns(const struct service_queue *queue) {
    const struct service *service = queue->service;
    double left_ns =
        (queue->first->done_at_work - service->work) * service_model_ns(service->model, in_flight(service));
    bool may_be_sooner = service->workers > 1 && service->model->kind == SERVICE_QUADRATIC;

    if (left_ns < 1.)
        return 1;
    return may_be_sooner && left_ns > LOOK_NS ? LOOK_NS : (uint64_t)ceil(left_ns);
}

/* NULL, or a job that is done; then look again. Else the timer is set for the next one. */
static struct service_job *next_done(struct service_queue *queue) {
    struct service *service = queue->service;
    struct service_job *job = queue->first;
    uint64_t now_ns, due = 0;

    if (!job)
        return NULL;
    now_ns = lock(service);
    if (service->work >= job->done_at_work) {
        uint64_t took_ns = now_ns - job->began_ns;
        take_out(queue, job);
        service->in_flight[queue->worker]--;
        service->served++;
        service->total_ns += took_ns;
        if (took_ns > service->longest_ns)
            service->longest_ns = took_ns;
    } else {
        due = due_ns(queue);
        job = NULL;
    }
    unlock(service);
    if (due)
        arm(queue, due);
    return job;
}

static void on_timer(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)loop, (void)events;
    struct service_queue *queue = watcher->data;
    struct service_job *job;
    uint64_t expirations;

    if (read(watcher->fd, &expirations, sizeof expirations) < 0)
        return; /* it was set anew meanwhile */
    queue->armed = false;
    while ((job = next_done(queue)))
        queue->done(job);
}

void service_queue_open(struct service_queue *queue, struct service *service, int worker, struct ev_loop *loop) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);

    if (fd < 0)
        fail(EXIT_FAILED, "timerfd: %s", strerror(errno));
    queue->service = service;
    queue->worker = worker;
    queue->loop = loop;
    ev_io_init(&queue->timer, on_timer, fd, EV_READ);
    queue->timer.data = queue;
    ev_io_start(loop, &queue->timer);
}

void service_queue_join(struct service_queue *queue, struct service_job *job) {
    struct service *service = queue->service;
    unsigned requests;
    uint64_t due;

    job->before = queue->last;
    job->after = NULL;
    *(queue->last ? &queue->last->after : &queue->first) = job;
    queue->last = job;
    job->in_service = true;
    job->began_ns = lock(service);
    job->done_at_work = service->work + 1.;
    service->in_flight[queue->worker]++;
    requests = in_flight(service);
    if (requests > service->most_in_flight)
        service->most_in_flight = requests;
    due = due_ns(queue);
    unlock(service);
    if (!queue->armed) /* else it is set for one that is done sooner */
        arm(queue, due);
}

void service_queue_leave(struct service_queue *queue, struct service_job *job) {
    if (!job->in_service)
        return;
    take_out(queue, job);
    lock(queue->service);
    queue->service->in_flight[queue->worker]--;
    unlock(queue->service);
    if (queue->first) /* the others go faster now */
        arm(queue, 1);
}

struct service_tally service_queue_tally(const struct service_queue *queue) {
    struct service *service = queue->service;
    struct service_tally tally;

    lock(service);
    tally = (struct service_tally){.in_flight = in_flight(service),
                                   .most_in_flight = service->most_in_flight,
                                   .served = service->served,
                                   .total_ns = service->total_ns,
                                   .longest_ns = service->longest_ns};
    unlock(service);
    return tally;
}

const struct service_model *service_queue_model(const struct service_queue *queue) {
    return queue->service->model;
}
