/* Every function in every state of a tunnel, and every way in which a start can end. */
#include "host.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* What the calls that depend on the state return. */
typedef struct Expected {
    AditResult start, inject, applied, update;
} Expected;

/* Calls everything that does not end the tunnel. `applied` is about the newest settings that were asked for, if any. */
static void everything(Side *side, const char *configuration, Expected expected)
{
    uint8_t bytes[100];
    AditSlice packet = {bytes, sizeof bytes};
    AditText text = {NULL, 0};
    AditStats stats = {0};
    size_t accepted = 0;
    packet_write(bytes, sizeof bytes, AF_INET, side->index, 0);
    stats.size = sizeof stats;
    OK(adit_tunnel_stats(side->tunnel, &stats));
    OK(adit_tunnel_settings(side->tunnel, &text));
    adit_text_free(&text);
    OK(adit_tunnel_snapshot(side->tunnel, ADIT_REDACT_ADDRESSES, &text));
    adit_text_free(&text);
    OK(adit_tunnel_sleep(side->tunnel));
    OK(adit_tunnel_wake(side->tunnel));
    OK(adit_tunnel_path_changed(side->tunnel, 1, 3, ADIT_PATH_SATISFIED | ADIT_PATH_IPV4));
    EXPECT(ADIT_ERROR_STALE, adit_tunnel_settings_applied(side->tunnel, side->generation + 1));
    EXPECT(ADIT_ERROR_STALE, adit_tunnel_settings_failed(side->tunnel, side->generation + 1, "no", 2));
    EXPECT(expected.inject, adit_tunnel_inject(side->tunnel, &packet, 1, NULL, 0, &accepted));
    EXPECT(expected.update, adit_tunnel_update(side->tunnel, configuration, strlen(configuration)));
    EXPECT(expected.applied, adit_tunnel_settings_applied(side->tunnel, side->generation));
    if (expected.start == ADIT_OK) {
        side_start(side);
        side_stop(side);
    } else {
        EXPECT(expected.start, adit_tunnel_start_callbacks(side->tunnel, side_packets_callback, side));
        EXPECT(ADIT_ERROR_DEVICE, adit_tunnel_start_fd(side->tunnel, -1, ADIT_FD_BORROWED, ADIT_FRAMING_RAW));
    }
}

static const Expected AT_REST = {ADIT_OK, ADIT_ERROR_INVALID_STATE, ADIT_ERROR_STALE, ADIT_OK};

static void every_state(void)
{
    const Expected handshaking = {ADIT_ERROR_ALREADY_RUNNING, ADIT_ERROR_INVALID_STATE, ADIT_ERROR_STALE,
                                  ADIT_ERROR_INVALID_STATE};
    const Expected applying = {ADIT_ERROR_ALREADY_RUNNING, ADIT_OK, ADIT_OK, ADIT_ERROR_INVALID_STATE};
    const Expected up = {ADIT_ERROR_ALREADY_RUNNING, ADIT_OK, ADIT_ERROR_STALE, ADIT_OK};
    Pair pair;
    Side *side;
    char *configuration;
    pair_new(&pair);
    side = pair.sides[0];
    configuration = pair_configuration(&pair, 0, "");
    everything(side, configuration, AT_REST);
    side->answer = NEVER;
    side_start(side);
    side_wait_state(side, ADIT_STATE_HANDSHAKING, 1);
    everything(side, configuration, handshaking);
    side_start(pair.sides[1]);
    side_wait_event(side, ADIT_EVENT_SETTINGS, 1);
    everything(side, configuration, applying);
    OK(side_wait_started(side));
    OK(side_wait_started(pair.sides[1]));
    pair.sides[1]->numbered = false;
    everything(side, configuration, up);
    side_wait_event(side, ADIT_EVENT_UPDATED, 1);
    OK(side->updated);
    side_stop(side);
    everything(side, configuration, AT_REST);
    pair_free(&pair);
    free(configuration);
}

/* Starts a tunnel whose peer is silent, unless `peer`, and expects that the start ends like this. */
static void start_ends(AditResult expected, AditOptions options, Answer answer, bool peer, const char *endpoint)
{
    Pair pair;
    Side *side;
    char *configuration;
    options.size = sizeof options;
    memset(&pair, 0, sizeof pair);
    pair_keys(&pair);
    configuration = pair_configuration(&pair, 0, "");
    if (endpoint != NULL) {
        char *other = text_of("[Interface]\nPrivateKey = %s\n[Peer]\nPublicKey = %s\nAllowedIPs = 10.9.0.0/24\n"
                              "Endpoint = %s\n", pair.private_keys[0].text, pair.public_keys[1].text, endpoint);
        free(configuration);
        configuration = other;
    }
    side = pair.sides[0] = side_new(0, configuration, &options);
    free(configuration);
    side->answer = answer;
    side_start(side);
    if (peer) {
        configuration = pair_configuration(&pair, 1, "");
        pair.sides[1] = side_new(1, configuration, NULL);
        free(configuration);
        side_start(pair.sides[1]);
    }
    EXPECT(expected, side_wait_started(side));
    if (expected != ADIT_OK) {
        CHECK(side_events(side, ADIT_EVENT_STOPPED) == 0, "what has not started cannot stop");
        if (side->generation != 0) {
            EXPECT(ADIT_ERROR_STALE, adit_tunnel_settings_applied(side->tunnel, side->generation));
        }
    }
    if (peer) {
        side_free(pair.sides[1]);
    }
    side_stop(side);
    side_free(side);
}

