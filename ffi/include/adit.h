/*
 * Adit: a WireGuard tunnel in your program.
 *
 * The engine does not touch the system: your program owns the interface (a tun or utun device, or an
 * NEPacketTunnelProvider's packetFlow), applies the settings that the tunnel asks for, and passes packets.
 *
 * ORDER OF CALLS
 *
 *   1. adit_init, if you want a log. Compare adit_abi_version() with ADIT_ABI_VERSION if you link dynamically.
 *   2. adit_tunnel_new with a configuration. If it says ADIT_ERROR_CONFIGURATION, adit_configuration_check says why.
 *   3. adit_tunnel_start_callbacks, or adit_tunnel_start_fd. It returns at once. Then events come:
 *        STATE resolving, handshaking, applying settings
 *        HANDSHAKE        a peer has answered, so the tunnel can carry packets
 *        SETTINGS         apply the settings in the event's JSON; answer with adit_tunnel_settings_applied, or _failed
 *        STATE up, then STARTED with ADIT_OK
 *      or STARTED with an error. STARTED comes exactly once, whatever happens, and every step has a deadline.
 *      From SETTINGS on, adit_tunnel_inject takes packets and the packets callback gives some.
 *   4. While it runs: adit_tunnel_path_changed, adit_tunnel_sleep, adit_tunnel_wake, adit_tunnel_update.
 *   5. adit_tunnel_stop. STOPPED comes before it returns; no callback after that. Start again, or
 *   6. adit_tunnel_free.
 *
 * RULES
 *
 *   Results. Functions return AditResult; adit_error_message has a sentence for each. Places for results come last and are
 *   written on success only, completely. "Errors" below names the codes without ADIT_ERROR_; every function can return
 *   PANIC, which means a bug in Adit: the tunnel is poisoned then, ends with STOPPED (or STARTED) and INTERNAL, and all but
 *   adit_tunnel_stop and adit_tunnel_free answer POISONED.
 *   Numbers. Kinds, states, flags and formats are uint32_t. What you pass must be known, or the call is refused with
 *   INVALID_ARGUMENT; what you get may be newer than your header: ignore what you do not know.
 *   Pointers. NULL, where the text does not allow it, is NULL_POINTER, one that is not aligned INVALID_ARGUMENT. Beyond that
 *   the library has to believe that a pointer leads to what its type says, for the length that comes with it, and that no
 *   other thread writes there during the call.
 *   Texts are UTF-8. Those that go in have a length and need no NUL; those that come out have both. A text in an AditText is
 *   yours: adit_text_free. Every other pointer that you get is the library's, and valid as the text says.
 *   Structs that begin with a size may grow at the end. Set it to sizeof.
 *   Threads. Every function may be called from any thread at any time, also from within a callback. Callbacks come from
 *   threads of the library: a tunnel's events and packets, one at a time and in order, from its thread "adit-callbacks"; the
 *   log from "adit-log". No lock of the library is held during a callback. A callback may block; only the callbacks that
 *   come from the same thread wait for it. It must return: no longjmp, no exception.
 *   Two calls on one tunnel at the same time act as if one came after the other. A call on a handle that another thread
 *   frees at the same time is either before that or INVALID_HANDLE.
 *   After fork, a child must not call the library.
 *
 * A HOST IN FIFTY LINES, with its own functions at the top
 *
 *     #include <adit.h>
 *     #include <stdio.h>
 *     #include <string.h>
 *
 *     // Yours: apply the settings; write packets to the interface; read some, waiting for them, until it is closed.
 *     int apply_settings(const char *json);
 *     void write_packet(const uint8_t *packet, size_t length);
 *     size_t read_packets(AditSlice *packets, size_t most);
 *
 *     static void on_log(void *context, uint32_t level, const char *target, const char *message, size_t length) {
 *         (void)context, (void)length;
 *         fprintf(stderr, "%u %s: %s\n", (unsigned)level, target, message);
 *     }
 *
 *     static void on_event(void *context, AditTunnel tunnel, const AditEvent *event) {
 *         (void)context;
 *         if (event->kind == ADIT_EVENT_SETTINGS) {
 *             if (apply_settings(event->json))
 *                 adit_tunnel_settings_applied(tunnel, event->generation);
 *             else
 *                 adit_tunnel_settings_failed(tunnel, event->generation, NULL, 0);
 *         } else if (event->kind == ADIT_EVENT_STARTED && event->result != ADIT_OK) {
 *             fprintf(stderr, "no tunnel: %s\n", adit_error_message(event->result));
 *         }
 *     }
 *
 *     static void on_packets(void *context, AditTunnel tunnel, const AditSlice *packets, const int32_t *families,
 *                            size_t count) {
 *         (void)context, (void)tunnel, (void)families;
 *         for (size_t i = 0; i < count; i++)
 *             write_packet(packets[i].data, packets[i].length);
 *     }
 *
 *     AditResult run(const char *configuration) {
 *         AditTunnel tunnel;
 *         AditSlice packets[64];
 *         size_t count, accepted;
 *         adit_init(on_log, NULL, ADIT_LOG_INFO);
 *         AditResult result = adit_tunnel_new(configuration, strlen(configuration), NULL, on_event, NULL, &tunnel);
 *         if (result != ADIT_OK)
 *             return result;
 *         result = adit_tunnel_start_callbacks(tunnel, on_packets, NULL);
 *         // What finds no room, or comes while the tunnel is not up, is dropped, as an interface would.
 *         while (result == ADIT_OK && (count = read_packets(packets, 64)) > 0)
 *             adit_tunnel_inject(tunnel, packets, count, NULL, 0, &accepted);
 *         adit_tunnel_stop(tunnel, 1, 5000);
 *         adit_tunnel_free(tunnel);
 *         return result;
 *     }
 */

