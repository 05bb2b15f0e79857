/*
 * How much memory one tunnel adds to its process under load: small and large packets at once, in both directions, as fast as
 * they are taken. The peer is a process of its own, for what it needs is not the tunnel's.
 */
#include "host.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH = 64, GROWTH_ALLOWED = 15 << 20 };

typedef struct Flood {
    Side *side;
    double end;
    uint64_t packets, bytes;
} Flood;

/* Sends without waiting for anybody; what finds no room is dropped, as by an interface. */
static void *flood(void *context)
{
    static const size_t LENGTHS[] = {SMALLEST_PACKET, LARGEST_PACKET, 64, 576, 1280};
    Flood *flood = context;
    uint8_t *bytes = allocate(BATCH * LARGEST_PACKET);
    AditSlice packets[BATCH];
    uint64_t number = 0;
    size_t at, accepted;
    while (now_seconds() < flood->end) {
        for (at = 0; at < BATCH; at++, number++) {
            packets[at].data = bytes + at * LARGEST_PACKET;
            packets[at].length = LENGTHS[number % 5];
            packet_write(bytes + at * LARGEST_PACKET, packets[at].length, number % 2 == 0 ? AF_INET : AF_INET6,
                         flood->side->index, number);
        }
        OK(adit_tunnel_inject(flood->side->tunnel, packets, BATCH, NULL, 0, &accepted));
        for (at = 0; at < accepted; at++) {
            flood->bytes += packets[at].length;
        }
        flood->packets += accepted;
        if (accepted < BATCH) {
            pause_ms(1);
        }
    }
    free(bytes);
    return NULL;
}

/* One side of the tunnel, in a process that has nothing else. */
static Flood one_side(const Pair *pair, int index, double seconds)
{
    char *configuration = pair_configuration(pair, index, "");
    Side *side = side_new(index, configuration, NULL);
    Flood load;
    pthread_t thread;
    double end;
    side->complete = false;
    free(configuration);
    side_start(side);
    OK(side_wait_started(side));
    memset(&load, 0, sizeof load);
    load.side = side;
    load.end = end = now_seconds() + seconds;
    CHECK(pthread_create(&thread, NULL, flood, &load) == 0, "no thread");
    while (now_seconds() < end) {
        AditStats stats = {0};
        stats.size = sizeof stats;
        OK(adit_tunnel_stats(side->tunnel, &stats));
        CHECK(stats.packet_memory_bytes <= stats.packet_memory_budget, "%" PRIu64 " bytes for packets",
              stats.packet_memory_bytes);
        CHECK(stats.queued_bytes <= stats.packet_memory_budget, "%" PRIu64 " bytes wait", stats.queued_bytes);
        pause_ms(20);
    }
    pthread_join(thread, NULL);
    CHECK(side->packets > 0, "nothing came");
    load.bytes += side->bytes;
    load.packets += side->packets;
    side_free(side);
    return load;
}

void scenario_memory(const Options *options)
{
    Pair pair;
    Flood load;
    pid_t peer, keys;
    size_t before, anonymous, peak;
    int status, pipes[2];
    memset(&pair, 0, sizeof pair);
    /* After a fork the child must not call the library, so neither must the parent before. */
    CHECK(pipe(pipes) == 0, "no pipe");
    keys = fork();
    CHECK(keys >= 0, "no process");
    if (keys == 0) {
        pair_keys(&pair);
        _exit(write(pipes[1], &pair, sizeof pair) == (ssize_t)sizeof pair ? 0 : 1);
    }
    CHECK(read(pipes[0], &pair, sizeof pair) == (ssize_t)sizeof pair, "no keys");
    CHECK(waitpid(keys, &status, 0) == keys && status == 0, "no keys");
    close(pipes[0]);
    close(pipes[1]);
    fflush(stdout);
    peer = fork();
    CHECK(peer >= 0, "no process");
    if (peer == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        one_side(&pair, 1, options->seconds + 0.5);
        _exit(0);
    }
    before = resident_bytes();
    anonymous = anonymous_bytes();
    load = one_side(&pair, 0, options->seconds);
    peak = resident_peak_bytes();
    CHECK(waitpid(peer, &status, 0) == peer && status == 0, "the peer's process has failed: %d", status);
    printf("  %" PRIu64 " packets, %.2f GB, in %.1f s; memory %.2f MiB before, %.2f MiB at most: growth %.2f MiB, "
           "anonymous left %.2f MiB\n",
           load.packets, (double)load.bytes / 1e9, options->seconds, (double)before / (1 << 20),
           (double)peak / (1 << 20), (double)(peak - before) / (1 << 20),
           ((double)anonymous_bytes() - (double)anonymous) / (1 << 20));
    CHECK(!options->measured || peak - before < GROWTH_ALLOWED, "memory has grown by %zu bytes", peak - before);
}
