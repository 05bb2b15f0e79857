/* Callbacks that do what a careless host does: block, call back in, stop their tunnel, free it. */
#include "host.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* A door that callbacks wait at. */
typedef struct Gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open, reached;
} Gate;

static Gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false};

static void gate_shut(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.open = gate.reached = false;
    pthread_mutex_unlock(&gate.lock);
}

static void gate_pass(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.reached = true;
    pthread_cond_broadcast(&gate.changed);
    while (!gate.open) {
        pthread_cond_wait(&gate.changed, &gate.lock);
    }
    pthread_mutex_unlock(&gate.lock);
}

static void gate_await(void)
{
    pthread_mutex_lock(&gate.lock);
    while (!gate.reached) {
        pthread_cond_wait(&gate.changed, &gate.lock);
    }
    pthread_mutex_unlock(&gate.lock);
}

static void gate_reach(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.reached = true;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

static void gate_open(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.open = true;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

static void block(Side *side, const AditSlice *packets, const int32_t *families, size_t count)
{
    (void)packets, (void)families, (void)count;
    gate_pass();
    side_leave(side);
}

/* A callback that blocks holds up the other callbacks of its tunnel, and nothing else. */
static void blocking(void)
{
    Pair pair;
    AditStats stats = {0};
    uint64_t calls;
    double begun;
    pair_new(&pair);
    pair_start(&pair);
    gate_shut();
    pair.sides[0]->on_packets = block;
    side_send(pair.sides[1], AF_INET, 0, 1, 100);
    gate_await();
    /* The tunnel goes on: packets leave, and it answers. */
    side_send(pair.sides[0], AF_INET, 0, 50, 100);
    side_wait_packets(pair.sides[1], 50);
    stats.size = sizeof stats;
    OK(adit_tunnel_stats(pair.sides[0]->tunnel, &stats));
    begun = now_seconds();
    EXPECT(ADIT_ERROR_TIMEOUT, adit_tunnel_stop(pair.sides[0]->tunnel, 1, 100));
    CHECK(now_seconds() - begun < 5, "a deadline of 100 ms took %.1f s", now_seconds() - begun);
    EXPECT(ADIT_ERROR_TIMEOUT, adit_tunnel_stop(pair.sides[0]->tunnel, 1, 0));
    calls = side_calls(pair.sides[0]);
    gate_open();
    OK(adit_tunnel_stop(pair.sides[0]->tunnel, 1, 20000));
    CHECK(side_calls(pair.sides[0]) == calls, "a new call after a stop that returned");
    pair.sides[0]->quiet = true;
    pair.sides[0]->on_packets = NULL;
    side_stop(pair.sides[1]);
    pair_start(&pair);
    pair_exchange(&pair, 10);
    pair_free(&pair);
}

/* A host that does not keep up loses packets, in the kernel's queue at last, and no memory. */
static void slow(const Options *options)
{
    Pair pair;
    AditStats stats = {0};
    size_t before, after;
    pair_new(&pair);
    pair_start(&pair);
    gate_shut();
    pair.sides[0]->complete = false;
    pair.sides[0]->on_packets = block;
    side_send(pair.sides[1], AF_INET, 0, 1, 100);
    gate_await();
    before = resident_bytes();
    side_send(pair.sides[1], AF_INET, 1, options->measured ? 20000 : 4000, LARGEST_PACKET);
    after = resident_bytes();
    CHECK(!options->measured || after < before + (12 << 20), "memory has grown from %zu to %zu bytes", before, after);
    stats.size = sizeof stats;
    OK(adit_tunnel_stats(pair.sides[0]->tunnel, &stats));
    CHECK(stats.packet_memory_bytes <= stats.packet_memory_budget, "too much memory");
    CHECK(stats.queued_bytes > 0, "nothing waits for the host");
    pair.sides[0]->on_packets = NULL;
    gate_open();
    /* It goes on with what is left. */
    side_wait_packets(pair.sides[0], 100);
    pair_free(&pair);
}

/* Calls everything that a callback may call, on its own tunnel and on another. */
static void reenter(Side *side)
{
    AditText text = {NULL, 0};
    AditStats stats = {0};
    AditTunnel another = 0;
    uint8_t bytes[100];
    AditSlice packet = {bytes, sizeof bytes};
    size_t accepted;
    const char *configuration = side->more;
    AditResult result;
    packet_write(bytes, sizeof bytes, AF_INET, side->index, 0);
    stats.size = sizeof stats;
    OK(adit_tunnel_stats(side->tunnel, &stats));
    OK(adit_tunnel_settings(side->tunnel, &text));
    adit_text_free(&text);
    OK(adit_tunnel_snapshot(side->tunnel, 0, &text));
    adit_text_free(&text);
    OK(adit_tunnel_path_changed(side->tunnel, 1, 3, ADIT_PATH_SATISFIED));
    result = adit_tunnel_inject(side->tunnel, &packet, 1, NULL, 0, &accepted);
    CHECK(result == ADIT_OK || result == ADIT_ERROR_INVALID_STATE, "inject: %s", adit_error_message(result));
    result = adit_tunnel_update(side->tunnel, configuration, strlen(configuration));
    CHECK(result == ADIT_OK || result == ADIT_ERROR_INVALID_STATE || result == ADIT_ERROR_BUSY, "update: %s",
          adit_error_message(result));
    OK(adit_tunnel_new(configuration, strlen(configuration), NULL, side_event_callback, NULL, &another));
    OK(adit_tunnel_stop(another, 1, 20000));
    OK(adit_tunnel_free(another));
    OK(adit_init(NULL, NULL, ADIT_LOG_OFF));
}

static void reenter_event(Side *side, const AditEvent *event)
{
    /* An update tells an event itself: one is enough. */
    if (event->kind != ADIT_EVENT_UPDATED && event->kind != ADIT_EVENT_STOPPED) {
        reenter(side);
    }
    if (event->kind == ADIT_EVENT_SETTINGS) {
        OK(adit_tunnel_settings_applied(side->tunnel, event->generation));
    }
    side_leave(side);
}

static void reenter_packets(Side *side, const AditSlice *packets, const int32_t *families, size_t count)
{
    (void)packets, (void)families, (void)count;
    reenter(side);
    side_leave(side);
}

static void reentering(void)
{
    Pair pair;
    pair_new(&pair);
    pair.sides[1]->numbered = false;
    pair.sides[0]->more = pair_configuration(&pair, 0, "");
    pair.sides[0]->on_event = reenter_event;
    pair.sides[0]->on_packets = reenter_packets;
    pair_start(&pair);
    side_send(pair.sides[1], AF_INET, 0, 100, 100);
    side_wait_packets(pair.sides[0], 100);
    pair_stop(&pair);
    free(pair.sides[0]->more);
    pair_free(&pair);
}

/* Which callback ends its tunnel: an event of this kind, or packets (0). */
static uint32_t ends_at;
static bool ends_by_free;

static void end_here(Side *side)
{
    AditTunnel tunnel = side->tunnel;
    pthread_mutex_lock(&side->lock);
    side->ending_inside = true;
    side->on_event = NULL;
    pthread_mutex_unlock(&side->lock);
    if (ends_by_free) {
        OK(adit_tunnel_free(tunnel));
        /* The callback is the last: its context can be freed here already. */
        side_stopped(side);
        CHECK(side->events[ADIT_EVENT_STARTED] == 1, "no completion");
        side_forget(side);
        EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_stop(tunnel, 1, 0));
        gate_reach();
        return;
    }
    OK(adit_tunnel_stop(tunnel, 1, 20000));
    side_stopped(side);
    CHECK(side->events[ADIT_EVENT_STARTED] == 1, "no completion");
    OK(adit_tunnel_stop(tunnel, 1, 0));
    gate_reach();
    side_leave(side);
}

static void end_at_event(Side *side, const AditEvent *event)
{
    if (event->kind == ends_at) {
        end_here(side);
        return;
    }
    if (event->kind == ADIT_EVENT_SETTINGS) {
        OK(adit_tunnel_settings_applied(side->tunnel, event->generation));
    }
    side_leave(side);
}

static void end_at_packets(Side *side, const AditSlice *packets, const int32_t *families, size_t count)
{
    (void)packets, (void)families, (void)count;
    end_here(side);
}

static void *stop_from_outside(void *context)
{
    OK(adit_tunnel_stop(*(AditTunnel *)context, 3, 20000));
    return NULL;
}

static void ending(uint32_t kind, bool by_free)
{
    Pair pair;
    unsigned threads = running_threads();
    pair_new(&pair);
    ends_at = kind;
    ends_by_free = by_free;
    gate_shut();
    pair.sides[0]->on_event = end_at_event;
    pair.sides[0]->on_packets = kind == 0 ? end_at_packets : NULL;
    side_start(pair.sides[0]);
    side_start(pair.sides[1]);
    if (kind == 0 || kind == ADIT_EVENT_STOPPED) {
        OK(side_wait_started(pair.sides[0]));
        OK(side_wait_started(pair.sides[1]));
    }
    if (kind == 0) {
        side_send(pair.sides[1], AF_INET, 0, 5, 100);
    }
    if (kind == ADIT_EVENT_STOPPED) {
        AditTunnel tunnel = pair.sides[0]->tunnel;
        pthread_t thread;
        /* A stop of another thread waits for the callback that stops or frees. */
        CHECK(pthread_create(&thread, NULL, stop_from_outside, &tunnel) == 0, "no thread");
        pthread_join(thread, NULL);
    }
    gate_await();
    if (!by_free) {
        /* The callback that has stopped the tunnel may still be on its way out. */
        OK(adit_tunnel_stop(pair.sides[0]->tunnel, 1, 20000));
        pair.sides[0]->on_packets = NULL;
        side_stop(pair.sides[1]);
        pair_start(&pair);
        pair_exchange(&pair, 10);
        side_free(pair.sides[0]);
    }
    side_free(pair.sides[1]);
    wait_for_threads(threads);
}

/* Nothing is told after a stop, although packets keep coming. */
static void silence(const Options *options)
{
    Pair pair;
    unsigned long round;
    pair_new(&pair);
    pair.sides[0]->numbered = false;
    pair_start(&pair);
    for (round = 0; round < options->rounds; round++) {
        uint64_t calls;
        side_send(pair.sides[1], AF_INET, 0, 200, 1000);
        side_stop(pair.sides[0]);
        calls = side_calls(pair.sides[0]);
        side_send(pair.sides[1], AF_INET, 0, 200, 1000);
        CHECK(side_calls(pair.sides[0]) == calls, "a call after the stop");
        side_start(pair.sides[0]);
        OK(side_wait_started(pair.sides[0]));
    }
    pair_free(&pair);
}

void scenario_callbacks(const Options *options)
{
    static const uint32_t KINDS[] = {0, ADIT_EVENT_STATE, ADIT_EVENT_HANDSHAKE, ADIT_EVENT_SETTINGS,
                                     ADIT_EVENT_STARTED, ADIT_EVENT_STOPPED};
    unsigned index;
    blocking();
    slow(options);
    reentering();
    for (index = 0; index < sizeof KINDS / sizeof KINDS[0]; index++) {
        ending(KINDS[index], false);
        ending(KINDS[index], true);
    }
    silence(options);
}