#ifndef ADIT_H
#define ADIT_H

/* Made by cbindgen of the declarations in ffi/src; `ADIT_BLESS=1 cargo test -p adit-ffi --test header` writes it anew. */

#include <stddef.h>
#include <stdint.h>

/**
 * The version of the interface that this header describes.
 *
 * It changes only when something in here changes its meaning; what is added at the end of a struct or a list of numbers
 * does not change it. Compare it with what `adit_abi_version` returns.
 */
#define ADIT_ABI_VERSION 1u

/**
 * No lines at all.
 */
#define ADIT_LOG_OFF 0u

/**
 * What failed.
 */
#define ADIT_LOG_ERROR 1u

/**
 * What works, but not as it was meant to.
 */
#define ADIT_LOG_WARNING 2u

/**
 * Changes of state; no addresses and no names.
 */
#define ADIT_LOG_INFO 3u

/**
 * Everything that helps to find a fault, addresses included.
 */
#define ADIT_LOG_DEBUG 4u

/**
 * Every packet.
 */
#define ADIT_LOG_TRACE 5u

/**
 * A configuration in the format of wg(8) and wg-quick(8).
 */
#define ADIT_FORMAT_CONF 0u

/**
 * A configuration in TOML.
 */
#define ADIT_FORMAT_TOML 1u

/**
 * A configuration in JSON.
 */
#define ADIT_FORMAT_JSON 2u

/**
 * A start goes on without a handshake: the settings are applied although no peer may ever answer.
 */
#define ADIT_OPTION_HANDSHAKE_OPTIONAL 1u

/**
 * UDP sockets are bound to the interface that `adit_tunnel_path_changed` names. An app extension does not need it: the
 * system keeps a provider's own traffic out of its tunnel.
 */
#define ADIT_OPTION_BIND_TO_PATH 2u

/**
 * The tunnel's state has changed to the event's `state`.
 */
#define ADIT_EVENT_STATE 1u

/**
 * A start is done; `result` says how. Exactly one for each call of a start function that returned `ADIT_OK`.
 *
 * JSON: `{"event":"started","error":null}`, or an error as `{"code":"peer-timeout","message":"…"}`.
 */
#define ADIT_EVENT_STARTED 2u

/**
 * Apply the settings in the JSON and answer with `adit_tunnel_settings_applied` or `adit_tunnel_settings_failed` and the
 * event's `generation`, from here or later from any thread. Packets are taken from now on.
 *
 * JSON: `{"event":"settings","generation":1,"settings":{…}}`; the settings are described at `adit_tunnel_settings`.
 */
#define ADIT_EVENT_SETTINGS 3u

/**
 * A session with a peer is up or was renewed.
 *
 * JSON: `{"event":"handshake","peer":"base64","round_trip_ms":1.2,"first":true}`; `round_trip_ms` may be null.
 */
#define ADIT_EVENT_HANDSHAKE 4u

/**
 * A peer does not answer.
 *
 * JSON: `{"event":"handshake-timed-out","peer":"base64","retry_in_ms":5000.0}`; `retry_in_ms` may be null.
 */
#define ADIT_EVENT_HANDSHAKE_TIMED_OUT 5u

/**
 * A peer is reached at another address now. JSON: `{"event":"roamed","peer":"base64"}`.
 */
#define ADIT_EVENT_ROAMED 6u

/**
 * After `adit_tunnel_inject` took fewer packets than it was given there is room again.
 */
#define ADIT_EVENT_ROOM 7u

/**
 * Something worth a line in the log. JSON: `{"event":"warning","code":"clock-behind","message":"…"}`.
 */
#define ADIT_EVENT_WARNING 8u

/**
 * An update is done; `result` says how, and the tunnel goes on as before if it failed. Exactly one for each call of
 * `adit_tunnel_update` that returned `ADIT_OK` on a running tunnel. JSON as with `ADIT_EVENT_STARTED`.
 */
#define ADIT_EVENT_UPDATED 9u

/**
 * The device is awake again, and the tunnel goes on.
 */
#define ADIT_EVENT_RESUMED 10u

/**
 * The tunnel has ended, by a stop or by itself; `result` is `ADIT_OK` after a stop. Exactly one for each start that
 * succeeded; the last event until the next start.
 *
 * JSON: `{"event":"stopped","reason":1,"error":null}`; the reason is an NEProviderStopReason.
 */
#define ADIT_EVENT_STOPPED 11u

/**
 * Not started, or stopped.
 */
#define ADIT_STATE_IDLE 0u

/**
 * The names of the peers' endpoints are looked up.
 */
#define ADIT_STATE_RESOLVING 1u

/**
 * A first handshake is awaited.
 */
#define ADIT_STATE_HANDSHAKING 2u

/**
 * The host is asked to apply the settings.
 */
#define ADIT_STATE_APPLYING_SETTINGS 3u

/**
 * Up.
 */
#define ADIT_STATE_UP 4u

/**
 * Up, but the way to the peers has changed or is lost.
 */
#define ADIT_STATE_REASSERTING 5u

/**
 * Everything is let go of.
 */
#define ADIT_STATE_STOPPING 6u

/**
 * Packets that one call may inject.
 */
#define ADIT_MAX_PACKETS 4096

/**
 * Tunnels that one process may have at a time.
 */
#define ADIT_MAX_TUNNELS 64

/**
 * The descriptor stays the host's, who closes it whenever it likes: Adit works on a duplicate.
 */
#define ADIT_FD_BORROWED 0u