static void every_end_of_a_start(void)
{
    const AditOptions none = {0};
    AditOptions options = none;
    options.handshake_ms = 300;
    start_ends(ADIT_ERROR_PEER_TIMEOUT, options, APPLY, false, NULL);
    options.flags = ADIT_OPTION_HANDSHAKE_OPTIONAL;
    start_ends(ADIT_OK, options, APPLY, false, NULL);
    options = none;
    options.start_ms = 300;
    start_ends(ADIT_ERROR_START_TIMEOUT, options, APPLY, false, NULL);
    options = none;
    options.settings_ms = 300;
    start_ends(ADIT_ERROR_SETTINGS_TIMEOUT, options, NEVER, true, NULL);
    start_ends(ADIT_ERROR_SETTINGS_REJECTED, none, REFUSE, true, NULL);
    options = none;
    options.resolve_ms = 500;
    start_ends(ADIT_ERROR_RESOLVE, options, APPLY, false, "there-is-no-such-name.invalid:51820");
}

/* Two tunnels want one port: the second is told, and the first goes on. */
static void a_port_that_is_taken(void)
{
    Pair pair;
    char *configuration;
    Side *rival;
    pair_new(&pair);
    pair_start(&pair);
    configuration = pair_configuration(&pair, 0, "");
    rival = side_new(0, configuration, NULL);
    side_start(rival);
    EXPECT(ADIT_ERROR_SOCKET, side_wait_started(rival));
    side_free(rival);
    pair_exchange(&pair, 10);
    pair_free(&pair);
    free(configuration);
}

static void *answer_later(void *context)
{
    Side *side = context;
    side_wait_event(side, ADIT_EVENT_SETTINGS, 1);
    pause_ms(50);
    OK(adit_tunnel_settings_applied(side->tunnel, side->generation));
    EXPECT(ADIT_ERROR_STALE, adit_tunnel_settings_applied(side->tunnel, side->generation));
    return NULL;
}

/* The settings are answered by another thread, long after the event. */
static void a_late_answer(void)
{
    Pair pair;
    pthread_t thread;
    pair_new(&pair);
    pair.sides[0]->answer = NEVER;
    side_start(pair.sides[0]);
    CHECK(pthread_create(&thread, NULL, answer_later, pair.sides[0]) == 0, "no thread");
    side_start(pair.sides[1]);
    OK(side_wait_started(pair.sides[0]));
    OK(side_wait_started(pair.sides[1]));
    pthread_join(thread, NULL);
    pair_exchange(&pair, 10);
    pair_free(&pair);
}

/* A stop in every state of a start is its completion, and quick. */
static void stops(void)
{
    static const uint32_t MOMENTS[] = {ADIT_STATE_RESOLVING, ADIT_STATE_HANDSHAKING, ADIT_STATE_APPLYING_SETTINGS,
                                      ADIT_STATE_UP};
    Pair pair;
    unsigned index;
    pair_new(&pair);
    for (index = 0; index < 4; index++) {
        Side *side = pair.sides[0];
        double begun;
        side->answer = MOMENTS[index] == ADIT_STATE_APPLYING_SETTINGS ? NEVER : APPLY;
        side_start(side);
        if (MOMENTS[index] >= ADIT_STATE_APPLYING_SETTINGS) {
            side_start(pair.sides[1]);
        }
        if (MOMENTS[index] != ADIT_STATE_RESOLVING) {
            side_wait_state(side, MOMENTS[index], 1);
        }
        begun = now_seconds();
        side_stop(side);
        CHECK(now_seconds() - begun < 5, "a stop took %.1f s", now_seconds() - begun);
        CHECK(side_events(side, ADIT_EVENT_STARTED) == 1, "%u completions", side_events(side, ADIT_EVENT_STARTED));
        if (MOMENTS[index] != ADIT_STATE_UP) {
            EXPECT(ADIT_ERROR_STOPPED, side->started);
        }
        side_stop(pair.sides[1]);
    }
    pair_free(&pair);
}

void scenario_order(const Options *options)
{
    (void)options;
    every_state();
    every_end_of_a_start();
    a_port_that_is_taken();
    a_late_answer();
    stops();
}
