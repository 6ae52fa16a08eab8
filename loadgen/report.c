/* SPDX-License-Identifier: MIT */
#include "report.h"

#include "output.h"
#include "percentile_file.h"
#include "units.h"
#include "version.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

/* What this run measures at all: what it does not is absent from the result, never 0. */
struct measured {
    bool tls;
    bool transactions;
    double seconds;
};

static struct measured what_is_measured(const struct report *report) {
    const struct plan *plan = report->load->plan;
    const struct tally *tally = &report->tally;

    return (struct measured){
        .tls = plan->target[0].tls,
        .transactions = plan->requests_per_connection > 0,
        .seconds = tally->measured_until_ns > tally->measured_from_ns
                       ? (double)(tally->measured_until_ns - tally->measured_from_ns) / 1e9
                       : 0,
    };
}

static void set_integer(json_t *object, const char *name, uint64_t value) {
    json_object_set_new(object, name, json_integer((json_int_t)value));
}

/* Rounded to a millionth: a double's 17 digits say nothing more and are hard to read. */
static void set_real(json_t *object, const char *name, double value) {
    json_object_set_new(object, name, json_real((double)(int64_t)(value * 1e6 + 0.5) / 1e6));
}

static void set_string(json_t *object, const char *name, const char *value) {
    json_t *string = json_string(value);

    json_object_set_new(object, name, string ? string : json_string("(not UTF-8)"));
}

/* ---- JSON ---- */

static void set_counters(json_t *object, const struct counters *counters, const struct measured *measured) {
    if (measured->transactions)
        set_integer(object, "transactions", counters->transactions);
    set_integer(object, "connections_opened", counters->connections_opened);
    if (measured->tls) {
        set_integer(object, "handshakes_full", counters->handshakes_full);
        set_integer(object, "handshakes_resumed", counters->handshakes_resumed);
        set_integer(object, "resume_offered", counters->resume_offered);
        set_integer(object, "resume_refused", counters->resume_refused);
    }
    set_integer(object, "bytes_received", counters->bytes_received);
    set_integer(object, "bytes_sent", counters->bytes_sent);
    set_integer(object, "closes_unanswered", counters->closes_unanswered);
}

static json_t *errors_json(const struct counters *counters) {
    json_t *errors = json_object();

    for (int i = 0; i < LOAD_ERRORS; i++)
        set_integer(errors, load_error_name((enum load_error)i), counters->errors[i]);
    return errors;
}

static json_t *rates_json(const struct counters *counters, const struct measured *measured) {
    json_t *rates = json_object();

    if (measured->transactions)
        set_real(rates, "transactions_per_s", (double)counters->transactions / measured->seconds);
    if (measured->tls) {
        set_real(rates, "handshakes_full_per_s", (double)counters->handshakes_full / measured->seconds);
        set_real(rates, "handshakes_resumed_per_s", (double)counters->handshakes_resumed / measured->seconds);
    }
    set_real(rates, "connections_per_s", (double)counters->connections_opened / measured->seconds);
    return rates;
}

static json_t *latency_json(const struct latency_histogram *histogram) {
    static const struct {
        const char *name;
        double share;
    } quantiles[] = {{"p50", .5}, {"p90", .9}, {"p95", .95}, {"p99", .99}, {"p999", .999}};
    json_t *latency = json_object();

    set_integer(latency, "count", histogram->count);
    set_real(latency, "min", (double)histogram->min_ns / 1e3);
    set_real(latency, "mean", latency_histogram_mean_ns(histogram) / 1e3);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
        set_real(latency, quantiles[i].name,
                 (double)latency_histogram_quantile_ns(histogram, quantiles[i].share) / 1e3);
    set_real(latency, "max", (double)histogram->max_ns / 1e3);
    return latency;
}

static json_t *latencies_json(const struct tally *tally) {
    json_t *latencies = json_object();

    for (int i = 0; i < LATENCIES; i++)
        if (tally->latency[i].count > 0)
            json_object_set_new(latencies, latency_name((enum latency)i), latency_json(&tally->latency[i]));
    return latencies;
}

