/*
 * Packets through callbacks beside packets through descriptors: the same two tunnels in one process over loopback, the same
 * packets, the same direction, and the same number of packets under way at most, so that neither side is paid for losing
 * them. With descriptors, the kernel hands the packets over: a UDP socket before the one tun device, one behind the other.
 */
#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 32, WINDOW = 256, PAYLOAD = LARGEST_PACKET - 28, ROUNDS = 3 };

/* One direction of a flow; the receiver counts, the sender looks. */
typedef struct Flow {
    uint64_t received;
    bool done;
    int socket;
} Flow;

static uint64_t received(Flow *flow)
{
    return __atomic_load_n(&flow->received, __ATOMIC_ACQUIRE);
}

static void count(Flow *flow, uint64_t packets)
{
    __atomic_add_fetch(&flow->received, packets, __ATOMIC_RELEASE);
}

/* Calls `send` with room in the window for as long as it lasts; returns the bits per second that came. */
static double run_flow(Flow *flow, double seconds, size_t (*send)(void *context), void *context)
{
    double warm = now_seconds() + seconds / 10, begun = 0, end = warm + seconds, progress = warm;
    uint64_t sent = received(flow), first = 0, last = sent;
    while (now_seconds() < end) {
        uint64_t have = received(flow);
        double now = now_seconds();
        if (begun == 0 && now >= warm) {
            begun = now;
            first = have;
        }
        if (have != last) {
            last = have;
            progress = now;
        } else if (now > progress + 0.02) {
            /* What is missing by now was lost. */
            sent = have;
            progress = now;
        }
        if (sent + BATCH > have + WINDOW) {
            struct timespec pause = {0, 20000};
            nanosleep(&pause, NULL);
            continue;
        }
        sent += send(context);
    }
    return (double)(received(flow) - first) * LARGEST_PACKET * 8 / (now_seconds() - begun);
}

/* --- Callbacks --- */

typedef struct Injection {
    AditTunnel tunnel;
    AditSlice packets[BATCH];
    int32_t families[BATCH];
} Injection;

static size_t inject(void *context)
{
    Injection *injection = context;
    size_t accepted;
    OK(adit_tunnel_inject(injection->tunnel, injection->packets, BATCH, injection->families, BATCH, &accepted));
    return accepted;
}

static void count_packets(Side *side, const AditSlice *packets, const int32_t *families, size_t number)
{
    (void)packets, (void)families;
    count(side->more, number);
    side_leave(side);
}

static double through_callbacks(double seconds)
{
    Pair pair;
    Flow flow = {0, false, -1};
    Injection injection;
    uint8_t *bytes = allocate(BATCH * LARGEST_PACKET);
    unsigned at;
    double rate;
    pair_new(&pair);
    pair.sides[1]->numbered = false;
    pair.sides[1]->on_packets = count_packets;
    pair.sides[1]->more = &flow;
    pair_start(&pair);
    injection.tunnel = pair.sides[0]->tunnel;
    for (at = 0; at < BATCH; at++) {
        injection.packets[at].data = bytes + at * LARGEST_PACKET;
        injection.packets[at].length = LARGEST_PACKET;
        injection.families[at] = AF_INET;
        packet_write(bytes + at * LARGEST_PACKET, LARGEST_PACKET, AF_INET, 0, at);
    }
    rate = run_flow(&flow, seconds, inject, &injection);
    pair_free(&pair);
    free(bytes);
    return rate;
}

/* --- Descriptors --- */

typedef struct Messages {
    int socket;
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    uint8_t bytes[BATCH][PAYLOAD];
} Messages;

static void messages_prepare(Messages *messages, int fd)
{
    unsigned at;
    memset(messages, 0, sizeof *messages);
    messages->socket = fd;
    for (at = 0; at < BATCH; at++) {
        messages->vectors[at].iov_base = messages->bytes[at];
        messages->vectors[at].iov_len = PAYLOAD;
        messages->messages[at].msg_hdr.msg_iov = &messages->vectors[at];
        messages->messages[at].msg_hdr.msg_iovlen = 1;
    }
}

static size_t send_messages(void *context)
{
    Messages *messages = context;
    int sent = sendmmsg(messages->socket, messages->messages, BATCH, 0);
    CHECK(sent >= 0 || errno == ENOBUFS || errno == EAGAIN, "sendmmsg: %s", strerror(errno));
    return sent > 0 ? (size_t)sent : 0;
}

