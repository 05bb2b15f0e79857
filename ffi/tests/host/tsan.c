/*
 * What rustc's ThreadSanitizer calls and the runtime of older GCCs (up to 14) does not have: the checked functions of the C
 * library under the names of newer versions. The runtime intercepts the plain names, so that they are checked all the same.
 */
#ifdef __SANITIZE_THREAD__

#include <string.h>

void *__tsan_memcpy(void *to, const void *from, size_t size) __attribute__((weak));
void *__tsan_memmove(void *to, const void *from, size_t size) __attribute__((weak));
void *__tsan_memset(void *to, int value, size_t size) __attribute__((weak));

void *__tsan_memcpy(void *to, const void *from, size_t size)
{
    return memcpy(to, from, size);
}

void *__tsan_memmove(void *to, const void *from, size_t size)
{
    return memmove(to, from, size);
}

void *__tsan_memset(void *to, int value, size_t size)
{
    return memset(to, value, size);
}

#else

/* A file of C has something in it. */
typedef int host_without_sanitizer;

#endif