/**
 * The descriptor is given away: it is closed as soon as the call succeeds, and Adit works on a duplicate. If the call
 * fails, it is still the host's.
 */
#define ADIT_FD_OWNED 1u

/**
 * Packets have no header (a tun device of Linux with IFF_NO_PI).
 */
#define ADIT_FRAMING_RAW 0u

/**
 * Packets have the protocol family in front, four bytes in network byte order (Apple's utun).
 */
#define ADIT_FRAMING_UTUN 1u

/**
 * The path leads somewhere (`NWPath.status` is satisfied).
 */
#define ADIT_PATH_SATISFIED 1u

/**
 * The path costs money (`NWPath.isExpensive`).
 */
#define ADIT_PATH_EXPENSIVE 2u

/**
 * The user asked for little traffic (`NWPath.isConstrained`).
 */
#define ADIT_PATH_CONSTRAINED 4u

/**
 * The path has IPv4 (`NWPath.supportsIPv4`).
 */
#define ADIT_PATH_IPV4 8u

/**
 * The path has IPv6 (`NWPath.supportsIPv6`).
 */
#define ADIT_PATH_IPV6 16u

/**
 * The path is a cable to a developer's machine, which leads nowhere (SIOCGIFDIRECTLINK, Apple's TN3158).
 */
#define ADIT_PATH_DIRECT_LINK 32u

/**
 * A snapshot shows everything but private and preshared keys, which are never shown.
 */
#define ADIT_REDACT_SECRETS 0u

/**
 * A snapshot shows no addresses, names and public keys either, so that a user can send it to a stranger.
 */
#define ADIT_REDACT_ADDRESSES 1u

/**
 * What every function that can fail returns: `ADIT_OK`, or one of the `ADIT_ERROR_…` codes.
 *
 * Treat a code that you do not know as `ADIT_ERROR_INTERNAL`: later versions add some.
 */
typedef uint32_t AditResult;

/**
 * A text that Adit made and that is yours: UTF-8, with a NUL behind it that `length` does not count.
 *
 * Give it back with `adit_text_free`, once. A function that fails does not touch it.
 */
typedef struct {
    /**
     * The first byte.
     */
    char *data;
    /**
     * Bytes without the NUL.
     */
    size_t length;
} AditText;

/**
 * Takes the lines of the log.
 *
 * Thread: the thread "adit-log", of which there is one per process, one call at a time. No lock is held: it may call any
 * function of this header, and it may block; lines that find no room in the queue meanwhile are counted and the number is
 * told in a line of its own. It must return: no C++ exception and no longjmp may leave it. Ownership: the texts are the
 * library's. Lifetime: until the callback returns. Errors: none.
 *
 * `level` is one of `ADIT_LOG_ERROR` to `ADIT_LOG_TRACE`, `target` the part of Adit that speaks ("adit_tun::pump"), and
 * `message` one line of up to 1024 bytes of UTF-8 with a NUL behind it. No line has a secret in it.
 */
typedef void (*AditLogCallback)(void *context,
                                uint32_t level,
                                const char *target,
                                const char *message,
                                size_t message_length);

/**
 * What a host may choose when it makes a tunnel. Set all of it to 0, then `size` to `sizeof(AditOptions)`, then what you
 * want: every 0 is the default.
 *
 * A library accepts the struct of an older header; that of a newer one too, as long as the fields that the library does
 * not know are 0. Sizes below the first version's, 56 bytes on 64-bit systems, are refused.
 */
typedef struct {
    /**
     * `sizeof(AditOptions)`.
     */
    size_t size;
    /**
     * One of `ADIT_FORMAT_…`: how this tunnel's configurations are written.
     */
    uint32_t format;
    /**
     * `ADIT_OPTION_…`, added up. Bits without a meaning must be 0.
     */
    uint32_t flags;
    /**
     * Milliseconds that the peers' names may take to resolve; default 10 000.
     */
    uint32_t resolve_ms;
    /**
     * Milliseconds that the first handshake may take; default 10 000.
     */
    uint32_t handshake_ms;
    /**
     * Milliseconds that the host may take to apply the settings; default 10 000.
     */
    uint32_t settings_ms;
    /**
     * Milliseconds that the start as a whole may take; default 30 000.
     */
    uint32_t start_ms;
    /**
     * MTU in bytes if the configuration names none, from 576 to 65535; default 1280 on iOS, else 1420.
     */
    uint32_t default_mtu;
    /**
     * Always 0.
     */
    uint32_t reserved;
    /**
     * The tunnel's name in the log and in diagnostics, UTF-8 with a NUL behind it, up to 64 bytes; NULL is "adit".
     */
    const char *name;
    /**
     * A folder of the host's where the peers' last addresses are remembered, so that a start succeeds while names cannot
     * be resolved; UTF-8 with a NUL behind it, up to 1024 bytes. NULL remembers nothing.
     */
    const char *state_directory;
} AditOptions;

/**
 * A tunnel. It is a number and no pointer: a stale or invented one is `ADIT_ERROR_INVALID_HANDLE` and does no harm. 0 is
 * never a tunnel; a number is not given out again after `adit_tunnel_free`.
 */
typedef uint64_t AditTunnel;

/**
 * An event. It is the library's and is valid until the callback returns: copy what you need.
 */
