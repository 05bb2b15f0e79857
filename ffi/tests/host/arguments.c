/* Every function with every invalid argument: the code that the header names, and nothing written. */
#include "host.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a place for a result holds before the call, and after one that failed. */
enum { UNTOUCHED = 0x5a };

static const char VALID[] = "[Interface]\nPrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";

static void event_callback(void *context, AditTunnel tunnel, const AditEvent *event)
{
    (void)context, (void)tunnel, (void)event;
}

static void packets_callback(void *context, AditTunnel tunnel, const AditSlice *packets, const int32_t *families,
                             size_t count)
{
    (void)context, (void)tunnel, (void)packets, (void)families, (void)count;
}

static void log_callback(void *context, uint32_t level, const char *target, const char *message, size_t length)
{
    (void)context, (void)level, (void)target, (void)message, (void)length;
}

static void untouched(const void *place, size_t size)
{
    size_t at;
    for (at = 0; at < size; at++) {
        CHECK(((const uint8_t *)place)[at] == UNTOUCHED, "byte %zu of a result was written", at);
    }
}

/* A handle of 0, of nobody, and of a tunnel that was freed, for every function that takes one. */
static void handles(void)
{
    AditTunnel stale, handle, invalid[8];
    AditText text;
    AditStats stats;
    AditSlice packet = {(const uint8_t *)"E", 1};
    size_t accepted, index;
    OK(adit_tunnel_new(VALID, strlen(VALID), NULL, event_callback, NULL, &stale));
    OK(adit_tunnel_free(stale));
    OK(adit_tunnel_new(VALID, strlen(VALID), NULL, event_callback, NULL, &handle));
    CHECK(stale != handle, "a handle was given out twice");
    invalid[0] = 0;
    invalid[1] = stale;
    invalid[2] = handle ^ 1;
    invalid[3] = handle ^ (UINT64_C(1) << 32);
    invalid[4] = handle | (UINT64_C(1) << 63);
    invalid[5] = UINT64_MAX;
    invalid[6] = handle << 32;
    invalid[7] = handle & UINT32_MAX;
    memset(&text, UNTOUCHED, sizeof text);
    memset(&accepted, UNTOUCHED, sizeof accepted);
    memset(&stats, UNTOUCHED, sizeof stats);
    for (index = 0; index < sizeof invalid / sizeof invalid[0]; index++) {
        AditTunnel bad = invalid[index];
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_free(bad));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_stop(bad, 0, 0));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_start_fd(bad, 0, 0, 0));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_attach_fd(bad, 0, 0, 0));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_start_callbacks(bad, packets_callback, NULL));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_inject(bad, &packet, 1, NULL, 0, &accepted));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_settings(bad, &text));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_settings_applied(bad, 1));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_settings_failed(bad, 1, "no", 2));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_update(bad, VALID, strlen(VALID)));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_path_changed(bad, 1, 1, 1));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_sleep(bad));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_wake(bad));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_stats(bad, &stats));
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_snapshot(bad, 0, &text));
    }
    untouched(&text, sizeof text);
    untouched(&accepted, sizeof accepted);
    untouched(&stats, sizeof stats);
    OK(adit_tunnel_free(handle));
}

