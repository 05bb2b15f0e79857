/* Starts and stops, many times, with flat memory, descriptors and threads. */
#ifdef __linux__
#include <malloc.h>
#endif
#include "host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROWTH_ALLOWED = 1 << 20 };

/* What must not grow. */
typedef struct Footprint {
    size_t bytes;
    unsigned descriptors, threads;
} Footprint;

static Footprint footprint(void)
{
    Footprint now;
    now.bytes = anonymous_bytes();
    now.descriptors = open_descriptors();
    now.threads = running_threads();
    return now;
}

/* Round for round another moment for the stop. */
static void start_and_stop(Pair *pair, unsigned long round)
{
    Side *side = pair->sides[0];
    switch (round % 4) {
    case 0:
        side_start(side);
        OK(side_wait_started(side));
        pair_exchange(pair, 1);
        break;
    case 1:
        side_start(side);
        break;
    case 2:
        side_start(side);
        side_wait_state(side, ADIT_STATE_HANDSHAKING, 1);
        break;
    default:
        side->answer = NEVER;
        side_start(side);
        side_wait_event(side, ADIT_EVENT_SETTINGS, 1);
        side->answer = APPLY;
        break;
    }
    side_stop(side);
}

static void make_and_free(const char *configuration, unsigned long round)
{
    Side *side = side_new(0, configuration, NULL);
    if (round % 3 != 0) {
        side_start(side);
    }
    if (round % 3 == 2) {
        side_stop(side);
    }
    side_free(side);
}

/* What is in use. An allocator keeps what is freed, now and then as much as a tunnel had; that is none of the library's. */
static Footprint in_use(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    return footprint();
}

static void flat(const char *what, const Options *options, Footprint before)
{
    Footprint after = in_use();
    printf("  %s: %zu KiB of anonymous memory before, %zu after %lu rounds; %u descriptors, %u threads\n", what,
           before.bytes >> 10, after.bytes >> 10, options->rounds, after.descriptors, after.threads);
    CHECK(after.descriptors == before.descriptors, "%u descriptors instead of %u", after.descriptors,
          before.descriptors);
    CHECK(after.threads <= before.threads, "%u threads instead of %u", after.threads, before.threads);
    CHECK(!options->measured || after.bytes <= before.bytes + GROWTH_ALLOWED,
          "memory has grown by %zu KiB, of which %d are allowed", (after.bytes - before.bytes) >> 10,
          GROWTH_ALLOWED >> 10);
}

void scenario_churn(const Options *options)
{
    /* The first rounds fill what is kept: arenas of the allocator, caches of stacks, buffers of stdio. */
    unsigned long warm = options->rounds / 5 < 200 ? options->rounds / 5 + 1 : 200, round;
    Pair pair;
    Footprint before;
    char *configuration;
    unsigned threads;
    pair_new(&pair);
    pair_start(&pair);
    side_stop(pair.sides[0]);
    threads = running_threads();
    before = in_use();
    for (round = 0; round < options->rounds + warm; round++) {
        if (round == warm) {
            wait_for_threads(threads);
            before = in_use();
        }
        start_and_stop(&pair, round);
    }
    wait_for_threads(threads);
    flat("start and stop", options, before);
    configuration = pair_configuration(&pair, 0, "");
    pair_free(&pair);
    threads = running_threads();
    for (round = 0; round < options->rounds + warm; round++) {
        if (round == warm) {
            wait_for_threads(threads);
            before = in_use();
        }
        make_and_free(configuration, round);
    }
    wait_for_threads(threads);
    flat("new and free", options, before);
    free(configuration);
}