typedef struct {
    /**
     * The size of this struct as the library knows it; read no field that lies beyond it.
     */
    size_t size;
    /**
     * One of `ADIT_EVENT_…`; ignore kinds that you do not know.
     */
    uint32_t kind;
    /**
     * One of `ADIT_STATE_…`: the state that the event tells, or the tunnel's state when it was told.
     */
    uint32_t state;
    /**
     * How what was asked for went (`ADIT_EVENT_STARTED`, `ADIT_EVENT_UPDATED`), or why the tunnel ended
     * (`ADIT_EVENT_STOPPED`); `ADIT_OK` in other events.
     */
    AditResult result;
    /**
     * Always 0.
     */
    uint32_t reserved;
    /**
     * Number of the settings (`ADIT_EVENT_SETTINGS`); 0 in other events.
     */
    uint64_t generation;
    /**
     * The whole event as an object of JSON, UTF-8, with a NUL behind it; never NULL.
     */
    const char *json;
    /**
     * Bytes of `json` without the NUL.
     */
    size_t json_length;
} AditEvent;

/**
 * Takes the events of a tunnel.
 *
 * Thread: the tunnel's thread "adit-callbacks", one call at a time, never together with a call of the packets callback.
 * What is still to be told when a callback stops its own tunnel is told from inside of that call, on the same thread.
 * No lock is held: it may call any function of this header, and it may block, which delays the tunnel's other callbacks
 * and nothing else. It must return: no C++ exception and no longjmp may leave it. Ownership: `event` and all that it
 * points to are the library's. Lifetime: until the callback returns. Errors: none.
 */
typedef void (*AditEventCallback)(void *context, AditTunnel tunnel, const AditEvent *event);

/**
 * Bytes that belong to somebody else.
 */
typedef struct {
    /**
     * The first byte.
     */
    const uint8_t *data;
    /**
     * How many there are.
     */
    size_t length;
} AditSlice;

/**
 * Takes IP packets that came out of a tunnel: `count` packets, at least one, and as many protocol families (AF_INET or
 * AF_INET6 of the system that the library was built for). The arrays are those of
 * `NEPacketTunnelFlow.writePackets(_:withProtocols:)`.
 *
 * Thread: the tunnel's thread "adit-callbacks", as with `AditEventCallback`. Ownership: the arrays and the packets are
 * the library's. Lifetime: until the callback returns; copy what you keep. Errors: none; what the host cannot write is
 * lost, as on any interface.
 */
typedef void (*AditPacketsCallback)(void *context,
                                    AditTunnel tunnel,
                                    const AditSlice *packets,
                                    const int32_t *families,
                                    size_t count);

/**
 * Numbers of a tunnel. Counters begin at zero with each start.
 *
 * Set `size` to `sizeof(AditStats)` before the call: a library that knows fewer fields than your header sets the others
 * to zero, one that knows more leaves them out.
 */
typedef struct {
    /**
     * `sizeof(AditStats)`, set by you; not changed.
     */
    size_t size;
    /**
     * One of `ADIT_STATE_…`.
     */
    uint32_t state;
    /**
     * Always 0.
     */
    uint32_t reserved;
    /**
     * Milliseconds since the tunnel came up; 0 if it is not up.
     */
    uint64_t uptime_ms;
    /**
     * Bytes of UDP payload sent.
     */
    uint64_t tx_bytes;
    /**
     * Bytes of UDP payload received.
     */
    uint64_t rx_bytes;
    /**
     * IP packets taken from the host and sent encrypted.
     */
    uint64_t packets_out;
    /**
     * IP packets received, decrypted and given to the host.
     */
    uint64_t packets_in;
    /**
     * Packets and datagrams that went nowhere, for whatever reason.
     */
    uint64_t drops;
    /**
     * Calls of `adit_tunnel_inject` that were refused with `ADIT_ERROR_PACKET`; of the tunnel's whole life.
     */
    uint64_t inject_refused;
    /**
     * Injected packets that found no room.
     */
    uint64_t inject_no_room;
    /**
     * Packets for the host that found no room because it did not keep up.
     */
    uint64_t output_dropped;
    /**
     * Times that the host was called; of the tunnel's whole life.
     */
    uint64_t callbacks;
    /**
     * Handshake messages sent.
     */
    uint64_t handshakes;
    /**
     * Milliseconds since the newest handshake; UINT64_MAX if there was none.
     */
    uint64_t last_handshake_age_ms;
    /**
     * Round trip of the newest handshake in microseconds; UINT64_MAX if it is not known.
     */
    uint64_t handshake_rtt_us;
    /**
     * Bytes that are allocated for packets.
     */
    uint64_t packet_memory_bytes;
    /**
     * The most that may be allocated for packets.
     */
    uint64_t packet_memory_budget;
    /**
     * Bytes of packets that wait: for a handshake, for the tunnel, or for the host.
     */
    uint64_t queued_bytes;
    /**
     * Sockets made.
     */
    uint64_t sockets_created;
    /**
     * Sockets made anew because the network changed or they were broken.
     */
    uint64_t rebinds;
    /**
     * How often the packet loop slept and was woken.
     */
    uint64_t wakeups;
} AditStats;

/**
 * The 32 bytes of a private, public or preshared key. Wipe a secret one with `adit_key_wipe` when you are done with it.
 */
typedef struct {
    /**
     * The bytes, in the order of RFC 7748.
     */
    uint8_t bytes[32];
} AditKey;

/**
 * A key in base64, as configurations have it: 44 characters and a NUL. It is as secret as the key.
 */
typedef struct {
    /**
     * The characters and the NUL.
     */
    char text[45];
} AditKeyText;

/**
 * Success.
 */
#define ADIT_OK 0u

/**
 * A pointer that must not be NULL is NULL.
 */
#define ADIT_ERROR_NULL_POINTER 6101u

/**
 * An argument has a value that the function does not know or allow, or two arguments contradict each other.
 */
#define ADIT_ERROR_INVALID_ARGUMENT 6102u

/**
 * A text is not UTF-8, or has a NUL inside.
 */