static void set_agreed(json_t *result, const struct plan *plan, const struct tally *tally) {
    json_t *negotiated = json_array(), *certificates = json_array();

    for (int i = 0; i < TALLY_NEGOTIATED && tally->negotiated[i].count > 0; i++) {
        const struct negotiated *row = &tally->negotiated[i];
        json_t *object = json_object();
        set_string(object, "tls_version", row->tls_version);
        set_string(object, "cipher", row->cipher);
        set_string(object, "group", row->group);
        set_string(object, "sigalg", row->sigalg);
        if (plan->engine_config.alpn)
            set_string(object, "alpn", row->alpn);
        set_integer(object, "count", row->count);
        json_array_append_new(negotiated, object);
    }
    json_object_set_new(result, "negotiated", negotiated);
    for (int i = 0; i < TALLY_CERTIFICATES && tally->certificates[i].count > 0; i++) {
        const struct certificate *row = &tally->certificates[i];
        json_t *object = json_object();
        set_string(object, "key", row->key);
        set_integer(object, "chain_bytes", row->chain_bytes);
        if (i == 0)
            json_object_set_new(result, "certificate", json_copy(object));
        set_integer(object, "count", row->count);
        json_array_append_new(certificates, object);
    }
    json_object_set_new(result, "certificates", certificates);
}

/* Both halves were lived through: the window ended when it was to end. */
static bool has_halves(const struct report *report) {
    const struct window *window = &report->load->window;

    return window->middle_ns != UINT64_MAX && !report->lost &&
           report->tally.measured_until_ns >= window->measured_until_ns;
}

static void set_measurement(json_t *result, const struct report *report, const struct measured *measured) {
    const struct plan *plan = report->load->plan;
    const struct tally *tally = &report->tally;
    const struct counters *counters = &tally->phase[PHASE_MEASURED];
    double user_s = (double)tally->user_ns / 1e9, system_s = (double)tally->system_ns / 1e9;
    json_t *cpu = json_object(), *halves = json_object(), *bodies = json_object();

    json_object_set_new(result, "rates", rates_json(counters, measured));
    if (has_halves(report)) {
        set_real(halves, "first", (double)tally->half_ops[0] / (measured->seconds / 2));
        set_real(halves, "second", (double)tally->half_ops[1] / (measured->seconds / 2));
        json_object_set(result, "half_rates", halves);
    }
    if (measured->transactions && counters->transactions > 0) {
        set_integer(bodies, "min", tally->body_min_bytes);
        set_integer(bodies, "max", tally->body_max_bytes);
        json_object_set(result, "response_body_bytes", bodies);
    }
    set_real(cpu, "user_s", user_s);
    set_real(cpu, "system_s", system_s);
    set_real(cpu, "busy_fraction", (user_s + system_s) / (measured->seconds * (double)plan->workers));
    json_object_set(result, "cpu", cpu);
    json_decref(cpu);
    json_decref(halves);
    json_decref(bodies);
}

static void set_targets(json_t *result, const struct plan *plan) {
    json_t *targets = json_array();

    set_string(result, "target", plan->target[0].url);
    for (int i = 0; i < plan->targets; i++)
        json_array_append_new(targets, json_string(plan->target[i].url));
    json_object_set_new(result, "targets", targets);
    if (plan->unix_path)
        set_string(result, "unix", plan->unix_path);
}

static uint64_t arrivals_due(const struct arrival_counts *arrivals) {
    return arrivals->done + arrivals->failed + arrivals->never_begun;
}

static void set_loop(json_t *result, const struct report *report) {
    const struct plan *plan = report->load->plan;
    const struct arrival_counts *arrivals = &report->tally.arrivals;
    uint64_t due = arrivals_due(arrivals);
    json_t *open_loop;

    set_string(result, "loop", plan->pacing.arrivals == ARRIVALS_NONE ? "closed" : "open");
    if (plan->pacing.arrivals == ARRIVALS_NONE)
        return;
    open_loop = json_object();
    set_string(open_loop, "arrivals", arrivals_name(plan->pacing.arrivals));
    if (plan->pacing.arrivals != ARRIVALS_BURST)
        set_real(open_loop, "rate_per_s", plan->pacing.rate_per_s);
    set_integer(open_loop, "due", due);
    set_integer(open_loop, "done", arrivals->done);
    set_integer(open_loop, "failed", arrivals->failed);
    set_integer(open_loop, "never_begun", arrivals->never_begun);
    set_integer(open_loop, "unfinished_at_end", due - arrivals->ended_in_time);
    json_object_set_new(result, "open_loop", open_loop);
    if (!plan->hold)
        return;
    json_t *hold = json_object();
    set_real(hold, "interval_s", (double)plan->hold_interval_ns / 1e9);
    set_integer(hold, "open_at_end", report->tally.open_at_end);
    json_object_set_new(result, "hold", hold);
}

