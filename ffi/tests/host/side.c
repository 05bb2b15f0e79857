/* A tunnel together with its host, and the contract that every callback is held to. */
#include "host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { PATIENCE_SECONDS = 60 };

/* What is so in every callback. Returns with the lock held. */
static void enter(Side *side, AditTunnel tunnel, const char *what)
{
    pthread_mutex_lock(&side->lock);
    CHECK(!side->quiet, "side %d: %s while nothing may be told", side->index, what);
    CHECK(tunnel == side->tunnel || side->tunnel == 0, "side %d: %s of tunnel %" PRIx64, side->index, what, tunnel);
    if (!side->known_thread) {
        char name[32] = "";
        pthread_getname_np(pthread_self(), name, sizeof name);
        CHECK(strcmp(name, "adit-callbacks") == 0, "the thread is called «%s»", name);
        side->thread = pthread_self();
        side->known_thread = true;
    }
    CHECK(pthread_equal(side->thread, pthread_self()), "side %d: %s on another thread", side->index, what);
    CHECK(side->depth == 0 || side->ending_inside, "side %d: %s inside of another call", side->index, what);
    side->depth++;
    side->calls++;
}

/* The last that a callback does with its side, which may have been freed in between: then it must not be called. */
static void leave(Side *side)
{
    pthread_mutex_lock(&side->lock);
    side->depth--;
    pthread_cond_broadcast(&side->changed);
    pthread_mutex_unlock(&side->lock);
}

void side_event_callback(void *context, AditTunnel tunnel, const AditEvent *event)
{
    Side *side = context;
    void (*hook)(Side *, const AditEvent *);
    Answer answer;
    enter(side, tunnel, event->json);
    CHECK(event->size >= sizeof *event, "an event of %zu bytes", event->size);
    CHECK(event->kind >= 1 && event->kind < EVENT_KINDS, "event %" PRIu32, event->kind);
    CHECK(event->json != NULL && strlen(event->json) == event->json_length, "the JSON's length is wrong");
    CHECK(event->json[0] == '{' && event->json[event->json_length - 1] == '}', "%s", event->json);
    side->events[event->kind]++;
    CHECK(event->state < STATES, "state %" PRIu32, event->state);
    side->state = event->state;
    side->states[event->state] += event->kind == ADIT_EVENT_STATE;
    switch (event->kind) {
    case ADIT_EVENT_STARTED: side->started = event->result; break;
    case ADIT_EVENT_UPDATED: side->updated = event->result; break;
    case ADIT_EVENT_STOPPED: side->stopped = event->result; break;
    case ADIT_EVENT_SETTINGS: side->generation = event->generation; break;
    default: CHECK(event->result == ADIT_OK, "%s has a result", event->json);
    }
    CHECK((event->generation != 0) == (event->kind == ADIT_EVENT_SETTINGS), "%s has a generation", event->json);
    free(side->last_json);
    side->last_json = text_of("%s", event->json);
    hook = side->on_event;
    answer = side->answer;
    pthread_cond_broadcast(&side->changed);
    pthread_mutex_unlock(&side->lock);
    if (hook != NULL) {
        /* It may free the side, and answers for itself. */
        hook(side, event);
        return;
    }
    if (event->kind == ADIT_EVENT_SETTINGS && answer != NEVER) {
        /* Not OK if another thread has stopped the tunnel meanwhile. */
        AditResult result = answer == APPLY ? adit_tunnel_settings_applied(tunnel, event->generation)
                                            : adit_tunnel_settings_failed(tunnel, event->generation, "no", 2);
        CHECK(result == ADIT_OK || result == ADIT_ERROR_STALE || result == ADIT_ERROR_INVALID_HANDLE ||
                  result == ADIT_ERROR_POISONED || result == ADIT_ERROR_BUSY,
              "an answer: %s", adit_error_message(result));
    }
    leave(side);
}