#define ADIT_ERROR_INVALID_UTF8 6103u

/**
 * The `size` of a struct is none that a version of this header could have, or says that fields are set that this
 * version does not know.
 */
#define ADIT_ERROR_INVALID_SIZE 6104u

/**
 * The handle is 0, was never handed out, or is of a tunnel that was freed.
 */
#define ADIT_ERROR_INVALID_HANDLE 6105u

/**
 * The tunnel failed inside (see `ADIT_ERROR_PANIC`); it can only be stopped and freed.
 */
#define ADIT_ERROR_POISONED 6106u

/**
 * Adit has a bug: the call was ended where it found itself in a state that cannot be. It is told once; the tunnel
 * is poisoned.
 */
#define ADIT_ERROR_PANIC 6107u

/**
 * The call is not allowed in the state that the tunnel is in.
 */
#define ADIT_ERROR_INVALID_STATE 6108u

/**
 * The tunnel is started already, or is still being stopped.
 */
#define ADIT_ERROR_ALREADY_RUNNING 6109u

/**
 * A text or a batch is larger than what is accepted in one call.
 */
#define ADIT_ERROR_TOO_LARGE 6110u

/**
 * There are `ADIT_MAX_TUNNELS` tunnels already.
 */
#define ADIT_ERROR_TOO_MANY 6111u

/**
 * The configuration cannot be used; `adit_configuration_check` says why.
 */
#define ADIT_ERROR_CONFIGURATION 6112u

/**
 * The name of an endpoint could not be resolved.
 */
#define ADIT_ERROR_RESOLVE 6113u

/**
 * A UDP socket could not be opened, or not be bound to its port or interface.
 */
#define ADIT_ERROR_SOCKET 6114u

/**
 * No peer answered the handshake in time.
 */
#define ADIT_ERROR_PEER_TIMEOUT 6115u

/**
 * The host did not answer the event `ADIT_EVENT_SETTINGS` in time.
 */
#define ADIT_ERROR_SETTINGS_TIMEOUT 6116u

/**
 * The host said, by `adit_tunnel_settings_failed`, that it could not apply the settings.
 */
#define ADIT_ERROR_SETTINGS_REJECTED 6117u

/**
 * The start as a whole took too long.
 */
#define ADIT_ERROR_START_TIMEOUT 6118u

/**
 * The tunnel was stopped before what was asked for was done.
 */
#define ADIT_ERROR_STOPPED 6119u

/**
 * The descriptor is closed, is no tun device, or frames its packets in another way than was said.
 */
#define ADIT_ERROR_DEVICE 6120u

/**
 * The descriptor failed or was closed while the tunnel was running.
 */
#define ADIT_ERROR_DEVICE_LOST 6121u

/**
 * The deadline of the call passed before it was done.
 */
#define ADIT_ERROR_TIMEOUT 6122u

/**
 * The tunnel's queue of commands is full, or another call of the same kind is under way; try again later.
 */
#define ADIT_ERROR_BUSY 6123u

/**
 * What the call answers is no longer asked: its generation is not the newest.
 */
#define ADIT_ERROR_STALE 6124u

/**
 * A packet is empty, longer than 65535 bytes, neither IPv4 nor IPv6, or contradicts its protocol family; nothing
 * of the batch was taken.
 */
#define ADIT_ERROR_PACKET 6125u

/**
 * The text is not a key: 44 characters of base64, or 64 hexadecimal digits.
 */
#define ADIT_ERROR_KEY 6126u

/**
 * The operating system refused something; the log says what.
 */
#define ADIT_ERROR_SYSTEM 6127u

/**
 * Something failed inside that is none of the above; the log says what.
 */
#define ADIT_ERROR_INTERNAL 6128u

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The library's version, such as "0.1.0".
 *
 * Thread: any. Ownership: the text is the library's; do not free it. Lifetime: valid as long as the library is loaded.
 * Errors: none; never NULL.
 */
const char *adit_version(void);

/**
 * The version of the interface that the library was built with: the `ADIT_ABI_VERSION` of its header.
 *
 * Thread: any. Ownership: nothing. Lifetime: does not change. Errors: none.
 */
uint32_t adit_abi_version(void);

/**
 * Says in one English sentence what a result code means, for a log.
 *
 * Thread: any. Ownership: the text is the library's; do not free it. Lifetime: valid as long as the library is loaded.
 * Errors: none; a code that this version does not know has a text too, and NULL is never returned.
 */
const char *adit_error_message(AditResult result);

/**
 * Gives a text of Adit's back, and sets the struct to NULL and 0, so that doing it twice is harmless.
 *
 * Thread: any. Ownership: takes the text; copies of the struct must not be used any more. Lifetime: the text is gone
 * when it returns. Errors: none; NULL, and a text that is NULL, are ignored.
 */
void adit_text_free(AditText *text);

/**
 * Says where the log of this process goes, and how much of it. Without this call there is none.
 *
 * `level` is one of `ADIT_LOG_…`. Call it again to change either; a NULL callback ends the log. When it returns, the
 * former callback has seen the lines that were queued for it, has returned and is not called again, so its context can be
 * freed. Called from within the log callback it does not wait for that very call, which is the former callback's last.
 *
 * Thread: any; not while holding a lock that the former callback waits for. Ownership: `context` stays yours. Lifetime:
 * `callback` and `context` must be valid until another `adit_init` has returned. Errors: INVALID_ARGUMENT for an unknown
 * level; INVALID_STATE if the process's own Rust code traces to somewhere else; SYSTEM if there is no thread.
 */
AditResult adit_init(AditLogCallback callback,
                     void *context,
                     uint32_t level);

