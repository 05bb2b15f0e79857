/* Namespaces, tun devices and addresses. */
#ifndef ADIT_TEST_NETWORK_H
#define ADIT_TEST_NETWORK_H

#include "host.h"

/* Puts the calling thread into a network namespace of its own, with lo up; returns the way back. Skips where it may not. */
int namespace_enter(void);
void namespace_leave(int former);

/* Makes a tun or tap device in the namespace of the calling thread; `flags` as of linux/if_tun.h. */
int tun_open(const char *name, int flags);

/* Runs ip(8) in the namespace of the calling thread. */
void ip(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
