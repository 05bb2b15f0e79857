/*
 * Tun descriptors: of all kinds, borrowed and given away, attached late, closed and removed under the engine.
 *
 * The first side has the descriptor, in a namespace of its own; the second is in callback mode and pings the kernel behind it.
 */
#include "network.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TUN = IFF_TUN | IFF_NO_PI, ECHO_LENGTH = 84 };

static void put_sum(uint8_t *bytes, size_t length, size_t at)
{
    uint32_t sum = 0;
    size_t index;
    bytes[at] = bytes[at + 1] = 0;
    for (index = 0; index + 1 < length; index += 2) {
        sum += (uint32_t)bytes[index] << 8 | bytes[index + 1];
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~(sum + (sum >> 16)) & 0xffff;
    bytes[at] = (uint8_t)(sum >> 8);
    bytes[at + 1] = (uint8_t)sum;
}

/* Has the second side ping the kernel behind the first one's device, and waits until all answers have come. */
static void ping(Pair *pair, unsigned count)
{
    static const uint8_t HEADER[] = {0x45, 0, 0, ECHO_LENGTH, 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1, 8};
    uint8_t bytes[ECHO_LENGTH] = {0};
    AditSlice packet = {bytes, sizeof bytes};
    uint64_t before = pair->sides[1]->packets;
    size_t accepted;
    unsigned number;
    memcpy(bytes, HEADER, sizeof HEADER);
    put_sum(bytes, 20, 10);
    for (number = 1; number <= count; number++) {
        bytes[27] = (uint8_t)number;
        put_sum(bytes + 20, ECHO_LENGTH - 20, 2);
        OK(adit_tunnel_inject(pair->sides[1]->tunnel, &packet, 1, NULL, 0, &accepted));
        side_wait_packets(pair->sides[1], before + number);
    }
}

/* The host's part of a start: the device gets its address when the tunnel asks for it. */
static void apply(Side *side, const AditEvent *event)
{
    if (event->kind == ADIT_EVENT_SETTINGS) {
        int *attached = side->more;
        if (attached != NULL) {
            OK(adit_tunnel_attach_fd(side->tunnel, *attached, ADIT_FD_BORROWED, ADIT_FRAMING_RAW));
        }
        /* No addresses of IPv6, and so no packets but those that are asked for. */
        ip("link set tun0 addrgenmode none");
        ip("addr add 10.9.0.1/24 dev tun0");
        ip("link set tun0 mtu 1420 up");
        OK(adit_tunnel_settings_applied(side->tunnel, event->generation));
    }
    side_leave(side);
}

static void devices_new(Pair *pair)
{
    pair_new(pair);
    pair->sides[0]->on_event = apply;
    pair->sides[1]->numbered = false;
    side_start(pair->sides[1]);
}

static void start_fd(Pair *pair, int fd, uint32_t ownership)
{
    side_begin(pair->sides[0]);
    OK(adit_tunnel_start_fd(pair->sides[0]->tunnel, fd, ownership, ADIT_FRAMING_RAW));
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void borrowed(void)
{
    Pair pair;
    int fd = tun_open("tun0", TUN), flags = fcntl(fd, F_GETFL);
    devices_new(&pair);
    start_fd(&pair, fd, ADIT_FD_BORROWED);
    OK(side_wait_started(pair.sides[0]));
    EXPECT(ADIT_ERROR_ALREADY_RUNNING, adit_tunnel_start_fd(pair.sides[0]->tunnel, fd, ADIT_FD_OWNED, ADIT_FRAMING_RAW));
    EXPECT(ADIT_ERROR_INVALID_STATE, adit_tunnel_attach_fd(pair.sides[0]->tunnel, fd, ADIT_FD_OWNED, ADIT_FRAMING_RAW));
    CHECK(is_open(fd), "a descriptor that was refused is the host's");
    ping(&pair, 20);
    side_stop(pair.sides[0]);
    CHECK(is_open(fd) && fcntl(fd, F_GETFL) == flags, "a borrowed descriptor is as it was");
    /* Again with the same one; and the host closes it, for what is left is the engine's duplicate. */
    ip("addr flush dev tun0");
    start_fd(&pair, fd, ADIT_FD_BORROWED);
    OK(side_wait_started(pair.sides[0]));
    close(fd);
    ping(&pair, 20);
    pair_free(&pair);
}

static void owned(void)
{
    Pair pair;
    int fd = tun_open("tun0", TUN);
    devices_new(&pair);
    start_fd(&pair, fd, ADIT_FD_OWNED);
    CHECK(!is_open(fd), "a descriptor that was given away is closed");
    OK(side_wait_started(pair.sides[0]));
    ping(&pair, 20);
    pair_free(&pair);
}

static void attached_late(void)
{
    Pair pair;
    uint8_t bytes[100];
    AditSlice packet = {bytes, sizeof bytes};
    size_t accepted;
    int fd = tun_open("tun0", TUN), another = tun_open("tun1", TUN);
    packet_write(bytes, sizeof bytes, AF_INET, 0, 0);
    devices_new(&pair);
    EXPECT(ADIT_ERROR_INVALID_STATE, adit_tunnel_attach_fd(pair.sides[0]->tunnel, fd, ADIT_FD_OWNED, ADIT_FRAMING_RAW));
    CHECK(is_open(fd), "a descriptor that was refused is the host's");
    pair.sides[0]->more = &fd;
    side_start(pair.sides[0]);
    OK(side_wait_started(pair.sides[0]));
    EXPECT(ADIT_ERROR_INVALID_STATE,
           adit_tunnel_attach_fd(pair.sides[0]->tunnel, another, ADIT_FD_OWNED, ADIT_FRAMING_RAW));
    EXPECT(ADIT_ERROR_INVALID_STATE, adit_tunnel_inject(pair.sides[0]->tunnel, &packet, 1, NULL, 0, &accepted));
    CHECK(is_open(another), "a descriptor that was refused is the host's");
    ping(&pair, 20);
    pair_free(&pair);
    CHECK(is_open(fd), "a borrowed descriptor is the host's");
    close(fd);
    close(another);
}

/* The interface is deleted while the tunnel uses it. */
static void removed(void)
{
    Pair pair;
    int fd = tun_open("tun0", TUN);
    devices_new(&pair);
    start_fd(&pair, fd, ADIT_FD_BORROWED);
    OK(side_wait_started(pair.sides[0]));
    ping(&pair, 1);
    ip("link delete tun0");
    side_wait_event(pair.sides[0], ADIT_EVENT_STOPPED, 1);
    EXPECT(ADIT_ERROR_DEVICE_LOST, pair.sides[0]->stopped);
    side_stop(pair.sides[0]);
    close(fd);
    fd = tun_open("tun0", TUN);
    start_fd(&pair, fd, ADIT_FD_OWNED);
    OK(side_wait_started(pair.sides[0]));
    ping(&pair, 5);
    pair_free(&pair);
}

/* The host closes a descriptor that is not its own: the engine's duplicate. */
static void closed_by_mistake(void)
{
    /* Rust's standard library, when it is compiled with its assertions, as for this sanitizer, ends the process then. */
#ifndef __SANITIZE_THREAD__
    Pair pair;
    int fd = tun_open("tun0", TUN), other = -1;
    DIR *folder;
    struct dirent *entry;
    devices_new(&pair);
    start_fd(&pair, fd, ADIT_FD_BORROWED);
    OK(side_wait_started(pair.sides[0]));
    ping(&pair, 1);
    folder = opendir("/proc/self/fd");
    while ((entry = readdir(folder)) != NULL) {
        char target[64] = "";
        int found = atoi(entry->d_name);
        (void)!readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);
        if (strcmp(target, "/dev/net/tun") == 0 && found != fd) {
            other = found;
        }
    }
    closedir(folder);
    CHECK(other >= 0, "the engine has no duplicate");
    close(other);
    ip("link set tun0 mtu 1400");
    side_send(pair.sides[1], AF_INET, 0, 1, 100);
    side_wait_event(pair.sides[0], ADIT_EVENT_STOPPED, 1);
    EXPECT(ADIT_ERROR_DEVICE_LOST, pair.sides[0]->stopped);
    pair_free(&pair);
    close(fd);
#endif
}

/* Devices whose packets have another form. */
static void other_kinds(void)
{
    static const int KINDS[] = {IFF_TUN, IFF_TAP | IFF_NO_PI, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    Pair pair;
    unsigned index;
    int fd;
    pair_new(&pair);
    for (index = 0; index < 3; index++) {
        fd = tun_open("tun2", KINDS[index]);
        EXPECT(ADIT_ERROR_DEVICE,
               adit_tunnel_start_fd(pair.sides[0]->tunnel, fd, ADIT_FD_OWNED, ADIT_FRAMING_RAW));
        CHECK(is_open(fd), "a descriptor that was refused is the host's");
        close(fd);
    }
    fd = tun_open("tun2", TUN);
    EXPECT(ADIT_ERROR_DEVICE, adit_tunnel_start_fd(pair.sides[0]->tunnel, fd, ADIT_FD_OWNED, ADIT_FRAMING_UTUN));
    close(fd);
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    EXPECT(ADIT_ERROR_DEVICE, adit_tunnel_start_fd(pair.sides[0]->tunnel, fd, ADIT_FD_BORROWED, ADIT_FRAMING_RAW));
    close(fd);
    pair_free(&pair);
}

void scenario_devices(const Options *options)
{
    int former = namespace_enter();
    (void)options;
    other_kinds();
    borrowed();
    owned();
    attached_late();
    removed();
    closed_by_mistake();
    namespace_leave(former);
}