/**
 * Checks a configuration and says all that is wrong with it, and where: the why of `ADIT_ERROR_CONFIGURATION`. Nothing
 * of a secret's value is told.
 *
 * `format` is one of `ADIT_FORMAT_…`. The result is `ADIT_OK` for an invalid configuration too; the text says:
 * `{"valid":false,"omitted":0,"diagnostics":[{"severity":"error","file":"configuration","line":3,"column":1,`
 * `"key":"Adress","message":"…","suggestion":"Address"}]}`. Severities are "error" and "warning"; `line`, `column`,
 * `key`, `found`, `allowed` and `suggestion` may be missing; `omitted` counts what was found beyond the first thousand.
 *
 * Thread: any. Ownership: `text` stays yours, `out` becomes yours (`adit_text_free`). Lifetime: none beyond the call.
 * Errors: NULL_POINTER; INVALID_ARGUMENT for an unknown format; INVALID_UTF8; TOO_LARGE above 16 MiB; SYSTEM if there
 * is no memory.
 */
AditResult adit_configuration_check(const char *text,
                                    size_t length,
                                    uint32_t format,
                                    AditText *out);

/**
 * Makes a tunnel of a configuration. It does nothing until it is started; no event comes before that.
 *
 * `options` may be NULL for the defaults, a configuration in the format of wg-quick(8) among them. `callback` must not be
 * NULL: who does not answer `ADIT_EVENT_SETTINGS` has no tunnel.
 *
 * Thread: any. Ownership: the texts and the options stay yours and are copied; `context` stays yours. The tunnel is yours
 * until `adit_tunnel_free`. Lifetime: `callback` and `context` must be valid until `adit_tunnel_free` has returned
 * `ADIT_OK`. Errors: NULL_POINTER; INVALID_SIZE and INVALID_ARGUMENT for the options; INVALID_UTF8; TOO_LARGE for a
 * configuration above 16 MiB and options' texts that are too long; CONFIGURATION, of which `adit_configuration_check`
 * knows more; TOO_MANY above `ADIT_MAX_TUNNELS`; SYSTEM if there are no threads.
 */
AditResult adit_tunnel_new(const char *configuration,
                           size_t length,
                           const AditOptions *options,
                           AditEventCallback callback,
                           void *context,
                           AditTunnel *out);

/**
 * Stops a tunnel, if it runs, and frees it. The handle is invalid at once, for calls of other threads too; calls that are
 * under way end as after a stop.
 *
 * When it returns `ADIT_OK`, no callback of the tunnel runs and none will, so the context can be freed. Called from
 * within a callback of the same tunnel, what is still to be told is told from inside, and that callback is the last.
 *
 * Thread: any, callbacks included; not while holding a lock that a callback waits for. Ownership: takes the tunnel, whatever
 * it returns. Lifetime: the tunnel's descriptors, sockets, threads and memory are gone when it returns `ADIT_OK`; called
 * from within a callback, the thread of that callback ends after it. Errors: INVALID_HANDLE; TIMEOUT if a callback has
 * not returned within five seconds: none begins any more, but that one still uses the context.
 */
AditResult adit_tunnel_free(AditTunnel tunnel);

/**
 * Starts a tunnel with packets from a tun device: resolves the peers' names, opens sockets, waits for a handshake, asks
 * for the settings with `ADIT_EVENT_SETTINGS` and is up when they are applied. It returns at once;
 * `ADIT_EVENT_STARTED` tells how it went, exactly once for every call that returned `ADIT_OK`.
 *
 * `ownership` is one of `ADIT_FD_…`, `framing` one of `ADIT_FRAMING_…`. While the tunnel runs, the descriptor does not
 * block; a borrowed one is set back at the end.
 *
 * Thread: any, callbacks included. Ownership: see `ADIT_FD_BORROWED` and `ADIT_FD_OWNED`. Lifetime: the duplicate is
 * closed by the end of the run. Errors: INVALID_HANDLE; POISONED; INVALID_ARGUMENT; DEVICE if the descriptor is closed, is
 * no tun device or frames packets otherwise; ALREADY_RUNNING; INVALID_STATE while it is being stopped; BUSY; SYSTEM.
 */
AditResult adit_tunnel_start_fd(AditTunnel tunnel,
                                int32_t fd,
                                uint32_t ownership,
                                uint32_t framing);

/**
 * Starts a tunnel as `adit_tunnel_start_fd` does, with packets from `adit_tunnel_inject` and for `callback`.
 *
 * Thread: any, callbacks included. Ownership: `context` stays yours. Lifetime: `callback` and `context` must be valid
 * until `ADIT_EVENT_STARTED` told a failure, or until `adit_tunnel_stop` or `adit_tunnel_free` has returned `ADIT_OK`.
 * Errors: INVALID_HANDLE; POISONED; NULL_POINTER without a callback; ALREADY_RUNNING; INVALID_STATE while it is being
 * stopped; BUSY.
 */
AditResult adit_tunnel_start_callbacks(AditTunnel tunnel,
                                       AditPacketsCallback callback,
                                       void *context);

/**
 * Gives a descriptor to a tunnel that was started with `adit_tunnel_start_callbacks`, most often in answer to
 * `ADIT_EVENT_SETTINGS`: only when an NEPacketTunnelProvider has applied its settings, the system's utun device is there.
 * Packets that were injected before are still carried; those that come out of the tunnel from now on go to the
 * descriptor, and the packets callback is called at most for what was on its way.
 *
 * Thread: any, callbacks included. Ownership and lifetime: as with `adit_tunnel_start_fd`. Errors: INVALID_HANDLE;
 * POISONED; INVALID_ARGUMENT; DEVICE; INVALID_STATE before `ADIT_EVENT_SETTINGS`, after the end, and if the tunnel has a
 * descriptor; BUSY; SYSTEM.
 */
