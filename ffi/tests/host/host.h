/*
 * What the scenarios of the C host share: checks, clocks, packets, and a tunnel together with what its host was told.
 *
 * A `Side` checks the contract of the header in every callback: always the same thread, never two at a time, nothing after
 * a stop that returned, arrays and texts as promised. A scenario only says what is to happen. The first broken promise ends
 * the process with exit code 1 and says what and where.
 */
#ifndef ADIT_TEST_HOST_H
#define ADIT_TEST_HOST_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adit.h"

/* From the command line. */
typedef struct Options {
    double seconds;           /* how long traffic flows */
    unsigned long rounds;     /* how often something is repeated */
    unsigned long seed;       /* of what is random */
    const char *configuration; /* file, for `tun` */
    const char *device;       /* name of the interface, for `tun` */
    bool owned;               /* whether `tun` gives its descriptor away */
    bool late;                /* whether `tun` attaches the descriptor when the settings are applied */
    bool measured;            /* whether memory and time mean anything: not under valgrind and sanitizers */
} Options;

/* Scenarios; see the table in host.c. */
void scenario_pair(const Options *options);
void scenario_arguments(const Options *options);
void scenario_limits(const Options *options);
void scenario_order(const Options *options);
void scenario_threads(const Options *options);
void scenario_callbacks(const Options *options);
void scenario_log(const Options *options);
void scenario_panic(const Options *options);
void scenario_churn(const Options *options);
void scenario_memory(const Options *options);
void scenario_devices(const Options *options);
void scenario_throughput(const Options *options);
void scenario_tun(const Options *options);

/* --- Checks --- */

#define CHECK(condition, ...) \
    do { \
        if (!(condition)) { \
            fail(__FILE__, __LINE__, #condition, __VA_ARGS__); \
        } \
    } while (0)

/* The call returns this code. */
#define EXPECT(expected, call) expect(__FILE__, __LINE__, #call, (expected), (call))

/* The call returns ADIT_OK. */
#define OK(call) EXPECT(ADIT_OK, call)

void fail(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((noreturn, format(printf, 4, 5)));
void expect(const char *file, int line, const char *call, AditResult expected, AditResult found);

/* Ends the process with the exit code that means that the machine lacks something. */
void skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* --- The process --- */

double now_seconds(void);
void pause_ms(unsigned milliseconds);
size_t resident_bytes(void);          /* memory now */
size_t resident_peak_bytes(void);     /* the most there was since the process began */
size_t anonymous_bytes(void);         /* of it, what no file has a copy of */
unsigned open_descriptors(void);
unsigned running_threads(void);
uint64_t random_number(uint64_t *state);
void *allocate(size_t bytes);
char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint16_t free_port(void);             /* a UDP port that nobody has at the moment */
void wait_for_threads(unsigned count); /* until there are no more than so many */

/* --- Packets: IP with a number and a pattern, so that a wrong byte is noticed --- */

#define LARGEST_PACKET 1420
#define SMALLEST_PACKET 48

/* Writes a packet between the sides' addresses, of a length from SMALLEST_PACKET to LARGEST_PACKET. */
void packet_write(uint8_t *bytes, size_t length, int family, int from, uint64_t number);

/* Checks every byte of a packet that left side `from`, and returns its number. */
uint64_t packet_check(const uint8_t *bytes, size_t length, int family, int from);

/* --- A tunnel with its host --- */

enum { EVENT_KINDS = 12, STATES = 7 };

typedef enum Answer { APPLY, REFUSE, NEVER } Answer;

typedef struct Side Side;

struct Side {
    AditTunnel tunnel;
    int index;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* What was told since the last start. */
    unsigned events[EVENT_KINDS];
    unsigned states[STATES];  /* how often each was entered */
    uint32_t state;
    AditResult started, updated, stopped;
    uint64_t generation;
    char *last_json;
    uint64_t packets, bytes, next_number;
    /* Of the whole life. */
    uint64_t calls;
    pthread_t thread;
    bool known_thread;
    bool quiet;               /* nothing may be told now */
    unsigned depth;           /* callbacks that have not returned */
    bool ending_inside;       /* a callback stops or frees the tunnel: what is still to be told is told inside */
    /* What the scenario wants. */
    Answer answer;
    bool numbered;            /* packets carry increasing numbers, without a gap if `complete` */
    bool complete;
    void (*on_event)(Side *side, const AditEvent *event);
    void (*on_packets)(Side *side, const AditSlice *packets, const int32_t *families, size_t count);
    void *more;
};

Side *side_new(int index, const char *configuration, const AditOptions *options);
void side_start(Side *side);              /* in callback mode; does not wait */
void side_begin(Side *side);              /* forgets what was told before, as every start does */
AditResult side_wait_started(Side *side);
void side_wait_event(Side *side, uint32_t kind, unsigned count);
void side_wait_state(Side *side, uint32_t state, unsigned count);
void side_wait_packets(Side *side, uint64_t count);
unsigned side_events(Side *side, uint32_t kind);
uint32_t side_state(Side *side);
uint64_t side_calls(Side *side);
void side_stop(Side *side);
void side_stopped(Side *side);            /* a stop has returned ADIT_OK: nothing may be told from now on */
void side_free(Side *side);               /* frees the tunnel and the memory of its host at once */
void side_forget(Side *side);             /* only the memory */
void side_leave(Side *side);              /* the end of a hook that has not freed its side */
void side_send(Side *side, int family, uint64_t first, size_t count, size_t length);

/* The callbacks of a side, for scenarios that start a tunnel by themselves. */
void side_event_callback(void *context, AditTunnel tunnel, const AditEvent *event);
void side_packets_callback(void *context, AditTunnel tunnel, const AditSlice *packets, const int32_t *families,
                           size_t count);

/* --- Two tunnels that are each other's peers over loopback --- */

typedef struct Pair {
    Side *sides[2];
    AditKeyText private_keys[2];
    AditKeyText public_keys[2];
    uint16_t ports[2];
} Pair;

void pair_keys(Pair *pair);
char *pair_configuration(const Pair *pair, int index, const char *more_of_interface);
void pair_new(Pair *pair);
void pair_start(Pair *pair);              /* and waits until both are up */
void pair_stop(Pair *pair);
void pair_free(Pair *pair);
/* Whether packets cross in both directions and over both families, in order and whole. */
void pair_exchange(Pair *pair, size_t count);

#endif