static void set_origin(json_t *result, const struct plan *plan) {
    char text[ADDRESS_TEXT_MAX];
    struct address last;

    if (plan->proxy_protocol != PROXY_PROTOCOL_NONE)
        set_string(result, "proxy_protocol", plan->proxy_protocol == PROXY_PROTOCOL_V1 ? "v1" : "v2");
    if (plan->source.count == 0)
        return;
    json_t *source = json_object();
    set_string(source, "first", source_format(&plan->source.first, text));
    last = source_address(&plan->source, plan->source.count - 1);
    set_string(source, "last", source_format(&last, text));
    set_integer(source, "addresses", plan->source.count);
    json_object_set_new(result, "source", source);
}

static json_t *result_json(const struct report *report) {
    const struct plan *plan = report->load->plan;
    const struct tally *tally = &report->tally;
    struct measured measured = what_is_measured(report);
    struct counters totals = tally_totals(tally);
    json_t *result = json_object(), *all = json_object();

    set_string(result, "version", TLSDYNO_VERSION);
    set_string(result, "engine", plan->engine->name);
    if (plan->engine->note)
        set_string(result, "engine_note", plan->engine->note);
    set_targets(result, plan);
    set_integer(result, "started_unix_ns", report->load->window.started_unix_ns);
    set_real(result, "duration_s", measured.seconds);
    set_integer(result, "workers", plan->workers);
    set_integer(result, "connections", plan->connections);
    if (plan->coalesce_ns)
        set_real(result, "coalesce_us", (double)plan->coalesce_ns / NS_PER_US);
    set_loop(result, report);
    set_origin(result, plan);
    set_counters(result, &tally->phase[PHASE_MEASURED], &measured);
    if (measured.seconds > 0)
        set_measurement(result, report, &measured);
    json_object_set_new(result, "latency_us", latencies_json(tally));
    if (measured.tls)
        set_agreed(result, plan, tally);
    json_object_set_new(result, "errors", errors_json(&tally->phase[PHASE_MEASURED]));
    set_counters(all, &totals, &measured);
    json_object_set_new(all, "errors", errors_json(&totals));
    json_object_set_new(result, "totals", all);
    if (report->interrupted)
        json_object_set_new(result, "interrupted", json_true());
    if (report->lost)
        set_string(result, "error", report->lost);
    return result;
}

static bool write_json(const struct report *report) {
    FILE *out = output_open("--json", report->json_file);
    json_t *result;
    bool good;

    if (!out)
        return false;
    result = result_json(report);
    good = json_dumpf(result, out, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) == 0 && fputc('\n', out) != EOF;
    json_decref(result);
    return output_close("--json", report->json_file, out, good);
}

/* ---- For people ---- */

static void print_latencies(const struct tally *tally) {
    bool headed = false;

    for (int i = 0; i < LATENCIES; i++) {
        const struct latency_histogram *histogram = &tally->latency[i];
        if (histogram->count == 0)
            continue;
        if (!headed)
            printf("%-20s %10s %10s %10s %10s %10s %10s\n", "latency, us", "mean", "p50", "p90", "p99", "p99.9", "max");
        headed = true;
        printf("  %-18s %10.0f %10.0f %10.0f %10.0f %10.0f %10.0f\n", latency_name((enum latency)i),
               latency_histogram_mean_ns(histogram) / 1e3, (double)latency_histogram_quantile_ns(histogram, .5) / 1e3,
               (double)latency_histogram_quantile_ns(histogram, .9) / 1e3,
               (double)latency_histogram_quantile_ns(histogram, .99) / 1e3,
               (double)latency_histogram_quantile_ns(histogram, .999) / 1e3, (double)histogram->max_ns / 1e3);
    }
}

static void print_count(const char *name, uint64_t count, double seconds) {
    printf("  %-18s %10" PRIu64, name, count);
    if (seconds > 0)
        printf(" %10.1f /s", (double)count / seconds);
    putchar('\n');
}