AditResult adit_tunnel_attach_fd(AditTunnel tunnel,
                                 int32_t fd,
                                 uint32_t ownership,
                                 uint32_t framing);

/**
 * Stops a tunnel, in whatever state, and waits until that is done: sockets and device are closed, the last event is
 * told, and no callback runs or will run until the next start. It may be called as often as you like; the first reason is
 * kept. A stopped tunnel can be started again.
 *
 * `reason` is an NEProviderStopReason (0 none, 1 the user); numbers that Adit does not know are kept too. Called from
 * within a callback of the same tunnel, what is still to be told (`ADIT_EVENT_STARTED` with STOPPED,
 * `ADIT_EVENT_STOPPED`) is told from inside, before it returns.
 *
 * Thread: any, callbacks included; not while holding a lock that a callback waits for. Ownership: nothing. Lifetime: once
 * it returned `ADIT_OK`, the packets callback's context can be freed. Errors: INVALID_HANDLE; TIMEOUT if a callback has
 * not returned within `deadline_ms`: the tunnel ends nevertheless and no new callback begins, but that one still runs;
 * BUSY if until then more calls of other threads waited than are kept, and nothing was done. A poisoned tunnel can be
 * stopped like any other.
 */
AditResult adit_tunnel_stop(AditTunnel tunnel,
                            uint32_t reason,
                            uint32_t deadline_ms);

/**
 * Gives IP packets to a tunnel that was started with `adit_tunnel_start_callbacks`: the arrays of
 * `NEPacketTunnelFlow.readPackets`. `families` are AF_INET or AF_INET6 of the system that the library was built for; it
 * may be NULL with a `family_count` of 0, else `family_count` must be `packet_count`.
 *
 * `out_accepted` is how many were taken, from the first on. Fewer than `packet_count` means that there is no room:
 * `ADIT_EVENT_ROOM` tells when there is some; inject the rest then, or drop it as an interface would. A packet that is
 * empty, longer than 65535 bytes, neither IPv4 nor IPv6, or contradicts its family makes the whole call fail.
 *
 * Thread: any, callbacks included; packets of several threads are taken in the order of their calls. Ownership: arrays and
 * packets stay yours and are copied. Lifetime: none beyond the call. Errors: INVALID_HANDLE; POISONED; NULL_POINTER;
 * INVALID_ARGUMENT for 0 packets and for a `family_count` that disagrees; TOO_LARGE above `ADIT_MAX_PACKETS`; PACKET, and
 * nothing was taken; INVALID_STATE if no packets are taken: they are from `ADIT_EVENT_SETTINGS` until
 * the tunnel ends, or has a descriptor.
 */
AditResult adit_tunnel_inject(AditTunnel tunnel,
                              const AditSlice *packets,
                              size_t packet_count,
                              const int32_t *families,
                              size_t family_count,
                              size_t *out_accepted);

/**
 * Says that the host has applied the settings that `ADIT_EVENT_SETTINGS` asked for with this generation.
 *
 * Thread: any, callbacks included. Ownership: nothing. Lifetime: none beyond the call. Errors: INVALID_HANDLE; POISONED;
 * STALE if nobody waits for that answer any more; BUSY.
 */
AditResult adit_tunnel_settings_applied(AditTunnel tunnel,
                                        uint64_t generation);

/**
 * Says that the host could not apply the settings, and why. A start ends with SETTINGS_REJECTED then, an update is taken
 * back. `message` is a text of up to 4096 bytes for the error's JSON and may be NULL if `length` is 0.
 *
 * Thread: any, callbacks included. Ownership: `message` stays yours. Lifetime: none beyond the call. Errors:
 * INVALID_HANDLE; POISONED; NULL_POINTER; INVALID_UTF8; TOO_LARGE; STALE if nobody waits for that answer any more; BUSY.
 */
AditResult adit_tunnel_settings_failed(AditTunnel tunnel,
                                       uint64_t generation,
                                       const char *message,
                                       size_t length);

/**
 * Gives a tunnel another configuration, in the format that it was made with. A running tunnel keeps the sessions of peers
 * whose keys stay the same, asks for other settings with `ADIT_EVENT_SETTINGS` if they have changed, and tells with
 * `ADIT_EVENT_UPDATED` how it went. One that is not started only remembers it, and tells nothing.
 *
 * Thread: any, callbacks included. Ownership: the text stays yours and is copied. Lifetime: none beyond the call. Errors:
 * INVALID_HANDLE; POISONED; NULL_POINTER; INVALID_UTF8; TOO_LARGE above 16 MiB; CONFIGURATION; INVALID_STATE while it
 * starts or stops; BUSY during another update.
 */
AditResult adit_tunnel_update(AditTunnel tunnel,
                              const char *configuration,
                              size_t length);

/**
 * Says which network lies below the tunnel now. Reports may repeat themselves and come in bursts; the tunnel waits until
 * the network stands still, then makes new sockets and reaches its peers by the new way.
 *
 * `interface_index` is that of the path's first interface, 0 if it is not known. `functional_type` is that of
 * SIOCGIFFUNCTIONALTYPE (`IFRTYPE_FUNCTIONAL_…`: 0 unknown, 1 loopback, 2 wired, 3 Wi-Fi, 4 AWDL, 5 cellular, 6
 * coprocessor, 7 companion link, 8 management); others count as unknown. `flags` are `ADIT_PATH_…`, added up.
 *
 * Thread: any, callbacks included. Ownership: nothing. Lifetime: the tunnel remembers the report, also before a start.
 * Errors: INVALID_HANDLE; POISONED; INVALID_ARGUMENT for bits in `flags` that have no meaning; BUSY.
 */
