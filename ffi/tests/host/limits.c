/* Very large input: refused, or done in a time and with memory that go with its size. */
#include "host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MEBIBYTE = 1 << 20, ROUTES = 100000 };

static void large_configurations(void)
{
    /* 10 MB, of which nothing is a configuration: all lines the same mistake, one endless line, one endless value. */
    static const char *const PIECES[] = {"Nonsense = 1\n", "x", "Address = "};
    size_t size = 10 * 1000 * 1000, at, kind;
    char *text = allocate(17 * MEBIBYTE);
    AditTunnel tunnel;
    AditText verdict = {NULL, 0};
    for (kind = 0; kind < 3; kind++) {
        size_t length = strlen(PIECES[kind]);
        for (at = 0; at + length <= size; at += length) {
            memcpy(text + at, PIECES[kind], length);
        }
        EXPECT(ADIT_ERROR_CONFIGURATION, adit_tunnel_new(text, size, NULL, side_event_callback, NULL, &tunnel));
        OK(adit_configuration_check(text, size, ADIT_FORMAT_CONF, &verdict));
        CHECK(strstr(verdict.data, "\"valid\":false") != NULL, "%.200s", verdict.data);
        CHECK(verdict.length < MEBIBYTE, "a verdict of %zu bytes", verdict.length);
        adit_text_free(&verdict);
        OK(adit_configuration_check(text, size, ADIT_FORMAT_JSON, &verdict));
        adit_text_free(&verdict);
        OK(adit_configuration_check(text, size, ADIT_FORMAT_TOML, &verdict));
        adit_text_free(&verdict);
    }
    /* Nesting without end must not end the stack. */
    memset(text, '[', size);
    OK(adit_configuration_check(text, size, ADIT_FORMAT_JSON, &verdict));
    adit_text_free(&verdict);
    OK(adit_configuration_check(text, size, ADIT_FORMAT_TOML, &verdict));
    adit_text_free(&verdict);
    /* Comments are fine, whatever their size, up to the limit. */
    memset(text, '#', 17 * MEBIBYTE);
    memcpy(text, "[Interface]\nPrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n", 70);
    OK(adit_tunnel_new(text, size, NULL, side_event_callback, NULL, &tunnel));
    OK(adit_tunnel_free(tunnel));
    EXPECT(ADIT_ERROR_TOO_LARGE, adit_tunnel_new(text, 16 * MEBIBYTE + 1, NULL, side_event_callback, NULL, &tunnel));
    free(text);
}

static void many_routes(const Options *options)
{
    Pair pair;
    char *more = allocate(ROUTES * 32 + 4096), *at, *configuration;
    AditText settings = {NULL, 0};
    double begun;
    unsigned route;
    pair_new(&pair);
    pair_start(&pair);
    configuration = pair_configuration(&pair, 0, "");
    at = more + sprintf(more, "%s", configuration);
    for (route = 0; route < ROUTES; route++) {
        at += sprintf(at, "AllowedIPs = %u.%u.%u.0/24\n", 11 + (route >> 16), (route >> 8) & 255, route & 255);
    }
    begun = now_seconds();
    OK(adit_tunnel_update(pair.sides[0]->tunnel, more, (size_t)(at - more)));
    side_wait_event(pair.sides[0], ADIT_EVENT_UPDATED, 1);
    OK(pair.sides[0]->updated);
    OK(adit_tunnel_settings(pair.sides[0]->tunnel, &settings));
    CHECK(strstr(settings.data, "\"12.134.159.0/24\"") != NULL, "the last of %d routes is not in the settings", ROUTES);
    pair_exchange(&pair, 20);
    pair_stop(&pair);
    pair_start(&pair);
    pair_exchange(&pair, 20);
    printf("  %d routes, %zu bytes of settings: update, stop and start in %.2f s\n", ROUTES, settings.length,
           now_seconds() - begun);
    CHECK(!options->measured || now_seconds() - begun < 20, "too long for %d routes", ROUTES);
    adit_text_free(&settings);
    pair_free(&pair);
    free(configuration);
    free(more);
}

static void many_tunnels(void)
{
    Pair pair;
    Side *sides[ADIT_MAX_TUNNELS];
    AditTunnel tunnel = 0;
    char *configuration;
    unsigned index;
    memset(&pair, 0, sizeof pair);
    pair_keys(&pair);
    pair.ports[0] = 0;
    configuration = pair_configuration(&pair, 0, "");
    for (index = 0; index < ADIT_MAX_TUNNELS; index++) {
        sides[index] = side_new(0, configuration, NULL);
    }
    EXPECT(ADIT_ERROR_TOO_MANY,
           adit_tunnel_new(configuration, strlen(configuration), NULL, side_event_callback, NULL, &tunnel));
    CHECK(tunnel == 0, "a result was written");
    /* All at once, and none has a peer that answers. */
    for (index = 0; index < ADIT_MAX_TUNNELS; index++) {
        side_start(sides[index]);
    }
    for (index = 0; index < ADIT_MAX_TUNNELS; index++) {
        side_wait_state(sides[index], ADIT_STATE_HANDSHAKING, 1);
        side_free(sides[index]);
    }
    sides[0] = side_new(0, configuration, NULL);
    side_free(sides[0]);
    free(configuration);
}

static void a_full_queue(void)
{
    Pair pair;
    AditStats stats = {0};
    AditSlice *packets = allocate(ADIT_MAX_PACKETS * sizeof *packets);
    uint8_t bytes[LARGEST_PACKET];
    size_t accepted, at, round, taken = 0;
    pair_new(&pair);
    pair_start(&pair);
    pair.sides[1]->numbered = false;
    packet_write(bytes, sizeof bytes, AF_INET, 0, 1);
    for (at = 0; at < ADIT_MAX_PACKETS; at++) {
        packets[at].data = bytes;
        packets[at].length = sizeof bytes;
    }
    for (round = 0; round < 1000 && side_events(pair.sides[0], ADIT_EVENT_ROOM) == 0; round++) {
        OK(adit_tunnel_inject(pair.sides[0]->tunnel, packets, ADIT_MAX_PACKETS, NULL, 0, &accepted));
        CHECK(accepted < ADIT_MAX_PACKETS, "%zu packets found room", accepted);
        taken += accepted;
        stats.size = sizeof stats;
        OK(adit_tunnel_stats(pair.sides[0]->tunnel, &stats));
        CHECK(stats.packet_memory_bytes <= stats.packet_memory_budget, "%llu bytes for packets",
              (unsigned long long)stats.packet_memory_bytes);
    }
    side_wait_event(pair.sides[0], ADIT_EVENT_ROOM, 1);
    CHECK(taken > 0 && stats.inject_no_room > 0, "no packet was taken, or none refused");
    pair_free(&pair);
    free(packets);
}

void scenario_limits(const Options *options)
{
    large_configurations();
    many_routes(options);
    many_tunnels();
    a_full_queue();
}
