/* Two tunnels in one process that are each other's peers over loopback, and all that a host does with one. */
#include "host.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void pair_keys(Pair *pair)
{
    int index;
    for (index = 0; index < 2; index++) {
        AditKey key, public_key;
        OK(adit_key_generate_private(&key));
        OK(adit_key_public(&key, &public_key));
        OK(adit_key_to_base64(&key, &pair->private_keys[index]));
        OK(adit_key_to_base64(&public_key, &pair->public_keys[index]));
        adit_key_wipe(&key);
        pair->ports[index] = free_port();
    }
    if (pair->ports[0] == pair->ports[1]) {
        pair_keys(pair);
    }
}

char *pair_configuration(const Pair *pair, int index, const char *more_of_interface)
{
    int other = 1 - index;
    return text_of("[Interface]\nPrivateKey = %s\nListenPort = %u\nAddress = 10.9.0.%d/24, fd09::%d/64\n%s\n"
                   "[Peer]\nPublicKey = %s\nAllowedIPs = 10.9.0.0/24, fd09::/64\nEndpoint = 127.0.0.1:%u\n",
                   pair->private_keys[index].text, pair->ports[index], index + 1, index + 1, more_of_interface,
                   pair->public_keys[other].text, pair->ports[other]);
}

void pair_new(Pair *pair)
{
    int index;
    pair_keys(pair);
    for (index = 0; index < 2; index++) {
        char *configuration = pair_configuration(pair, index, "");
        AditOptions options = {sizeof options, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL};
        options.name = index == 0 ? "first" : "second";
        pair->sides[index] = side_new(index, configuration, &options);
        free(configuration);
    }
}

void pair_start(Pair *pair)
{
    int index;
    for (index = 0; index < 2; index++) {
        side_start(pair->sides[index]);
    }
    for (index = 0; index < 2; index++) {
        OK(side_wait_started(pair->sides[index]));
    }
}

void pair_stop(Pair *pair)
{
    side_stop(pair->sides[0]);
    side_stop(pair->sides[1]);
}

void pair_free(Pair *pair)
{
    side_free(pair->sides[0]);
    side_free(pair->sides[1]);
}

void pair_exchange(Pair *pair, size_t count)
{
    int from;
    for (from = 0; from < 2; from++) {
        Side *to = pair->sides[1 - from];
        uint64_t number = to->next_number, before = to->packets;
        side_send(pair->sides[from], AF_INET, number, count, 100);
        side_send(pair->sides[from], AF_INET6, number + count, count, LARGEST_PACKET);
        side_wait_packets(to, before + 2 * count);
    }
}

static AditStats stats_of(Side *side)
{
    AditStats stats;
    memset(&stats, 0, sizeof stats);
    stats.size = sizeof stats;
    OK(adit_tunnel_stats(side->tunnel, &stats));
    CHECK(stats.size == sizeof stats, "the size has changed to %zu", stats.size);
    return stats;
}

/* The order of a start, as the header tells it. */
static void first_start(Pair *pair)
{
    int index;
    pair_start(pair);
    for (index = 0; index < 2; index++) {
        Side *side = pair->sides[index];
        CHECK(side_events(side, ADIT_EVENT_SETTINGS) == 1 && side->generation != 0, "settings were not asked for once");
        CHECK(side_events(side, ADIT_EVENT_STOPPED) == 0, "it has stopped");
        side_wait_state(side, ADIT_STATE_UP, 1);
        EXPECT(ADIT_ERROR_ALREADY_RUNNING, adit_tunnel_start_callbacks(side->tunnel, side_packets_callback, side));
    }
}

static void every_size(Pair *pair)
{
    size_t length;
    int from, family;
    for (from = 0; from < 2; from++) {
        for (family = 0; family < 2; family++) {
            for (length = SMALLEST_PACKET; length <= LARGEST_PACKET; length += length < 100 || length > 1400 ? 1 : 61) {
                Side *to = pair->sides[1 - from];
                uint64_t number = to->next_number;
                side_send(pair->sides[from], family == 0 ? AF_INET : AF_INET6, number, 1, length);
                side_wait_packets(to, number + 1);
            }
        }
    }
}