AditResult adit_tunnel_path_changed(AditTunnel tunnel,
                                    uint32_t interface_index,
                                    uint32_t functional_type,
                                    uint32_t flags);

/**
 * Says that the device is about to sleep: timers rest until `adit_tunnel_wake`. Without effect on a tunnel that does not
 * run.
 *
 * Thread: any, callbacks included. Ownership: nothing. Lifetime: none beyond the call. Errors: INVALID_HANDLE; POISONED;
 * BUSY.
 */
AditResult adit_tunnel_sleep(AditTunnel tunnel);

/**
 * Says that the device woke. The tunnel looks after its peers once the device stays awake, and tells with
 * `ADIT_EVENT_RESUMED` that it goes on. Without effect on a tunnel that does not run.
 *
 * Thread: any, callbacks included. Ownership: nothing. Lifetime: none beyond the call. Errors: INVALID_HANDLE; POISONED;
 * BUSY.
 */
AditResult adit_tunnel_wake(AditTunnel tunnel);

/**
 * Tells the settings that the host must apply for the configuration in force, as JSON. A running tunnel asks for them with
 * `ADIT_EVENT_SETTINGS`, with the same content; this is for who wants to look before.
 *
 * `{"addresses":["10.0.0.2/32"],"included_routes":["0.0.0.0/0"],"excluded_routes":[],"dns":{"servers":["10.0.0.1"],`
 * `"match_domains":[""],"search_domains":[],"match_domains_no_search":false},"mtu":1280,"remote_address":"192.0.2.1",`
 * `"exclude_local_networks":null,"warnings":[{"code":"ipv6-default-missing","message":"…"}]}`. `dns` may be null, and
 * `exclude_local_networks` null, true or false; before the names are resolved, `remote_address` is "127.0.0.1".
 *
 * Thread: any, callbacks included. Ownership: `out` becomes yours (`adit_text_free`). Lifetime: none beyond the call.
 * Errors: INVALID_HANDLE; POISONED; NULL_POINTER; SYSTEM if there is no memory.
 */
AditResult adit_tunnel_settings(AditTunnel tunnel,
                                AditText *out);

/**
 * Tells the tunnel's numbers. `stats->size` must be set; see `AditStats`. It costs little and can be asked every second.
 *
 * Thread: any, callbacks included. Ownership: `stats` stays yours. Lifetime: none beyond the call. Errors: INVALID_HANDLE;
 * POISONED; NULL_POINTER; INVALID_SIZE; TIMEOUT if the packet loop does not answer.
 */
AditResult adit_tunnel_stats(AditTunnel tunnel,
                             AditStats *stats);

/**
 * Tells everything that helps to understand what the tunnel does, and did, as JSON for a person or a support tool: its
 * shape may change with any version. `redaction` is one of `ADIT_REDACT_…`.
 *
 * Thread: any, callbacks included. Ownership: `out` becomes yours (`adit_text_free`). Lifetime: none beyond the call.
 * Errors: INVALID_HANDLE; POISONED; NULL_POINTER; INVALID_ARGUMENT for an unknown redaction; BUSY; TIMEOUT; SYSTEM if
 * there is no memory.
 */
AditResult adit_tunnel_snapshot(AditTunnel tunnel,
                                uint32_t redaction,
                                AditText *out);

/**
 * Makes a private key of the system's random numbers.
 *
 * Thread: any. Ownership: `out` is yours; it is secret. Lifetime: none beyond the call. Errors: NULL_POINTER; SYSTEM if
 * there are no random numbers.
 */
AditResult adit_key_generate_private(AditKey *out);

/**
 * Makes a preshared key of the system's random numbers.
 *
 * Thread: any. Ownership: `out` is yours; it is secret. Lifetime: none beyond the call. Errors: NULL_POINTER; SYSTEM if
 * there are no random numbers.
 */
AditResult adit_key_generate_preshared(AditKey *out);

/**
 * Derives the public key that belongs to a private one. `out` may be the same place as `private_key`.
 *
 * Thread: any. Ownership: both are yours. Lifetime: none beyond the call. Errors: NULL_POINTER.
 */
AditResult adit_key_public(const AditKey *private_key, AditKey *out);

/**
 * Reads a key from base64: 44 characters, with white space around them or without.
 *
 * Thread: any. Ownership: both are yours. Lifetime: none beyond the call. Errors: NULL_POINTER; INVALID_UTF8; TOO_LARGE
 * above 4096 bytes; KEY if it is no key.
 */
AditResult adit_key_from_base64(const char *text,
                                size_t length,
                                AditKey *out);

/**
 * Reads a key from hexadecimal: 64 digits of either case.
 *
 * Thread: any. Ownership: both are yours. Lifetime: none beyond the call. Errors: NULL_POINTER; INVALID_UTF8; TOO_LARGE
 * above 4096 bytes; KEY if it is no key.
 */
AditResult adit_key_from_hex(const char *text,
                             size_t length,
                             AditKey *out);

/**
 * Writes a key as base64.
 *
 * Thread: any. Ownership: both are yours; the text is as secret as the key. Lifetime: none beyond the call. Errors:
 * NULL_POINTER.
 */
AditResult adit_key_to_base64(const AditKey *key,
                              AditKeyText *out);

/**
 * Overwrites a key with zeros in a way that a compiler does not leave out.
 *
 * Thread: any. Ownership: the key stays yours. Lifetime: none beyond the call. Errors: none; NULL is ignored.
 */
void adit_key_wipe(AditKey *key);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ADIT_H */
