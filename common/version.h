/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_VERSION_H
#define TLSDYNO_VERSION_H

#define TLSDYNO_VERSION "0.1.0"

#endif
