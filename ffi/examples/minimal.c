#include <adit.h>
#include <stdio.h>
#include <string.h>

// Yours: apply the settings; write packets to the interface; read some, waiting for them, until it is closed.
int apply_settings(const char *json);
void write_packet(const uint8_t *packet, size_t length);
size_t read_packets(AditSlice *packets, size_t most);

static void on_log(void *context, uint32_t level, const char *target, const char *message, size_t length) {
    (void)context, (void)length;
    fprintf(stderr, "%u %s: %s\n", (unsigned)level, target, message);
}

static void on_event(void *context, AditTunnel tunnel, const AditEvent *event) {
    (void)context;
    if (event->kind == ADIT_EVENT_SETTINGS) {
        if (apply_settings(event->json))
            adit_tunnel_settings_applied(tunnel, event->generation);
        else
            adit_tunnel_settings_failed(tunnel, event->generation, NULL, 0);
    } else if (event->kind == ADIT_EVENT_STARTED && event->result != ADIT_OK) {
        fprintf(stderr, "no tunnel: %s\n", adit_error_message(event->result));
    }
}

static void on_packets(void *context, AditTunnel tunnel, const AditSlice *packets, const int32_t *families,
                       size_t count) {
    (void)context, (void)tunnel, (void)families;
    for (size_t i = 0; i < count; i++)
        write_packet(packets[i].data, packets[i].length);
}

AditResult run(const char *configuration) {
    AditTunnel tunnel;
    AditSlice packets[64];
    size_t count, accepted;
    adit_init(on_log, NULL, ADIT_LOG_INFO);
    AditResult result = adit_tunnel_new(configuration, strlen(configuration), NULL, on_event, NULL, &tunnel);
    if (result != ADIT_OK)
        return result;
    result = adit_tunnel_start_callbacks(tunnel, on_packets, NULL);
    // What finds no room, or comes while the tunnel is not up, is dropped, as an interface would.
    while (result == ADIT_OK && (count = read_packets(packets, 64)) > 0)
        adit_tunnel_inject(tunnel, packets, count, NULL, 0, &accepted);
    adit_tunnel_stop(tunnel, 1, 5000);
    adit_tunnel_free(tunnel);
    return result;
}