static void new_tunnels(void)
{
    AditTunnel out;
    AditOptions options;
    char *long_text = allocate(2000), bad_name[] = "\xff\xfe";
    union { AditOptions options; uint8_t bytes[sizeof(AditOptions) + 8]; } place;
    memset(long_text, 'x', 1999);
    memset(&out, UNTOUCHED, sizeof out);
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_new(NULL, 0, NULL, event_callback, NULL, &out));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_new(NULL, 9, NULL, event_callback, NULL, &out));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_new(VALID, strlen(VALID), NULL, NULL, NULL, &out));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_new(VALID, strlen(VALID), NULL, event_callback, NULL, NULL));
    EXPECT(ADIT_ERROR_INVALID_UTF8, adit_tunnel_new("\xff", 1, NULL, event_callback, NULL, &out));
    EXPECT(ADIT_ERROR_INVALID_UTF8, adit_tunnel_new("\xc3", 1, NULL, event_callback, NULL, &out));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_tunnel_new(VALID, SIZE_MAX, NULL, event_callback, NULL, &out));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_tunnel_new(VALID, (size_t)PTRDIFF_MAX, NULL, event_callback, NULL, &out));
    EXPECT(ADIT_ERROR_CONFIGURATION, adit_tunnel_new("", 0, NULL, event_callback, NULL, &out));
    EXPECT(ADIT_ERROR_CONFIGURATION, adit_tunnel_new("\0", 1, NULL, event_callback, NULL, &out));
    EXPECT(ADIT_ERROR_CONFIGURATION, adit_tunnel_new("[Nothing]", 9, NULL, event_callback, NULL, &out));
    EXPECT(ADIT_ERROR_CONFIGURATION, adit_tunnel_new("[Interface]\nPrivateKey = AAAA\n", 30, NULL, event_callback,
                                                     NULL, &out));
#define WITH(field, wrong, code) \
    do { \
        memset(&options, 0, sizeof options); \
        options.size = sizeof options; \
        options.field = (wrong); \
        EXPECT(code, adit_tunnel_new(VALID, strlen(VALID), &options, event_callback, NULL, &out)); \
    } while (0)
    WITH(size, 0, ADIT_ERROR_INVALID_SIZE);
    WITH(size, 1, ADIT_ERROR_INVALID_SIZE);
    WITH(size, sizeof(AditOptions) - 1, ADIT_ERROR_INVALID_SIZE);
    WITH(size, SIZE_MAX, ADIT_ERROR_INVALID_SIZE);
    WITH(size, 1 << 20, ADIT_ERROR_INVALID_SIZE);
    WITH(format, 3, ADIT_ERROR_INVALID_ARGUMENT);
    WITH(format, UINT32_MAX, ADIT_ERROR_INVALID_ARGUMENT);
    WITH(format, ADIT_FORMAT_JSON, ADIT_ERROR_CONFIGURATION);
    WITH(flags, 4, ADIT_ERROR_INVALID_ARGUMENT);
    WITH(flags, UINT32_MAX, ADIT_ERROR_INVALID_ARGUMENT);
    WITH(default_mtu, 1, ADIT_ERROR_INVALID_ARGUMENT);
    WITH(default_mtu, 65536, ADIT_ERROR_INVALID_ARGUMENT);
    WITH(reserved, 1, ADIT_ERROR_INVALID_ARGUMENT);
    WITH(name, long_text, ADIT_ERROR_TOO_LARGE);
    WITH(name, bad_name, ADIT_ERROR_INVALID_UTF8);
    WITH(name, "a/b", ADIT_ERROR_INVALID_ARGUMENT);
    WITH(name, "..", ADIT_ERROR_INVALID_ARGUMENT);
    WITH(name, "line\nline", ADIT_ERROR_INVALID_ARGUMENT);
    WITH(state_directory, long_text, ADIT_ERROR_TOO_LARGE);
    WITH(state_directory, bad_name, ADIT_ERROR_INVALID_UTF8);
#undef WITH
    untouched(&out, sizeof out);
    /* A struct of a newer header: fine if what this library does not know is 0. */
    memset(&place, 0, sizeof place);
    place.options.size = sizeof place;
    OK(adit_tunnel_new(VALID, strlen(VALID), &place.options, event_callback, NULL, &out));
    OK(adit_tunnel_free(out));
    place.bytes[sizeof(AditOptions)] = 1;
    EXPECT(ADIT_ERROR_INVALID_SIZE,
           adit_tunnel_new(VALID, strlen(VALID), &place.options, event_callback, NULL, &out));
    /* Not aligned. */
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_new(VALID, strlen(VALID), (AditOptions *)(void *)(place.bytes + 1),
                                                        event_callback, NULL, &out));
    free(long_text);
}

