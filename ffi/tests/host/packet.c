/*
 * Packets: an IP header between the addresses of the two sides, a number, and a pattern that follows from the number.
 *
 * The protocol is one of those for experiments (RFC 3692), so that no part of a stack looks at what follows.
 */
#include "host.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

enum { EXPERIMENT = 253, IPV4_HEADER = 20, IPV6_HEADER = 40, NUMBER = 8 };

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* The header's sum of RFC 1071. */
static unsigned checksum(const uint8_t *bytes, size_t length)
{
    uint32_t sum = 0;
    size_t at;
    for (at = 0; at + 1 < length; at += 2) {
        sum += (uint32_t)bytes[at] << 8 | bytes[at + 1];
    }
    while (sum >> 16 != 0) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return ~sum & 0xffff;
}

static size_t header_write(uint8_t *bytes, size_t length, int family, int from)
{
    uint8_t own = (uint8_t)(from + 1), other = (uint8_t)(2 - from);
    if (family == AF_INET) {
        const uint8_t header[IPV4_HEADER] = {0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, EXPERIMENT, 0, 0,
                                             10,   9, 0, own, 10, 9, 0, other};
        memcpy(bytes, header, sizeof header);
        put16(bytes + 2, (unsigned)length);
        put16(bytes + 10, checksum(bytes, IPV4_HEADER));
        return IPV4_HEADER;
    }
    memset(bytes, 0, IPV6_HEADER);
    bytes[0] = 0x60;
    put16(bytes + 4, (unsigned)length - IPV6_HEADER);
    bytes[6] = EXPERIMENT;
    bytes[7] = 64;
    /* fd09::1 and fd09::2 */
    bytes[8] = bytes[24] = 0xfd;
    bytes[9] = bytes[25] = 0x09;
    bytes[23] = own;
    bytes[39] = other;
    return IPV6_HEADER;
}

void packet_write(uint8_t *bytes, size_t length, int family, int from, uint64_t number)
{
    size_t at, header = header_write(bytes, length, family, from);
    CHECK(length >= header + NUMBER && length <= LARGEST_PACKET, "%zu is no length", length);
    for (at = 0; at < NUMBER; at++) {
        bytes[header + at] = (uint8_t)(number >> (8 * at));
    }
    for (at = header + NUMBER; at < length; at++) {
        bytes[at] = (uint8_t)(number + at);
    }
}

uint64_t packet_check(const uint8_t *bytes, size_t length, int family, int from)
{
    uint8_t expected[LARGEST_PACKET];
    uint64_t number = 0;
    size_t at, header = family == AF_INET ? IPV4_HEADER : IPV6_HEADER;
    CHECK(length >= header + NUMBER && length <= LARGEST_PACKET, "a packet of %zu bytes", length);
    for (at = 0; at < NUMBER; at++) {
        number |= (uint64_t)bytes[header + at] << (8 * at);
    }
    packet_write(expected, length, family, from, number);
    for (at = 0; at < length; at++) {
        CHECK(bytes[at] == expected[at], "byte %zu of %zu of packet %" PRIu64 " is %#x instead of %#x", at, length,
              number, bytes[at], expected[at]);
    }
    return number;
}
