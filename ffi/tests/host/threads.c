/* Random calls on shared handles from several threads: each has a result that the header allows, and every start an end. */
#include "host.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { SLOTS = 3, THREADS = 4, OPERATIONS = 16 };

/* A place for one tunnel after the other. It lives as long as the scenario, for anybody may free the tunnel. */
typedef struct Slot {
    pthread_mutex_t lock;
    AditTunnel tunnel;
    char *configuration;
    uint64_t starts, started, succeeded, stopped, packets;
    int index;
} Slot;

typedef struct Shared {
    Slot slots[SLOTS];
    Pair pair;
    double end;
    uint64_t seed;
    uint64_t calls[THREADS];
} Shared;

typedef struct Worker {
    Shared *shared;
    unsigned number;
} Worker;

static void on_event(void *context, AditTunnel tunnel, const AditEvent *event)
{
    Slot *slot = context;
    pthread_mutex_lock(&slot->lock);
    if (event->kind == ADIT_EVENT_STARTED) {
        slot->started++;
        slot->succeeded += event->result == ADIT_OK;
    }
    slot->stopped += event->kind == ADIT_EVENT_STOPPED;
    pthread_mutex_unlock(&slot->lock);
    if (event->kind == ADIT_EVENT_SETTINGS) {
        adit_tunnel_settings_applied(tunnel, event->generation);
    }
}

static void on_packets(void *context, AditTunnel tunnel, const AditSlice *packets, const int32_t *families, size_t count)
{
    Slot *slot = context;
    (void)tunnel, (void)packets, (void)families;
    pthread_mutex_lock(&slot->lock);
    slot->packets += count;
    pthread_mutex_unlock(&slot->lock);
}

static AditTunnel handle_of(Slot *slot)
{
    AditTunnel tunnel;
    pthread_mutex_lock(&slot->lock);
    tunnel = slot->tunnel;
    pthread_mutex_unlock(&slot->lock);
    return tunnel;
}

static void make(Slot *slot)
{
    AditOptions options = {0};
    AditTunnel tunnel, former;
    options.size = sizeof options;
    options.flags = slot->index == 2 ? ADIT_OPTION_HANDSHAKE_OPTIONAL : 0;
    options.handshake_ms = 200;
    OK(adit_tunnel_new(slot->configuration, strlen(slot->configuration), &options, on_event, slot, &tunnel));
    pthread_mutex_lock(&slot->lock);
    former = slot->tunnel;
    slot->tunnel = tunnel;
    pthread_mutex_unlock(&slot->lock);
    if (former != 0) {
        AditResult result = adit_tunnel_free(former);
        CHECK(result == ADIT_OK || result == ADIT_ERROR_INVALID_HANDLE, "free: %s", adit_error_message(result));
    }
}

/* What a call on a tunnel that others use too may return; everything else is a bug. */
static void allowed(const char *what, AditResult result)
{
    switch (result) {
    case ADIT_OK:
    case ADIT_ERROR_INVALID_HANDLE:
    case ADIT_ERROR_INVALID_STATE:
    case ADIT_ERROR_ALREADY_RUNNING:
    case ADIT_ERROR_BUSY:
    case ADIT_ERROR_STALE:
        return;
    default:
        CHECK(false, "%s: %s", what, adit_error_message(result));
    }
}