static void packets(AditTunnel tunnel)
{
    static uint8_t bytes[65536];
    AditSlice slices[3], *many = allocate((ADIT_MAX_PACKETS + 1) * sizeof *many);
    int32_t families[3] = {AF_INET, AF_INET, AF_INET};
    size_t accepted, at;
    AditStats stats = {0};
    memset(&accepted, UNTOUCHED, sizeof accepted);
    memset(bytes, 0x45, sizeof bytes);
    for (at = 0; at < 3; at++) {
        slices[at].data = bytes;
        slices[at].length = 60;
    }
    for (at = 0; at <= ADIT_MAX_PACKETS; at++) {
        many[at] = slices[0];
    }
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_inject(tunnel, NULL, 1, NULL, 0, &accepted));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_inject(tunnel, slices, 1, NULL, 0, NULL));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_inject(tunnel, slices, 0, NULL, 0, &accepted));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_inject(tunnel, NULL, 0, NULL, 0, &accepted));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_inject(tunnel, slices, 3, families, 2, &accepted));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_inject(tunnel, slices, 2, families, 3, &accepted));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_inject(tunnel, slices, 2, families, 0, &accepted));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_inject(tunnel, slices, 2, NULL, 1, &accepted));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_inject(tunnel, slices, 2, NULL, 2, &accepted));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_tunnel_inject(tunnel, many, ADIT_MAX_PACKETS + 1, NULL, 0, &accepted));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_tunnel_inject(tunnel, many, SIZE_MAX, NULL, 0, &accepted));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_tunnel_inject(tunnel, many, SIZE_MAX, families, SIZE_MAX, &accepted));
    slices[2].length = 0;
    EXPECT(ADIT_ERROR_PACKET, adit_tunnel_inject(tunnel, slices, 3, NULL, 0, &accepted));
    slices[2].length = 65536;
    EXPECT(ADIT_ERROR_PACKET, adit_tunnel_inject(tunnel, slices, 3, NULL, 0, &accepted));
    slices[2].length = SIZE_MAX;
    EXPECT(ADIT_ERROR_PACKET, adit_tunnel_inject(tunnel, slices, 3, NULL, 0, &accepted));
    slices[2].length = 60;
    slices[2].data = NULL;
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_inject(tunnel, slices, 3, NULL, 0, &accepted));
    slices[2].data = (const uint8_t *)"\x15 is neither IPv4 nor IPv6, and it is sixty bytes long, or so.";
    EXPECT(ADIT_ERROR_PACKET, adit_tunnel_inject(tunnel, slices, 3, NULL, 0, &accepted));
    slices[2].data = bytes;
    families[1] = AF_INET6;
    EXPECT(ADIT_ERROR_PACKET, adit_tunnel_inject(tunnel, slices, 3, families, 3, &accepted));
    families[1] = 0;
    EXPECT(ADIT_ERROR_PACKET, adit_tunnel_inject(tunnel, slices, 3, families, 3, &accepted));
    families[1] = -1;
    EXPECT(ADIT_ERROR_PACKET, adit_tunnel_inject(tunnel, slices, 3, families, 3, &accepted));
    families[1] = AF_INET;
    /* Nothing is wrong with these, but the tunnel does not run. */
    EXPECT(ADIT_ERROR_INVALID_STATE, adit_tunnel_inject(tunnel, slices, 3, families, 3, &accepted));
    untouched(&accepted, sizeof accepted);
    stats.size = sizeof stats;
    OK(adit_tunnel_stats(tunnel, &stats));
    CHECK(stats.inject_refused == 7, "%u refusals were counted", (unsigned)stats.inject_refused);
    free(many);
}

