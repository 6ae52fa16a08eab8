/* SPDX-License-Identifier: MIT */
#include "latency_histogram.h"

#include <math.h>

#define MANTISSA (UINT64_C(1) << HISTOGRAM_MANTISSA_BITS)

static unsigned bucket_of(uint64_t ns) {
    unsigned exponent;

    if (ns < MANTISSA)
        return (unsigned)ns;
    exponent = 63 - (unsigned)__builtin_clzll(ns);
    if (exponent > HISTOGRAM_EXPONENT_MAX)
        return HISTOGRAM_BUCKETS - 1;
    return ((exponent - HISTOGRAM_MANTISSA_BITS + 1) << HISTOGRAM_MANTISSA_BITS) +
           (unsigned)((ns >> (exponent - HISTOGRAM_MANTISSA_BITS)) & (MANTISSA - 1));
}

static uint64_t middle_of(unsigned bucket) {
    unsigned shift;
    uint64_t low;

    if (bucket < MANTISSA)
        return bucket;
    shift = (bucket >> HISTOGRAM_MANTISSA_BITS) - 1;
    low = (MANTISSA + (bucket & (MANTISSA - 1))) << shift;
    return low + ((UINT64_C(1) << shift) >> 1);
}

void latency_histogram_record(struct latency_histogram *histogram, uint64_t duration_ns) {
    if (histogram->count == 0 || duration_ns < histogram->min_ns)
        histogram->min_ns = duration_ns;
    if (duration_ns > histogram->max_ns)
        histogram->max_ns = duration_ns;
    histogram->count++;
    histogram->sum_ns += duration_ns;
    histogram->bucket[bucket_of(duration_ns)]++;
}

void latency_histogram_merge(struct latency_histogram *into, const struct latency_histogram *from) {
    if (from->count == 0)
        return;
    if (into->count == 0 || from->min_ns < into->min_ns)
        into->min_ns = from->min_ns;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
    into->count += from->count;
    into->sum_ns += from->sum_ns;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
}

uint64_t latency_histogram_quantile_ns(const struct latency_histogram *histogram, double share) {
    uint64_t seen = 0, rank = (uint64_t)ceil(share * (double)histogram->count);

    if (rank == 0)
        rank = 1;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->bucket[i];
        if (seen < rank)
            continue;
        uint64_t ns = middle_of(i);
        if (ns < histogram->min_ns)
            return histogram->min_ns;
        return ns > histogram->max_ns ? histogram->max_ns : ns;
    }
    return histogram->max_ns;
}

double latency_histogram_mean_ns(const struct latency_histogram *histogram) {
    return histogram->count ? (double)histogram->sum_ns / (double)histogram->count : 0.;
}
