/* SPDX-License-Identifier: MIT */
#ifndef TLSDYNO_DESCRIPTOR_LIMIT_H
#define TLSDYNO_DESCRIPTOR_LIMIT_H

/* As many descriptors as the system allows this process and those that it forks: each connection takes some. */
void descriptor_limit_raise(void);

#endif
