/* Namespaces, tun devices and addresses, by the plain system calls of Linux and by ip(8). */
#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void loopback_up(void)
{
    struct ifreq request;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0, "no socket");
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK;
    CHECK(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "lo does not come up: %s", strerror(errno));
    close(fd);
}

int namespace_enter(void)
{
    int former = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
        skip("this process may make no network namespace: %s", strerror(errno));
    }
    if (access("/dev/net/tun", R_OK | W_OK) != 0) {
        skip("there is no /dev/net/tun");
    }
    loopback_up();
    return former;
}

void namespace_leave(int former)
{
    /* Without root there is no way back, and no need of one. */
    (void)!setns(former, CLONE_NEWNET);
    close(former);
}

int tun_open(const char *name, int flags)
{
    struct ifreq request;
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0, "/dev/net/tun: %s", strerror(errno));
    memset(&request, 0, sizeof request);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    request.ifr_flags = (short)flags;
    CHECK(ioctl(fd, TUNSETIFF, &request) == 0, "TUNSETIFF %s: %s", name, strerror(errno));
    return fd;
}

void ip(const char *format, ...)
{
    char words[512], command[600];
    va_list arguments;
    int status;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    snprintf(command, sizeof command, "PATH=$PATH:/sbin:/usr/sbin ip %s", words);
    status = system(command);
    CHECK(status == 0, "`ip %s`: status %d", words, status);
}