static void readings(Pair *pair)
{
    Side *side = pair->sides[0];
    AditStats stats = stats_of(side);
    AditText full = {NULL, 0}, bare = {NULL, 0}, settings = {NULL, 0};
    char address[] = "127.0.0.1";
    struct { AditStats known; uint64_t unknown[4]; } newer;
    union { AditStats all; uint8_t bytes[sizeof(AditStats)]; } older;
    size_t at, cut = offsetof(AditStats, tx_bytes);

    CHECK(stats.state == ADIT_STATE_UP, "state %" PRIu32, stats.state);
    CHECK(stats.packets_in == side->packets, "%" PRIu64 " came in, the host has %" PRIu64, stats.packets_in,
          side->packets);
    CHECK(stats.packets_out == pair->sides[1]->packets, "%" PRIu64 " went out, %" PRIu64 " came", stats.packets_out,
          pair->sides[1]->packets);
    CHECK(stats.drops == 0 && stats.output_dropped == 0, "%" PRIu64 " drops", stats.drops);
    CHECK(stats.packet_memory_bytes > 0 && stats.packet_memory_bytes <= stats.packet_memory_budget,
          "%" PRIu64 " bytes for packets, of %" PRIu64, stats.packet_memory_bytes, stats.packet_memory_budget);
    CHECK(stats.last_handshake_age_ms < 60000, "a handshake %" PRIu64 " ms ago", stats.last_handshake_age_ms);

    /* A header that knows fewer fields, and one that knows more. */
    memset(&older, 0xa5, sizeof older);
    older.all.size = cut;
    OK(adit_tunnel_stats(side->tunnel, &older.all));
    CHECK(older.all.size == cut && older.all.state == ADIT_STATE_UP, "the fields that it knows");
    for (at = cut; at < sizeof older; at++) {
        CHECK(older.bytes[at] == 0xa5, "byte %zu behind the struct was written", at);
    }
    memset(&newer, 0xa5, sizeof newer);
    newer.known.size = sizeof newer;
    OK(adit_tunnel_stats(side->tunnel, &newer.known));
    CHECK(newer.known.size == sizeof newer && newer.known.packets_in == stats.packets_in, "the fields that both know");
    for (at = 0; at < 4; at++) {
        CHECK(newer.unknown[at] == 0, "a field that the library does not know is not 0");
    }

    OK(adit_tunnel_snapshot(side->tunnel, ADIT_REDACT_SECRETS, &full));
    OK(adit_tunnel_snapshot(side->tunnel, ADIT_REDACT_ADDRESSES, &bare));
    OK(adit_tunnel_settings(side->tunnel, &settings));
    CHECK(strlen(full.data) == full.length && strlen(bare.data) == bare.length, "a length is wrong");
    CHECK(strstr(full.data, address) != NULL, "%s", full.data);
    CHECK(strstr(bare.data, address) == NULL && strstr(bare.data, "10.9.0") == NULL, "%s", bare.data);
    CHECK(strstr(bare.data, pair->public_keys[1].text) == NULL, "%s", bare.data);
    CHECK(strstr(full.data, pair->private_keys[0].text) == NULL, "a private key");
    CHECK(strstr(bare.data, pair->private_keys[0].text) == NULL, "a private key");
    CHECK(strstr(settings.data, "\"10.9.0.1/24\"") != NULL && strstr(settings.data, "\"fd09::1/64\"") != NULL, "%s",
          settings.data);
    CHECK(strstr(settings.data, pair->private_keys[0].text) == NULL, "a private key");
    adit_text_free(&full);
    CHECK(full.data == NULL && full.length == 0, "a freed text is cleared");
    adit_text_free(&full);
    adit_text_free(&bare);
    adit_text_free(&settings);
}

static void updates(Pair *pair)
{
    Side *side = pair->sides[0];
    char *other = pair_configuration(pair, 0, "DNS = 10.9.0.53");
    char *former = pair_configuration(pair, 0, "");
    AditText settings = {NULL, 0};
    AditStats before = stats_of(side), after;
    uint64_t generation = side->generation;

    OK(adit_tunnel_update(side->tunnel, other, strlen(other)));
    side_wait_event(side, ADIT_EVENT_UPDATED, 1);
    OK(side->updated);
    CHECK(side->generation > generation, "other settings have another number");
    OK(adit_tunnel_settings(side->tunnel, &settings));
    CHECK(strstr(settings.data, "10.9.0.53") != NULL, "%s", settings.data);
    adit_text_free(&settings);

    /* What the host refuses is taken back, and what cannot be read changes nothing. */
    side->answer = REFUSE;
    OK(adit_tunnel_update(side->tunnel, former, strlen(former)));
    side_wait_event(side, ADIT_EVENT_UPDATED, 2);
    EXPECT(ADIT_ERROR_SETTINGS_REJECTED, side->updated);
    side->answer = APPLY;
    EXPECT(ADIT_ERROR_CONFIGURATION, adit_tunnel_update(side->tunnel, "[Nothing]\n", 10));
    OK(adit_tunnel_settings(side->tunnel, &settings));
    CHECK(strstr(settings.data, "10.9.0.53") != NULL, "%s", settings.data);
    adit_text_free(&settings);
    pair_exchange(pair, 10);
    after = stats_of(side);
    CHECK(after.handshakes == before.handshakes, "an update has cost a handshake");
    free(former);
    free(other);
}

static void movements(Pair *pair)
{
    Side *side = pair->sides[0];
    uint32_t path = ADIT_PATH_SATISFIED | ADIT_PATH_IPV4 | ADIT_PATH_IPV6, index;
    AditStats stats;
    /* The first report says where it is, and what stands still for a moment afterwards is one change. */
    OK(adit_tunnel_path_changed(side->tunnel, 1, 3, path));
    pause_ms(600);
    for (index = 2; index < 8; index++) {
        OK(adit_tunnel_path_changed(side->tunnel, index, 5, path | ADIT_PATH_EXPENSIVE));
    }
    side_wait_state(side, ADIT_STATE_REASSERTING, 1);
    side_wait_state(side, ADIT_STATE_UP, 2);
    stats = stats_of(side);
    CHECK(stats.rebinds == 1, "%" PRIu64 " new sockets for one change", stats.rebinds);
    pair_exchange(pair, 10);

    OK(adit_tunnel_sleep(side->tunnel));
    OK(adit_tunnel_sleep(side->tunnel));
    OK(adit_tunnel_wake(side->tunnel));
    side_wait_event(side, ADIT_EVENT_RESUMED, 1);
    pair_exchange(pair, 10);
}

void scenario_pair(const Options *options)
{
    Pair pair;
    unsigned long round;
    pair_new(&pair);
    first_start(&pair);
    every_size(&pair);
    pair_exchange(&pair, 200);
    readings(&pair);
    updates(&pair);
    movements(&pair);
    /* Again, and both have to find each other anew. */
    for (round = 0; round < options->rounds; round++) {
        pair_stop(&pair);
        side_stop(pair.sides[round % 2]);
        CHECK(stats_of(pair.sides[0]).packet_memory_bytes == 0, "a stopped tunnel has no memory for packets");
        CHECK(stats_of(pair.sides[0]).state == ADIT_STATE_IDLE, "a stopped tunnel is idle");
        pair_start(&pair);
        pair_exchange(&pair, 20);
    }
    pair_free(&pair);
}