static void the_rest(AditTunnel tunnel)
{
    AditText text;
    AditStats stats;
    char *long_text = allocate(5000);
    memset(long_text, 'x', 4999);
    memset(&text, UNTOUCHED, sizeof text);
    memset(&stats, UNTOUCHED, sizeof stats);
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_start_callbacks(tunnel, NULL, NULL));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_settings(tunnel, NULL));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_snapshot(tunnel, 0, NULL));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_snapshot(tunnel, 2, &text));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_snapshot(tunnel, UINT32_MAX, &text));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_stats(tunnel, NULL));
    EXPECT(ADIT_ERROR_INVALID_SIZE, adit_tunnel_stats(tunnel, &stats));
    untouched(&stats, sizeof stats);
    stats.size = 0;
    EXPECT(ADIT_ERROR_INVALID_SIZE, adit_tunnel_stats(tunnel, &stats));
    stats.size = 9;
    EXPECT(ADIT_ERROR_INVALID_SIZE, adit_tunnel_stats(tunnel, &stats));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_settings_failed(tunnel, 1, NULL, 1));
    EXPECT(ADIT_ERROR_INVALID_UTF8, adit_tunnel_settings_failed(tunnel, 1, "\x80", 1));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_tunnel_settings_failed(tunnel, 1, long_text, 4999));
    EXPECT(ADIT_ERROR_STALE, adit_tunnel_settings_failed(tunnel, 1, NULL, 0));
    EXPECT(ADIT_ERROR_STALE, adit_tunnel_settings_applied(tunnel, 0));
    EXPECT(ADIT_ERROR_STALE, adit_tunnel_settings_applied(tunnel, UINT64_MAX));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_tunnel_update(tunnel, NULL, 0));
    EXPECT(ADIT_ERROR_INVALID_UTF8, adit_tunnel_update(tunnel, "\xf0\x28", 2));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_tunnel_update(tunnel, VALID, SIZE_MAX));
    EXPECT(ADIT_ERROR_CONFIGURATION, adit_tunnel_update(tunnel, "x", 1));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_path_changed(tunnel, 1, 1, 64));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_path_changed(tunnel, 1, 1, UINT32_MAX));
    OK(adit_tunnel_path_changed(tunnel, UINT32_MAX, UINT32_MAX, 0));
    OK(adit_tunnel_stop(tunnel, UINT32_MAX, 0));
    untouched(&text, sizeof text);
    free(long_text);
}

/* Descriptors that are none, or no tun device. Real ones are in `devices`. */
static void descriptors(AditTunnel tunnel)
{
    int pipes[2], sockets[2], null = open("/dev/null", O_RDWR | O_CLOEXEC), index;
    int fds[7];
    CHECK(pipe(pipes) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0 && null >= 0, "no descriptors");
    fds[0] = pipes[0];
    fds[1] = pipes[1];
    fds[2] = sockets[0];
    fds[3] = null;
    fds[4] = -1;
    fds[5] = INT32_MAX;
    fds[6] = INT32_MIN;
    for (index = 0; index < 7; index++) {
        int flags = fcntl(fds[index], F_GETFL);
        EXPECT(ADIT_ERROR_DEVICE, adit_tunnel_start_fd(tunnel, fds[index], ADIT_FD_BORROWED, ADIT_FRAMING_RAW));
        EXPECT(ADIT_ERROR_DEVICE, adit_tunnel_start_fd(tunnel, fds[index], ADIT_FD_OWNED, ADIT_FRAMING_UTUN));
        EXPECT(ADIT_ERROR_DEVICE, adit_tunnel_attach_fd(tunnel, fds[index], ADIT_FD_OWNED, ADIT_FRAMING_RAW));
        /* One that was refused is still the host's, and as it was. */
        CHECK(fcntl(fds[index], F_GETFL) == flags, "descriptor %d was changed or closed", fds[index]);
    }
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_start_fd(tunnel, null, 2, ADIT_FRAMING_RAW));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_start_fd(tunnel, null, UINT32_MAX, ADIT_FRAMING_RAW));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_start_fd(tunnel, null, ADIT_FD_BORROWED, 2));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_tunnel_attach_fd(tunnel, null, ADIT_FD_OWNED, UINT32_MAX));
    for (index = 0; index < 2; index++) {
        close(pipes[index]);
        close(sockets[index]);
    }
    close(null);
}