static void *receive_messages(void *context)
{
    Flow *flow = context;
    Messages *messages = allocate(sizeof *messages);
    messages_prepare(messages, flow->socket);
    while (!__atomic_load_n(&flow->done, __ATOMIC_ACQUIRE)) {
        struct pollfd wait = {flow->socket, POLLIN, 0};
        int number = poll(&wait, 1, 100) > 0 ? recvmmsg(flow->socket, messages->messages, BATCH, MSG_DONTWAIT, NULL) : 0;
        if (number > 0) {
            count(flow, (uint64_t)number);
        }
    }
    free(messages);
    return NULL;
}

static int udp_socket(const char *own, const char *other)
{
    struct sockaddr_in address;
    int large = 4 << 20, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0, "no socket");
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons(5001);
    inet_pton(AF_INET, own, &address.sin_addr);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &large, sizeof large);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind %s: %s", own, strerror(errno));
    inet_pton(AF_INET, other, &address.sin_addr);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect %s: %s", other, strerror(errno));
    return fd;
}

/* One end: a tun device with its address, and a socket that talks through it, in a namespace of their own if wanted. */
typedef struct End {
    int index, tun, socket;
    bool apart;
} End;

static void *end_make(void *context)
{
    End *end = context;
    int former = end->apart ? namespace_enter() : -1;
    char name[8];
    sprintf(name, "tun%d", end->index);
    end->tun = tun_open(name, IFF_TUN | IFF_NO_PI);
    ip("link set %s addrgenmode none", name);
    ip("addr add 10.9.0.%d/24 dev %s", end->index + 1, name);
    ip("link set %s mtu %d up", name, LARGEST_PACKET);
    end->socket = udp_socket(end->index == 0 ? "10.9.0.1" : "10.9.0.2", end->index == 0 ? "10.9.0.2" : "10.9.0.1");
    if (former >= 0) {
        namespace_leave(former);
    }
    return NULL;
}

static double through_descriptors(double seconds)
{
    Pair pair;
    End ends[2] = {{0, -1, -1, false}, {1, -1, -1, true}};
    Flow flow = {0, false, -1};
    Messages *messages = allocate(sizeof *messages);
    pthread_t thread;
    double rate;
    int index, former = namespace_enter();
    end_make(&ends[0]);
    CHECK(pthread_create(&thread, NULL, end_make, &ends[1]) == 0, "no thread");
    pthread_join(thread, NULL);
    pair_new(&pair);
    for (index = 0; index < 2; index++) {
        side_begin(pair.sides[index]);
        OK(adit_tunnel_start_fd(pair.sides[index]->tunnel, ends[index].tun, ADIT_FD_OWNED, ADIT_FRAMING_RAW));
    }
    for (index = 0; index < 2; index++) {
        OK(side_wait_started(pair.sides[index]));
    }
    flow.socket = ends[1].socket;
    CHECK(pthread_create(&thread, NULL, receive_messages, &flow) == 0, "no thread");
    messages_prepare(messages, ends[0].socket);
    rate = run_flow(&flow, seconds, send_messages, messages);
    __atomic_store_n(&flow.done, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    pair_free(&pair);
    close(ends[0].socket);
    close(ends[1].socket);
    namespace_leave(former);
    free(messages);
    return rate;
}

static int compare(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

void scenario_throughput(const Options *options)
{
    double calls[ROUNDS], descriptors[ROUNDS];
    unsigned round;
    for (round = 0; round < ROUNDS; round++) {
        calls[round] = through_callbacks(options->seconds);
        descriptors[round] = through_descriptors(options->seconds);
        printf("  round %u: callbacks %.2f Gbit/s, descriptors %.2f Gbit/s\n", round + 1, calls[round] / 1e9,
               descriptors[round] / 1e9);
        fflush(stdout);
    }
    qsort(calls, ROUNDS, sizeof calls[0], compare);
    qsort(descriptors, ROUNDS, sizeof descriptors[0], compare);
    printf("  medians: callbacks %.2f Gbit/s, descriptors %.2f Gbit/s, ratio %.2f\n", calls[ROUNDS / 2] / 1e9,
           descriptors[ROUNDS / 2] / 1e9, calls[ROUNDS / 2] / descriptors[ROUNDS / 2]);
    CHECK(!options->measured || calls[ROUNDS / 2] >= 0.7 * descriptors[ROUNDS / 2],
          "callbacks carry less than 0.7 of what descriptors do");
}