static void operate(Shared *shared, Slot *slot, uint64_t *random)
{
    AditTunnel tunnel = handle_of(slot);
    AditText text = {NULL, 0};
    AditStats stats = {0};
    uint8_t bytes[200];
    AditSlice packets[2] = {{bytes, 100}, {bytes, 100}};
    size_t accepted;
    AditResult result;
    (void)shared;
    switch (random_number(random) % OPERATIONS) {
    case 0:
        if (random_number(random) % 8 == 0) {
            make(slot);
        }
        break;
    case 1:
    case 2:
    case 3:
        /* Counted first: the event may come before the call returns. */
        pthread_mutex_lock(&slot->lock);
        slot->starts++;
        pthread_mutex_unlock(&slot->lock);
        result = adit_tunnel_start_callbacks(tunnel, on_packets, slot);
        if (result != ADIT_OK) {
            pthread_mutex_lock(&slot->lock);
            slot->starts--;
            pthread_mutex_unlock(&slot->lock);
        }
        allowed("start", result);
        break;
    case 4:
        allowed("stop", adit_tunnel_stop(tunnel, (uint32_t)random_number(random) % 20, 20000));
        break;
    case 5:
    case 6:
    case 7:
        packet_write(bytes, 100, AF_INET, slot->index % 2, 7);
        allowed("inject", adit_tunnel_inject(tunnel, packets, 2, NULL, 0, &accepted));
        break;
    case 8:
        allowed("update", adit_tunnel_update(tunnel, slot->configuration, strlen(slot->configuration)));
        break;
    case 9:
        allowed("path", adit_tunnel_path_changed(tunnel, (uint32_t)random_number(random) % 4, 3, 25));
        break;
    case 10:
        allowed("sleep", adit_tunnel_sleep(tunnel));
        break;
    case 11:
        allowed("wake", adit_tunnel_wake(tunnel));
        break;
    case 12:
        stats.size = sizeof stats;
        allowed("stats", adit_tunnel_stats(tunnel, &stats));
        break;
    case 13:
        allowed("snapshot", adit_tunnel_snapshot(tunnel, (uint32_t)random_number(random) % 2, &text));
        adit_text_free(&text);
        break;
    case 14:
        allowed("settings", adit_tunnel_settings(tunnel, &text));
        adit_text_free(&text);
        break;
    default:
        allowed("applied", adit_tunnel_settings_applied(tunnel, random_number(random) % 4));
        break;
    }
}

static void *work(void *context)
{
    Worker *worker = context;
    Shared *shared = worker->shared;
    uint64_t random = shared->seed * THREADS + worker->number;
    while (now_seconds() < shared->end) {
        operate(shared, &shared->slots[random_number(&random) % SLOTS], &random);
        shared->calls[worker->number]++;
    }
    return NULL;
}

void scenario_threads(const Options *options)
{
    Shared shared;
    Worker workers[THREADS];
    pthread_t threads[THREADS];
    uint64_t calls = 0, succeeded = 0, packets = 0;
    unsigned index;
    memset(&shared, 0, sizeof shared);
    pair_keys(&shared.pair);
    shared.seed = options->seed;
    for (index = 0; index < SLOTS; index++) {
        Slot *slot = &shared.slots[index];
        pthread_mutex_init(&slot->lock, NULL);
        slot->index = (int)index;
        /* The third is the first's rival for its port. */
        slot->configuration = pair_configuration(&shared.pair, (int)index % 2, "");
        make(slot);
    }
    shared.end = now_seconds() + options->seconds;
    for (index = 0; index < THREADS; index++) {
        workers[index].shared = &shared;
        workers[index].number = index;
        CHECK(pthread_create(&threads[index], NULL, work, &workers[index]) == 0, "no thread");
    }
    for (index = 0; index < THREADS; index++) {
        pthread_join(threads[index], NULL);
        calls += shared.calls[index];
    }
    for (index = 0; index < SLOTS; index++) {
        Slot *slot = &shared.slots[index];
        OK(adit_tunnel_free(slot->tunnel));
        CHECK(slot->started == slot->starts, "%" PRIu64 " starts, %" PRIu64 " completions", slot->starts, slot->started);
        CHECK(slot->stopped == slot->succeeded, "%" PRIu64 " tunnels were up, %" PRIu64 " have ended", slot->succeeded,
              slot->stopped);
        succeeded += slot->succeeded;
        packets += slot->packets;
        free(slot->configuration);
        pthread_mutex_destroy(&slot->lock);
    }
    printf("  seed %lu: %" PRIu64 " calls, %" PRIu64 " tunnels were up, %" PRIu64 " packets\n", options->seed, calls,
           succeeded, packets);
}
