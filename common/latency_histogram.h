/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_LATENCY_HISTOGRAM_H
#define TLSDYNO_LATENCY_HISTOGRAM_H
/*
 * Durations from 1 us to more than an hour in a fixed 36 KiB, in order, added to each other by adding their buckets.
 *
 * A bucket's number is a small floating-point number: the exponent of the duration and the 7 bits after its leading
 * one. So a bucket is at most 1/128 of its value wide, and its middle, which is what is reported, at most 0.4 % away
 * from any duration in it.
 */
#include <stdint.h>

#define HISTOGRAM_MANTISSA_BITS 7
#define HISTOGRAM_EXPONENT_MAX  42 /* 2^43 ns is 2.4 hours; what is longer is counted in the last bucket */
#define HISTOGRAM_BUCKETS       ((HISTOGRAM_EXPONENT_MAX - HISTOGRAM_MANTISSA_BITS + 2) << HISTOGRAM_MANTISSA_BITS)

/* All zero is empty. One writer; other processes may read it from shared memory when the writer is done. */
struct latency_histogram {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t min_ns; /* exact; meaningless when count is 0 */
    uint64_t max_ns; /* exact */
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

/* O(1), no allocation. */
void latency_histogram_record(struct latency_histogram *histogram, uint64_t duration_ns);

/* Adds all of from to into. O(buckets). */
void latency_histogram_merge(struct latency_histogram *into, const struct latency_histogram *from);

/*
 * The smallest duration that at least the share of all durations does not exceed, 0 < share <= 1, within 0.4 %, never
 * outside [min, max]. 0 if the histogram is empty. O(buckets).
 */
uint64_t latency_histogram_quantile_ns(const struct latency_histogram *histogram, double share);

/* 0 if the histogram is empty. */
double latency_histogram_mean_ns(const struct latency_histogram *histogram);

#endif
