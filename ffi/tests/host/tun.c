/*
 * A whole VPN host: it makes a tun device, hands it to a tunnel, applies the settings that it is asked for, and ends with
 * SIGTERM. What happens is told line by line on standard output.
 */
#include "network.h"

#include <inttypes.h>
#include <linux/if_tun.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGEST_FILE = 1 << 20 };

static const Options *chosen;
static int device;

static char *read_file(const char *path)
{
    char *text = allocate(LARGEST_FILE);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL, "cannot read %s", path);
    (void)!fread(text, 1, LARGEST_FILE - 1, file);
    fclose(file);
    return text;
}

/* Calls `use` with each text of the array `name` in the JSON. Enough for what the library writes: prefixes have no escapes. */
static void each_text(const char *json, const char *name, void (*use)(const char *text))
{
    char key[64], text[128];
    const char *at, *end;
    snprintf(key, sizeof key, "\"%s\":[", name);
    at = strstr(json, key);
    CHECK(at != NULL, "no %s in %s", name, json);
    at += strlen(key);
    while (*at == '"') {
        end = strchr(at + 1, '"');
        CHECK(end != NULL && (size_t)(end - at) < sizeof text, "%s", at);
        memcpy(text, at + 1, (size_t)(end - at) - 1);
        text[end - at - 1] = '\0';
        use(text);
        at = end[1] == ',' ? end + 2 : end + 1;
    }
}

static void add_address(const char *address)
{
    ip("addr add %s dev %s", address, chosen->device);
}

static void add_route(const char *prefix)
{
    ip("%s route replace %s dev %s", strchr(prefix, ':') != NULL ? "-6" : "-4", prefix, chosen->device);
}

static void serve(Side *side, const AditEvent *event)
{
    printf("event %s\n", event->json);
    fflush(stdout);
    if (event->kind == ADIT_EVENT_SETTINGS) {
        const char *mtu = strstr(event->json, "\"mtu\":");
        CHECK(mtu != NULL, "%s", event->json);
        if (chosen->late) {
            OK(adit_tunnel_attach_fd(side->tunnel, device, chosen->owned ? ADIT_FD_OWNED : ADIT_FD_BORROWED,
                                     ADIT_FRAMING_RAW));
        }
        /* No address that nobody has asked for, and no neighbour discovery for it. */
        ip("link set %s addrgenmode none", chosen->device);
        each_text(event->json, "addresses", add_address);
        ip("link set %s mtu %ld up", chosen->device, strtol(mtu + 6, NULL, 10));
        each_text(event->json, "included_routes", add_route);
        OK(adit_tunnel_settings_applied(side->tunnel, event->generation));
    }
    if (event->kind == ADIT_EVENT_STOPPED && event->result != ADIT_OK) {
        /* The main thread waits for a signal only. */
        kill(getpid(), SIGTERM);
    }
    side_leave(side);
}

void scenario_tun(const Options *options)
{
    sigset_t signals;
    char *configuration;
    Side *side;
    AditStats stats = {0};
    AditText snapshot = {NULL, 0};
    int number;
    CHECK(options->configuration != NULL && options->device != NULL, "`tun` needs --config and --device");
    /* Blocked in all threads that begin from here on. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    chosen = options;
    device = tun_open(options->device, IFF_TUN | IFF_NO_PI);
    configuration = read_file(options->configuration);
    side = side_new(0, configuration, NULL);
    free(configuration);
    side->numbered = false;
    side->on_event = serve;
    if (options->late) {
        side_start(side);
    } else {
        side_begin(side);
        OK(adit_tunnel_start_fd(side->tunnel, device, options->owned ? ADIT_FD_OWNED : ADIT_FD_BORROWED,
                                ADIT_FRAMING_RAW));
    }
    OK(side_wait_started(side));
    printf("ready\n");
    fflush(stdout);
    CHECK(sigwait(&signals, &number) == 0, "sigwait");
    stats.size = sizeof stats;
    OK(adit_tunnel_stats(side->tunnel, &stats));
    printf("stats out %" PRIu64 " in %" PRIu64 " drops %" PRIu64 "\n", stats.packets_out, stats.packets_in, stats.drops);
    OK(adit_tunnel_snapshot(side->tunnel, ADIT_REDACT_SECRETS, &snapshot));
    printf("snapshot %s\n", snapshot.data);
    adit_text_free(&snapshot);
    side_stop(side);
    printf("ended %s\n", adit_error_message(side->stopped));
    side_free(side);
    if (!options->owned) {
        close(device);
    }
}
