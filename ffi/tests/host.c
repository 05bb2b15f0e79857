/*
 * A small VPN host in C: what a program that embeds Adit does, and what it must not get away with.
 *
 * `host NAME…` runs scenarios one after the other, `host --list` names them. Exit codes: 0 if every promise of adit.h held,
 * 1 if one did not, 77 if the machine lacks something, 2 for a mistake on the command line. Options come first:
 *
 *   --seconds S     how long traffic flows (1)          --rounds N    how often something is repeated (10)
 *   --seed N        of what is random (1)               --unmeasured  memory and speed mean nothing here
 *   --config FILE, --device NAME, --owned, --late       for `tun`
 *
 * `cargo xtask host` compiles it against the static and the shared library and runs it plainly, under sanitizers and valgrind.
 */
#include "host/host.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    const char *what;
    void (*run)(const Options *options);
} SCENARIOS[] = {
    {"pair", "two tunnels over loopback: packets, readings, updates, paths, sleep, stops", scenario_pair},
    {"arguments", "every function with every invalid argument", scenario_arguments},
    {"limits", "a configuration of 10 MB, 100 000 routes, too many packets and tunnels", scenario_limits},
    {"order", "every function in every state", scenario_order},
    {"threads", "random calls on shared handles from several threads", scenario_threads},
    {"callbacks", "callbacks that block, re-enter, stop and free", scenario_callbacks},
    {"log", "a log that is replaced and ended, also from within", scenario_log},
    {"panic", "a bug in the engine poisons one tunnel and nothing else", scenario_panic},
    {"churn", "starts and stops with flat memory, descriptors and threads", scenario_churn},
    {"memory", "growth of one tunnel's process under load in both directions", scenario_memory},
    {"devices", "tun descriptors of all kinds, closed and removed under the engine", scenario_devices},
    {"throughput", "packets through callbacks beside packets through descriptors", scenario_throughput},
    {"tun", "a VPN host in this namespace until SIGTERM, with --config and --device", scenario_tun},
};

enum { SCENARIO_COUNT = sizeof SCENARIOS / sizeof SCENARIOS[0] };

static void usage(const char *why)
{
    fprintf(stderr, "%s\nusage: host [--seconds S] [--rounds N] [--seed N] [--unmeasured] NAME… | --list\n", why);
    exit(2);
}

static void no_event(void *context, AditTunnel tunnel, const AditEvent *event)
{
    (void)context, (void)tunnel, (void)event;
}

/* The first tunnel of a process opens what all of them share, and keeps it. */
static void warm_up(void)
{
    static const char CONFIGURATION[] = "[Interface]\nPrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";
    AditTunnel tunnel;
    OK(adit_tunnel_new(CONFIGURATION, strlen(CONFIGURATION), NULL, no_event, NULL, &tunnel));
    OK(adit_tunnel_stop(tunnel, 0, 10000));
    OK(adit_tunnel_free(tunnel));
}

static void run(const char *name, const Options *options)
{
    unsigned index, descriptors, threads;
    double begun = now_seconds();
    for (index = 0; index < SCENARIO_COUNT && strcmp(SCENARIOS[index].name, name) != 0; index++) {
    }
    if (index == SCENARIO_COUNT) {
        usage("there is no such scenario");
    }
    printf("%s: %s\n", name, SCENARIOS[index].what);
    fflush(stdout);
    /* `memory` begins with a process that has never had a tunnel. */
    if (SCENARIOS[index].run != scenario_memory) {
        warm_up();
    }
    descriptors = open_descriptors();
    threads = running_threads();
    SCENARIOS[index].run(options);
    /* Threads that a callback has freed its own tunnel on end a moment later. */
    wait_for_threads(threads);
    CHECK(SCENARIOS[index].run == scenario_memory || open_descriptors() == descriptors, "%s leaves %u descriptors instead of %u", name, open_descriptors(),
          descriptors);
    printf("%s: ok, %.1f s\n", name, now_seconds() - begun);
    fflush(stdout);
}

static const char *value(int count, char **words, int *at)
{
    if (*at + 1 >= count) {
        usage("an option lacks its value");
    }
    return words[++*at];
}

int main(int count, char **words)
{
    Options options = {1, 10, 1, NULL, NULL, false, false, true};
    int at;
    unsigned index;
    for (at = 1; at < count && words[at][0] == '-'; at++) {
        const char *word = words[at];
        if (strcmp(word, "--seconds") == 0) {
            options.seconds = strtod(value(count, words, &at), NULL);
        } else if (strcmp(word, "--rounds") == 0) {
            options.rounds = strtoul(value(count, words, &at), NULL, 10);
        } else if (strcmp(word, "--seed") == 0) {
            options.seed = strtoul(value(count, words, &at), NULL, 10);
        } else if (strcmp(word, "--config") == 0) {
            options.configuration = value(count, words, &at);
        } else if (strcmp(word, "--device") == 0) {
            options.device = value(count, words, &at);
        } else if (strcmp(word, "--owned") == 0) {
            options.owned = true;
        } else if (strcmp(word, "--late") == 0) {
            options.late = true;
        } else if (strcmp(word, "--unmeasured") == 0) {
            options.measured = false;
        } else if (strcmp(word, "--list") == 0) {
            for (index = 0; index < SCENARIO_COUNT; index++) {
                printf("%-12s %s\n", SCENARIOS[index].name, SCENARIOS[index].what);
            }
            return 0;
        } else {
            usage("there is no such option");
        }
    }
    if (at == count) {
        usage("no scenario is named");
    }
    CHECK(adit_abi_version() == ADIT_ABI_VERSION, "the library is of another version");
    /* Threads of the library inherit this; `tun` waits for these signals itself. */
    signal(SIGPIPE, SIG_IGN);
    for (; at < count; at++) {
        run(words[at], &options);
    }
    return 0;
}
