/* SPDX-License-Identifier: MIT */
#include "percentile_file.h"

#include <inttypes.h>
#include <math.h>

#define ROWS_PER_HALVING 5
#define HALVINGS_MAX     40 /* a share nearer to 1 is not told from 1 by the 12 digits of a row */

/* How many samples are are in the buckets up to that of the rank-th one. */
static uint64_t samples_up_to(const struct latency_histogram *histogram, uint64_t rank) {
    uint64_t seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && seen < rank; i++)
        seen += histogram->bucket[i];
    return seen;
}

static double value_ms(const struct latency_histogram *histogram, double share) {
    return (double)latency_histogram_quantile_ns(histogram, share) / 1e6;
}

static void write_row(const struct latency_histogram *histogram, double share, FILE *out) {
    uint64_t rank = (uint64_t)ceil(share * (double)histogram->count);

    fprintf(out, "%12.6f %14.12f %10" PRIu64 " %14.2f\n", value_ms(histogram, share), share,
            samples_up_to(histogram, rank ? rank : 1), 1 / (1 - share));
}

/* From the middles of the buckets. A search a bucket: a few ms, once. */
static double deviation_ms(const struct latency_histogram *histogram) {
    double mean = latency_histogram_mean_ns(histogram) / 1e6, sum = 0;
    uint64_t seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (histogram->bucket[i] == 0)
            continue;
        seen += histogram->bucket[i];
        double off = value_ms(histogram, ((double)seen - .5) / (double)histogram->count) - mean;
        sum += off * off * (double)histogram->bucket[i];
    }
    return histogram->count ? sqrt(sum / (double)histogram->count) : 0;
}

bool percentile_file_write(const struct latency_histogram *histogram, FILE *out) {
    double distance = 1;

    fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for (int halving = 0; histogram->count > 0 && halving < HALVINGS_MAX; halving++, distance /= 2) {
        for (int row = 0; row < ROWS_PER_HALVING; row++)
            write_row(histogram, 1 - distance + distance / 2 * row / ROWS_PER_HALVING, out);
        if (distance / 2 * (double)histogram->count < 1)
            break; /* what is left is one sample: the last row */
    }
    if (histogram->count > 0)
        fprintf(out, "%12.6f %14.12f %10" PRIu64 " %14s\n", (double)histogram->max_ns / 1e6, 1., histogram->count,
                "inf");
    fprintf(out, "#[Mean    = %12.6f, StdDeviation   = %12.6f]\n", latency_histogram_mean_ns(histogram) / 1e6,
            deviation_ms(histogram));
    fprintf(out, "#[Max     = %12.6f, Total count    = %12" PRIu64 "]\n", (double)histogram->max_ns / 1e6,
            histogram->count);
    fprintf(out, "#[Buckets = %12d, SubBuckets     = %12d]\n", HISTOGRAM_EXPONENT_MAX - HISTOGRAM_MANTISSA_BITS + 2,
            1 << HISTOGRAM_MANTISSA_BITS);
    return !ferror(out);
}