void side_packets_callback(void *context, AditTunnel tunnel, const AditSlice *packets, const int32_t *families,
                           size_t count)
{
    Side *side = context;
    void (*hook)(Side *, const AditSlice *, const int32_t *, size_t);
    size_t at;
    enter(side, tunnel, "packets");
    CHECK(count > 0 && packets != NULL && families != NULL, "%zu packets", count);
    for (at = 0; at < count; at++) {
        int family = packets[at].length > 0 && packets[at].data[0] >> 4 == 6 ? AF_INET6 : AF_INET;
        CHECK(families[at] == family, "the family %" PRId32 " of a packet that begins with %#x", families[at],
              packets[at].data[0]);
        if (side->numbered) {
            uint64_t number = packet_check(packets[at].data, packets[at].length, family, 1 - side->index);
            CHECK(number >= side->next_number && (!side->complete || number == side->next_number),
                  "packet %" PRIu64 " instead of %" PRIu64, number, side->next_number);
            side->next_number = number + 1;
        }
        side->packets++;
        side->bytes += packets[at].length;
    }
    hook = side->on_packets;
    pthread_cond_broadcast(&side->changed);
    pthread_mutex_unlock(&side->lock);
    if (hook != NULL) {
        hook(side, packets, families, count);
        return;
    }
    leave(side);
}

void side_leave(Side *side)
{
    leave(side);
}

Side *side_new(int index, const char *configuration, const AditOptions *options)
{
    Side *side = allocate(sizeof *side);
    pthread_condattr_t monotonic;
    side->index = index;
    side->quiet = true;
    side->numbered = side->complete = true;
    pthread_mutex_init(&side->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&side->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    OK(adit_tunnel_new(configuration, strlen(configuration), options, side_event_callback, side, &side->tunnel));
    CHECK(side->tunnel != 0, "0 is never a tunnel");
    return side;
}

void side_begin(Side *side)
{
    pthread_mutex_lock(&side->lock);
    CHECK(side->depth == 0, "side %d: %u callbacks run before a start", side->index, side->depth);
    memset(side->events, 0, sizeof side->events);
    memset(side->states, 0, sizeof side->states);
    side->started = side->updated = side->stopped = ADIT_OK;
    side->generation = side->packets = side->bytes = side->next_number = 0;
    side->quiet = side->ending_inside = false;
    pthread_mutex_unlock(&side->lock);
}

void side_start(Side *side)
{
    side_begin(side);
    OK(adit_tunnel_start_callbacks(side->tunnel, side_packets_callback, side));
}

/* Waits until `*number` is at least `least`; the lock is held. */
static void wait_number(Side *side, const char *what, bool (*reached)(Side *, uint64_t, uint64_t), uint64_t which,
                        uint64_t least)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += PATIENCE_SECONDS;
    while (!reached(side, which, least)) {
        int result = pthread_cond_timedwait(&side->changed, &side->lock, &deadline);
        CHECK(result != ETIMEDOUT,
              "side %d waited in vain for %s %" PRIu64 " %" PRIu64 "; state %" PRIu32 ", %" PRIu64 " packets, last: %s",
              side->index, what, which, least, side->state, side->packets,
              side->last_json == NULL ? "nothing" : side->last_json);
    }
}

static bool events_reached(Side *side, uint64_t kind, uint64_t count)
{
    return side->events[kind] >= count;
}

static bool packets_reached(Side *side, uint64_t which, uint64_t count)
{
    (void)which;
    return side->packets >= count;
}

static bool state_reached(Side *side, uint64_t state, uint64_t count)
{
    return side->states[state] >= count;
}

void side_wait_event(Side *side, uint32_t kind, unsigned count)
{
    pthread_mutex_lock(&side->lock);
    wait_number(side, "event", events_reached, kind, count);
    pthread_mutex_unlock(&side->lock);
}

AditResult side_wait_started(Side *side)
{
    AditResult result;
    pthread_mutex_lock(&side->lock);
    wait_number(side, "event", events_reached, ADIT_EVENT_STARTED, 1);
    CHECK(side->events[ADIT_EVENT_STARTED] == 1, "a start was told %u times", side->events[ADIT_EVENT_STARTED]);
    result = side->started;
    pthread_mutex_unlock(&side->lock);
    return result;
}

