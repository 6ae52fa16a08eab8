/* SPDX-License-Identifier: MIT */
#include "service_model.h"

#include "units.h"

#include <string.h>

#define TIME_MAX_NS (600 * NS_PER_S)

/* What follows prefix in text; NULL if text does not begin with it. */
static const char *after(const char *text, const char *prefix) {
    size_t length = strlen(prefix);

    return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

static const char *read_time(struct service_model *model, const char *text, size_t length) {
    char copy[32];

    if (length >= sizeof copy)
        return "the time is too long a number";
    memcpy(copy, text, length);
    copy[length] = '\0';
    if (!parse_duration_ns(copy, &model->time_ns) || model->time_ns == 0)
        return "the time is not one such as 9ms or 0.5s";
    return model->time_ns <= TIME_MAX_NS ? NULL : "the time is longer than 10 minutes";
}

const char *service_model_parse(void *target, const char *text) {
    struct service_model *model = target;
    const char *value, *comma, *reason;

    *model = (struct service_model){.kind = SERVICE_NONE, .text = text};
    if (strcmp(text, "none") == 0)
        return NULL;
    if ((value = after(text, "fixed:"))) {
        model->kind = SERVICE_FIXED;
        return read_time(model, value, strlen(value));
    }
    if (!(value = after(text, "quadratic:")))
        return "not one of none, fixed:TIME and quadratic:MIN,DIVISOR";
    model->kind = SERVICE_QUADRATIC;
    comma = strchr(value, ',');
    if (!comma)
        return "quadratic needs two numbers: quadratic:MIN,DIVISOR";
    reason = read_time(model, value, (size_t)(comma - value));
    if (reason)
        return reason;
    if (!parse_uint(comma + 1, &model->divisor) || model->divisor == 0)
        return "the divisor is not a whole number from 1";
    return NULL;
}

double service_model_ns(const struct service_model *model, unsigned in_flight) {
    double least = (double)model->time_ns, load;

    if (model->kind == SERVICE_FIXED)
        return least;
    load = (double)in_flight * in_flight * (double)NS_PER_MS / (double)model->divisor;
    return load > least ? load : least;
}
