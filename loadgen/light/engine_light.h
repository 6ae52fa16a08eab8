/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_ENGINE_LIGHT_H
#define TLSDYNO_ENGINE_LIGHT_H
#include "../engine.h"

/* For tests that look for leaks: an engine otherwise lives as long as its process. No connection may be open. */
void engine_light_free(struct engine *engine);

#endif
