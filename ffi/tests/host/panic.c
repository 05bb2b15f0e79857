/* A bug in the engine, forced: one tunnel ends with a reason, is of no use any more, and nothing else is touched. */
#include "host.h"

#include <string.h>
#include <sys/socket.h>

#ifdef ADIT_TEST_SYMBOLS

/* Exported by the feature `test-symbols` only, and in no header. */
AditResult adit_test_panic(AditTunnel tunnel, uint32_t place);

static void poisoned(Side *side)
{
    AditText text = {NULL, 0};
    AditStats stats = {0};
    uint8_t bytes[100];
    AditSlice packet = {bytes, sizeof bytes};
    size_t accepted;
    packet_write(bytes, sizeof bytes, AF_INET, side->index, 0);
    stats.size = sizeof stats;
    EXPECT(ADIT_ERROR_POISONED, adit_tunnel_stats(side->tunnel, &stats));
    EXPECT(ADIT_ERROR_POISONED, adit_tunnel_settings_applied(side->tunnel, 1));
    EXPECT(ADIT_ERROR_POISONED, adit_tunnel_settings_failed(side->tunnel, 1, NULL, 0));
    EXPECT(ADIT_ERROR_POISONED, adit_tunnel_snapshot(side->tunnel, 0, &text));
    EXPECT(ADIT_ERROR_POISONED, adit_tunnel_start_callbacks(side->tunnel, side_packets_callback, side));
    EXPECT(ADIT_ERROR_POISONED, adit_tunnel_sleep(side->tunnel));
    EXPECT(ADIT_ERROR_POISONED, adit_tunnel_wake(side->tunnel));
    EXPECT(ADIT_ERROR_POISONED, adit_tunnel_path_changed(side->tunnel, 1, 3, 1));
    EXPECT(ADIT_ERROR_POISONED, adit_tunnel_settings(side->tunnel, &text));
    EXPECT(ADIT_ERROR_POISONED, adit_tunnel_inject(side->tunnel, &packet, 1, NULL, 0, &accepted));
    EXPECT(ADIT_ERROR_POISONED,
           adit_tunnel_update(side->tunnel, "[Interface]\nPrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n",
                              70));
}

/* Which callback panics: an event of this kind. */
static uint32_t panics_at;

static void panic_at_event(Side *side, const AditEvent *event)
{
    if (event->kind == panics_at) {
        panics_at = 0;
        EXPECT(ADIT_ERROR_PANIC, adit_test_panic(side->tunnel, 0));
    } else if (event->kind == ADIT_EVENT_SETTINGS) {
        OK(adit_tunnel_settings_applied(side->tunnel, event->generation));
    }
    side_leave(side);
}

void scenario_panic(const Options *options)
{
    uint32_t place;
    (void)options;
    for (place = 0; place < 3; place++) {
        Pair pair;
        pair_new(&pair);
        pair_start(&pair);
        pair.sides[0]->numbered = pair.sides[1]->numbered = false;
        EXPECT(place == 0 ? ADIT_ERROR_PANIC : ADIT_OK, adit_test_panic(pair.sides[0]->tunnel, place));
        side_wait_event(pair.sides[0], ADIT_EVENT_STOPPED, 1);
        EXPECT(ADIT_ERROR_INTERNAL, pair.sides[0]->stopped);
        poisoned(pair.sides[0]);
        /* The other tunnel does not notice, and the process can make new ones. */
        CHECK(side_state(pair.sides[1]) == ADIT_STATE_UP, "state %u", (unsigned)side_state(pair.sides[1]));
        side_stop(pair.sides[0]);
        side_stop(pair.sides[0]);
        poisoned(pair.sides[0]);
        pair_free(&pair);
        pair_new(&pair);
        pair_start(&pair);
        pair_exchange(&pair, 10);
        pair_free(&pair);
    }
    /* Before a start, during one, and in a callback. */
    for (place = 0; place < 3; place++) {
        Pair pair;
        pair_new(&pair);
        if (place == 0) {
            EXPECT(ADIT_ERROR_PANIC, adit_test_panic(pair.sides[0]->tunnel, 0));
            poisoned(pair.sides[0]);
        } else {
            panics_at = place == 1 ? ADIT_EVENT_STATE : ADIT_EVENT_SETTINGS;
            pair.sides[0]->on_event = panic_at_event;
            side_start(pair.sides[0]);
            side_start(pair.sides[1]);
            EXPECT(ADIT_ERROR_INTERNAL, side_wait_started(pair.sides[0]));
            poisoned(pair.sides[0]);
            side_stop(pair.sides[0]);
        }
        pair_free(&pair);
    }
}

#else

void scenario_panic(const Options *options)
{
    (void)options;
    skip("the library has no adit_test_panic");
}

#endif