static void print_agreed(const struct tally *tally) {
    for (int i = 0; i < TALLY_NEGOTIATED && tally->negotiated[i].count > 0; i++) {
        const struct negotiated *row = &tally->negotiated[i];
        printf("%-20s %s %s %s %s%s%s (%" PRIu64 ")\n", i ? "" : "negotiated", row->tls_version, row->cipher,
               row->group, row->sigalg, *row->alpn ? " " : "", row->alpn, row->count);
    }
    for (int i = 0; i < TALLY_CERTIFICATES && tally->certificates[i].count > 0; i++)
        printf("%-20s %s, chain of %u bytes (%" PRIu64 ")\n", i ? "" : "certificate", tally->certificates[i].key,
               tally->certificates[i].chain_bytes, tally->certificates[i].count);
}

static void print_loop(const struct report *report) {
    const struct plan *plan = report->load->plan;
    const struct arrival_counts *arrivals = &report->tally.arrivals;
    uint64_t due = arrivals_due(arrivals);

    if (plan->pacing.arrivals == ARRIVALS_NONE) {
        printf("%-20s closed: a slow target is asked less\n", "loop");
        return;
    }
    printf("%-20s open, ", "loop");
    if (plan->hold)
        printf("held: one transaction a connection every %g s; %" PRIu64 " open at the end\n",
               (double)plan->hold_interval_ns / 1e9, report->tally.open_at_end);
    else if (plan->pacing.arrivals == ARRIVALS_BURST)
        printf("all at once\n");
    else
        printf("%g a second, %s arrivals\n", plan->pacing.rate_per_s, arrivals_name(plan->pacing.arrivals));
    printf("%-20s %" PRIu64 " due, %" PRIu64 " done, %" PRIu64 " failed, %" PRIu64 " never begun; %" PRIu64
           " unfinished when the time was over\n",
           "arrivals", due, arrivals->done, arrivals->failed, arrivals->never_begun, due - arrivals->ended_in_time);
}

static void print_summary(const struct report *report) {
    const struct plan *plan = report->load->plan;
    const struct tally *tally = &report->tally;
    const struct counters *counters = &tally->phase[PHASE_MEASURED];
    struct measured measured = what_is_measured(report);
    struct counters totals = tally_totals(tally);
    uint64_t cpu_ns = tally->user_ns + tally->system_ns;

    printf("%s, engine %s, %" PRIu64 " connections, %" PRIu64 " worker%s, %.3f s%s\n", plan->target[0].url,
           plan->engine->name, plan->connections, plan->workers, plan->workers == 1 ? "" : "s", measured.seconds,
           report->interrupted ? " (interrupted)" : "");
    if (plan->engine->note)
        printf("%s\n", plan->engine->note);
    print_loop(report);
    print_count("connections", counters->connections_opened, measured.seconds);
    if (measured.tls) {
        print_count("full handshakes", counters->handshakes_full, measured.seconds);
        print_count("resumed handshakes", counters->handshakes_resumed, measured.seconds);
        if (counters->resume_refused)
            print_count("resumption refused", counters->resume_refused, measured.seconds);
    }
    if (measured.transactions)
        print_count("transactions", counters->transactions, measured.seconds);
    print_count("bytes received", counters->bytes_received, measured.seconds);
    print_count("bytes sent", counters->bytes_sent, measured.seconds);
    print_latencies(tally);
    if (measured.tls)
        print_agreed(tally);
    if (measured.seconds > 0)
        printf("%-20s %.3f s user, %.3f s system, %.0f %% busy\n", "own CPU", (double)tally->user_ns / 1e9,
               (double)tally->system_ns / 1e9, 100 * (double)cpu_ns / 1e9 / (measured.seconds * (double)plan->workers));
    printf("%-20s %" PRIu64, "errors", counters_errors(&totals));
    for (int i = 0; i < LOAD_ERRORS; i++)
        if (totals.errors[i])
            printf("  %s %" PRIu64, load_error_name((enum load_error)i), totals.errors[i]);
    putchar('\n');
}

static bool write_histogram(const struct report *report) {
    const char *file = report->load->plan->histogram_file;
    FILE *out = output_open("--histogram", file);

    return out && output_close("--histogram", file, out,
                               percentile_file_write(&report->tally.latency[LATENCY_TRANSACTION], out));
}

bool report_write(const struct report *report) {
    const struct plan *plan = report->load->plan;
    bool good = true;

    if (!output_is_stdout(report->json_file) && !output_is_stdout(plan->histogram_file) &&
        !output_is_stdout(plan->series_file)) {
        print_summary(report);
        good = output_close("result", "standard output", stdout, true);
    }
    if (report->json_file)
        good = write_json(report) && good;
    if (plan->histogram_file)
        good = write_histogram(report) && good;
    return good;
}
