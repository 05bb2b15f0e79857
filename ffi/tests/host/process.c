/* What a scenario asks its process and its system: checks, clocks, memory, descriptors, threads. */
#include "host.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void fail(const char *file, int line, const char *condition, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fprintf(stderr, "%s:%d: broken: %s: ", file, line, condition);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    /* Other threads still use what exit() would take down. */
    _exit(1);
}

void expect(const char *file, int line, const char *call, AditResult expected, AditResult found)
{
    if (expected != found) {
        fail(file, line, call, "returned %" PRIu32 " (%s) instead of %" PRIu32 " (%s)", found,
             adit_error_message(found), expected, adit_error_message(expected));
    }
}

void skip(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("skipped: ");
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
    fflush(stdout);
    _exit(77);
}

double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void pause_ms(unsigned milliseconds)
{
    struct timespec pause = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000L};
    nanosleep(&pause, NULL);
}

/* A line «name: number kB» of /proc/self/status, in bytes. */
static size_t status_bytes(const char *name)
{
    char line[256];
    unsigned long kibibytes = 0;
    size_t length = strlen(name);
    FILE *file = fopen("/proc/self/status", "r");
    CHECK(file != NULL, "no /proc/self/status");
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            kibibytes = strtoul(line + length + 1, NULL, 10);
        }
    }
    fclose(file);
    return kibibytes * 1024;
}

size_t resident_bytes(void)
{
    unsigned long total, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL, "no /proc/self/statm");
    CHECK(fscanf(file, "%lu %lu", &total, &resident) == 2, "/proc/self/statm has another form");
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t resident_peak_bytes(void)
{
    return status_bytes("VmHWM");
}

size_t anonymous_bytes(void)
{
    return status_bytes("RssAnon");
}

/* Entries of a folder, without the dots. */
static unsigned entries(const char *path)
{
    unsigned count = 0;
    struct dirent *entry;
    DIR *folder = opendir(path);
    CHECK(folder != NULL, "no %s", path);
    while ((entry = readdir(folder)) != NULL) {
        count += entry->d_name[0] != '.';
    }
    closedir(folder);
    return count;
}

unsigned open_descriptors(void)
{
    /* One of them is the folder's own. */
    return entries("/proc/self/fd") - 1;
}

unsigned running_threads(void)
{
    return entries("/proc/self/task");
}

void wait_for_threads(unsigned count)
{
    double deadline = now_seconds() + 20;
    while (running_threads() > count) {
        CHECK(now_seconds() < deadline, "%u threads run instead of %u", running_threads(), count);
        pause_ms(1);
    }
}

/* SplitMix64, by Steele, Lea and Flood, «Fast splittable pseudorandom number generators» (OOPSLA 2014). */
uint64_t random_number(uint64_t *state)
{
    uint64_t number = (*state += UINT64_C(0x9e3779b97f4a7c15));
    number = (number ^ (number >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    number = (number ^ (number >> 27)) * UINT64_C(0x94d049bb133111eb);
    return number ^ (number >> 31);
}

void *allocate(size_t bytes)
{
    void *memory = calloc(1, bytes);
    CHECK(memory != NULL, "no memory for %zu bytes", bytes);
    return memory;
}

char *text_of(const char *format, ...)
{
    va_list arguments, again;
    int length;
    char *text;
    va_start(arguments, format);
    va_copy(again, arguments);
    length = vsnprintf(NULL, 0, format, arguments);
    CHECK(length >= 0, "%s", format);
    text = allocate((size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
    return text;
}

uint16_t free_port(void)
{
    /* The tunnel binds its port over both families, so both have to be free. */
    struct sockaddr_in6 address;
    socklen_t length = sizeof address;
    int off = 0, fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0, "no IPv6 socket");
    CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0, "IPV6_V6ONLY");
    memset(&address, 0, sizeof address);
    address.sin6_family = AF_INET6;
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "no free port");
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0, "getsockname");
    close(fd);
    return ntohs(address.sin6_port);
}