void side_wait_packets(Side *side, uint64_t count)
{
    pthread_mutex_lock(&side->lock);
    wait_number(side, "packets", packets_reached, 0, count);
    pthread_mutex_unlock(&side->lock);
}

void side_wait_state(Side *side, uint32_t state, unsigned count)
{
    pthread_mutex_lock(&side->lock);
    wait_number(side, "state", state_reached, state, count);
    pthread_mutex_unlock(&side->lock);
}

unsigned side_events(Side *side, uint32_t kind)
{
    unsigned count;
    pthread_mutex_lock(&side->lock);
    count = side->events[kind];
    pthread_mutex_unlock(&side->lock);
    return count;
}

uint32_t side_state(Side *side)
{
    uint32_t state;
    pthread_mutex_lock(&side->lock);
    state = side->state;
    pthread_mutex_unlock(&side->lock);
    return state;
}

uint64_t side_calls(Side *side)
{
    uint64_t calls;
    pthread_mutex_lock(&side->lock);
    calls = side->calls;
    pthread_mutex_unlock(&side->lock);
    return calls;
}

void side_stopped(Side *side)
{
    pthread_mutex_lock(&side->lock);
    CHECK(side->depth == 0 || side->ending_inside, "side %d: a callback runs after a stop", side->index);
    /* One end for each start that succeeded, and none for one that did not. */
    CHECK(side->events[ADIT_EVENT_STARTED] == 0 ||
              side->events[ADIT_EVENT_STOPPED] == (side->started == ADIT_OK ? 1 : 0),
          "side %d: started with %" PRIu32 ", stopped %u times", side->index, side->started,
          side->events[ADIT_EVENT_STOPPED]);
    side->quiet = true;
    pthread_mutex_unlock(&side->lock);
}

void side_stop(Side *side)
{
    OK(adit_tunnel_stop(side->tunnel, 1, 20000));
    side_stopped(side);
}

void side_forget(Side *side)
{
    pthread_cond_destroy(&side->changed);
    pthread_mutex_destroy(&side->lock);
    free(side->last_json);
    free(side);
}

void side_free(Side *side)
{
    AditTunnel tunnel = side->tunnel;
    OK(adit_tunnel_free(tunnel));
    /* Whatever is told from now on is a use after free, which sanitizers and valgrind tell. */
    side_forget(side);
    EXPECT(ADIT_ERROR_INVALID_HANDLE, adit_tunnel_free(tunnel));
}

void side_send(Side *side, int family, uint64_t first, size_t count, size_t length)
{
    enum { BATCH = 32 };
    static const size_t largest = LARGEST_PACKET;
    uint8_t *bytes = allocate(BATCH * largest);
    AditSlice packets[BATCH];
    int32_t families[BATCH];
    size_t sent = 0, at;
    double deadline = now_seconds() + PATIENCE_SECONDS;
    while (sent < count) {
        size_t batch = count - sent < BATCH ? count - sent : BATCH, accepted = SIZE_MAX;
        for (at = 0; at < batch; at++) {
            packet_write(bytes + at * largest, length, family, side->index, first + sent + at);
            packets[at].data = bytes + at * largest;
            packets[at].length = length;
            families[at] = family;
        }
        /* With and without families. */
        if (sent % 64 == 0) {
            OK(adit_tunnel_inject(side->tunnel, packets, batch, families, batch, &accepted));
        } else {
            OK(adit_tunnel_inject(side->tunnel, packets, batch, NULL, 0, &accepted));
        }
        CHECK(accepted <= batch, "%zu of %zu were taken", accepted, batch);
        sent += accepted;
        if (accepted < batch) {
            CHECK(now_seconds() < deadline, "no room for %d seconds", PATIENCE_SECONDS);
            pause_ms(1);
        }
    }
    free(bytes);
}
