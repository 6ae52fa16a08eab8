/* SPDX-License-Identifier: MIT */
#include "progress.h"

#include "log.h"
#include "output.h"

#include <stdlib.h>
#include <unistd.h>

void progress_init(struct progress *progress, const struct load *load) {
    const char *file = load->plan->series_file;

    *progress = (struct progress){.load = load, .last_ns = load->window.start_ns};
    if (!file)
        return;
    progress->series = output_open("--series", file);
    if (!progress->series)
        exit(EXIT_USAGE);
    fprintf(progress->series, "elapsed_s,phase,connections_per_s,handshakes_full_per_s,handshakes_resumed_per_s,"
                              "transactions_per_s,received_bytes_per_s,sent_bytes_per_s,errors\n");
}

static void tell_series(struct progress *progress, const struct counters *now, const char *phase, double elapsed_s,
                        double seconds) {
    const struct counters *last = &progress->last;

    fprintf(progress->series, "%.3f,%s,%.1f,%.1f,%.1f,%.1f,%.0f,%.0f,%llu\n", elapsed_s, phase,
            (double)(now->connections_opened - last->connections_opened) / seconds,
            (double)(now->handshakes_full - last->handshakes_full) / seconds,
            (double)(now->handshakes_resumed - last->handshakes_resumed) / seconds,
            (double)(now->transactions - last->transactions) / seconds,
            (double)(now->bytes_received - last->bytes_received) / seconds,
            (double)(now->bytes_sent - last->bytes_sent) / seconds,
            (unsigned long long)(counters_errors(now) - counters_errors(last)));
    fflush(progress->series);
}

static void tell_line(struct progress *progress, const struct counters *now, const char *phase, double elapsed_s,
                      double seconds) {
    const struct counters *last = &progress->last;
    bool terminal = isatty(STDERR_FILENO);

    fprintf(stderr, "%s%6.1f s %-8s %9.0f conn/s %9.0f full/s %9.0f resumed/s %9.0f tx/s %6llu errors%s",
            terminal ? "\r" : "", elapsed_s, phase,
            (double)(now->connections_opened - last->connections_opened) / seconds,
            (double)(now->handshakes_full - last->handshakes_full) / seconds,
            (double)(now->handshakes_resumed - last->handshakes_resumed) / seconds,
            (double)(now->transactions - last->transactions) / seconds, (unsigned long long)counters_errors(now),
            terminal ? "" : "\n");
    fflush(stderr);
    progress->line_is_open = terminal;
}

void progress_tell(struct progress *progress, const char *phase, uint64_t now_ns) {
    const struct load *load = progress->load;
    struct counters now = {0};
    double seconds = (double)(int64_t)(now_ns - progress->last_ns) / 1e9;
    double elapsed_s = (double)(int64_t)(now_ns - load->window.measured_from_ns) / 1e9;

    if (seconds <= 0)
        return;
    for (uint64_t i = 0; i < load->plan->workers; i++) {
        struct counters worker = tally_totals(&load->tallies[i]);
        counters_add(&now, &worker);
    }
    if (progress->series)
        tell_series(progress, &now, phase, elapsed_s, seconds);
    if (load->plan->progress)
        tell_line(progress, &now, phase, elapsed_s, seconds);
    progress->last = now;
    progress->last_ns = now_ns;
}

bool progress_end(struct progress *progress) {
    bool good = true;

    if (progress->line_is_open)
        fputc('\n', stderr);
    progress->line_is_open = false;
    if (progress->series)
        good = output_close("--series", progress->load->plan->series_file, progress->series, true);
    progress->series = NULL;
    return good;
}