static void without_a_tunnel(void)
{
    AditText text, empty = {NULL, 0};
    AditKey key;
    AditKeyText key_text;
    uint32_t code;
    char long_text[4200];
    const char *base64 = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    memset(&text, UNTOUCHED, sizeof text);
    memset(&key, UNTOUCHED, sizeof key);
    memset(long_text, ' ', sizeof long_text);
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_configuration_check(NULL, 0, 0, &text));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_configuration_check(VALID, strlen(VALID), 0, NULL));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_configuration_check(VALID, strlen(VALID), 3, &text));
    EXPECT(ADIT_ERROR_INVALID_UTF8, adit_configuration_check("\xff", 1, 0, &text));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_configuration_check(VALID, SIZE_MAX, 0, &text));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_init(log_callback, NULL, 6));
    EXPECT(ADIT_ERROR_INVALID_ARGUMENT, adit_init(NULL, NULL, UINT32_MAX));
    OK(adit_init(NULL, NULL, ADIT_LOG_TRACE));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_key_generate_private(NULL));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_key_generate_preshared(NULL));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_key_public(NULL, &key));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_key_public(&key, NULL));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_key_from_base64(NULL, 44, &key));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_key_from_base64(base64, 44, NULL));
    EXPECT(ADIT_ERROR_KEY, adit_key_from_base64(base64, 43, &key));
    EXPECT(ADIT_ERROR_KEY, adit_key_from_base64(base64, 0, &key));
    EXPECT(ADIT_ERROR_KEY, adit_key_from_base64("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQF=", 44, &key));
    EXPECT(ADIT_ERROR_KEY, adit_key_from_base64(long_text, 4096, &key));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_key_from_base64(long_text, 4097, &key));
    EXPECT(ADIT_ERROR_INVALID_UTF8, adit_key_from_base64("\xff", 1, &key));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_key_from_hex(NULL, 64, &key));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_key_from_hex(base64, 44, NULL));
    EXPECT(ADIT_ERROR_KEY, adit_key_from_hex(base64, 44, &key));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_key_from_hex(long_text, SIZE_MAX, &key));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_key_to_base64(NULL, &key_text));
    EXPECT(ADIT_ERROR_NULL_POINTER, adit_key_to_base64(&key, NULL));
    untouched(&text, sizeof text);
    untouched(&key, sizeof key);
    adit_key_wipe(NULL);
    adit_text_free(NULL);
    adit_text_free(&empty);
    OK(adit_key_from_base64(base64, 44, &key));
    OK(adit_key_to_base64(&key, &key_text));
    CHECK(strcmp(key_text.text, base64) == 0, "%s", key_text.text);
    adit_key_wipe(&key);
    CHECK(key.bytes[0] == 0 && key.bytes[31] == 0, "a key was not wiped");
    for (code = 6090; code < 6140; code++) {
        CHECK(adit_error_message(code) != NULL && adit_error_message(code)[0] != '\0', "%u has no sentence", code);
    }
    CHECK(adit_version() != NULL && adit_version()[0] != '\0', "no version");
    OK(adit_configuration_check("[Interface]\nAdress = 1\n", 23, 0, &text));
    CHECK(strstr(text.data, "\"valid\":false") != NULL && strstr(text.data, "\"line\":2") != NULL, "%s", text.data);
    adit_text_free(&text);
    OK(adit_configuration_check("", 0, ADIT_FORMAT_JSON, &text));
    CHECK(strstr(text.data, "\"valid\":false") != NULL, "%s", text.data);
    adit_text_free(&text);
}

void scenario_arguments(const Options *options)
{
    AditTunnel tunnel;
    (void)options;
    without_a_tunnel();
    handles();
    new_tunnels();
    OK(adit_tunnel_new(VALID, strlen(VALID), NULL, event_callback, NULL, &tunnel));
    packets(tunnel);
    the_rest(tunnel);
    descriptors(tunnel);
    OK(adit_tunnel_free(tunnel));
}
