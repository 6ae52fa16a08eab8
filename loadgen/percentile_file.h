/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_PERCENTILE_FILE_H
#define TLSDYNO_PERCENTILE_FILE_H
/*
 * The percentile distribution of a histogram in the layout that HdrHistogram's outputPercentileDistribution has and its
 * plotters read (".hgrm"): rows of
 *
 *     Value  Percentile  TotalCount  1/(1-Percentile)
 *
 * with the value in milliseconds, the percentile as a share of 1, and the number of samples up to the value. Each time
 * the distance to 1 has halved, five rows follow, so that the tail is as detailed as the rest.
 */
#include "latency_histogram.h"

#include <stdbool.h>
#include <stdio.h>

/* False if it could not all be written. */
bool percentile_file_write(const struct latency_histogram *histogram, FILE *out);

#endif
