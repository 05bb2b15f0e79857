/* The log: lines on their own thread, replaced and ended while they come, also from within a line. */
#include "host.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef struct Log {
    pthread_mutex_t lock;
    uint64_t lines, levels[6];
    bool ended;
    bool ends_itself;
    const char *secret;
    AditTunnel tunnel;
} Log;

static void on_line(void *context, uint32_t level, const char *target, const char *message, size_t length)
{
    Log *log = context;
    char name[32] = "";
    bool end;
    AditTunnel tunnel;
    pthread_getname_np(pthread_self(), name, sizeof name);
    CHECK(strcmp(name, "adit-log") == 0, "a line on the thread «%s»", name);
    CHECK(level >= ADIT_LOG_ERROR && level <= ADIT_LOG_TRACE, "level %" PRIu32, level);
    CHECK(target != NULL && target[0] != '\0', "no target");
    CHECK(message != NULL && strlen(message) == length && length <= 1024, "a line of %zu bytes", length);
    CHECK(log->secret == NULL || strstr(message, log->secret) == NULL, "a secret: %s", message);
    pthread_mutex_lock(&log->lock);
    CHECK(!log->ended, "a line after the end: %s", message);
    log->lines++;
    log->levels[level]++;
    end = log->ends_itself;
    log->ends_itself = false;
    tunnel = log->tunnel;
    pthread_mutex_unlock(&log->lock);
    if (tunnel != 0) {
        AditStats stats = {0};
        stats.size = sizeof stats;
        OK(adit_tunnel_stats(tunnel, &stats));
    }
    if (end) {
        pthread_mutex_lock(&log->lock);
        log->ended = true;
        pthread_mutex_unlock(&log->lock);
        OK(adit_init(NULL, NULL, ADIT_LOG_OFF));
    }
}

static void end(Log *log)
{
    pthread_mutex_lock(&log->lock);
    log->ended = true;
    pthread_mutex_unlock(&log->lock);
}

static Log *log_new(void)
{
    Log *log = allocate(sizeof *log);
    pthread_mutex_init(&log->lock, NULL);
    return log;
}

static void log_free(Log *log)
{
    pthread_mutex_destroy(&log->lock);
    free(log);
}

static uint64_t lines(Log *log)
{
    uint64_t count;
    pthread_mutex_lock(&log->lock);
    count = log->lines;
    pthread_mutex_unlock(&log->lock);
    return count;
}

/* Lines that the level INFO leaves out. */
static uint64_t details(Log *log)
{
    uint64_t count;
    pthread_mutex_lock(&log->lock);
    count = log->levels[ADIT_LOG_DEBUG] + log->levels[ADIT_LOG_TRACE];
    pthread_mutex_unlock(&log->lock);
    return count;
}

static void await_line(Log *log)
{
    double deadline = now_seconds() + 20;
    while (lines(log) == 0) {
        CHECK(now_seconds() < deadline, "no line");
        pause_ms(1);
    }
}

void scenario_log(const Options *options)
{
    Pair pair;
    Log *log;
    unsigned long round;
    uint64_t debug;
    pair_new(&pair);
    /* Without a log there is none; with one, levels count. */
    log = log_new();
    log->secret = pair.private_keys[0].text;
    OK(adit_init(on_line, log, ADIT_LOG_TRACE));
    pair_start(&pair);
    pthread_mutex_lock(&log->lock);
    log->tunnel = pair.sides[0]->tunnel;
    pthread_mutex_unlock(&log->lock);
    pair_exchange(&pair, 50);
    await_line(log);
    OK(adit_init(on_line, log, ADIT_LOG_INFO));
    debug = details(log);
    pair_exchange(&pair, 50);
    OK(adit_init(NULL, NULL, ADIT_LOG_OFF));
    end(log);
    CHECK(details(log) == debug, "lines above the level");
    printf("  %" PRIu64 " lines\n", log->lines);
    log_free(log);
    /* Replaced while lines come: the former one's memory can be freed at once. */
    for (round = 0; round < options->rounds; round++) {
        log = log_new();
        OK(adit_init(on_line, log, ADIT_LOG_TRACE));
        side_send(pair.sides[round % 2], AF_INET, pair.sides[1 - round % 2]->next_number, 20, 200);
        side_wait_packets(pair.sides[1 - round % 2], pair.sides[1 - round % 2]->packets);
        pthread_mutex_lock(&log->lock);
        log->ends_itself = round % 4 == 3;
        pthread_mutex_unlock(&log->lock);
        OK(adit_init(NULL, NULL, ADIT_LOG_OFF));
        log_free(log);
        pair_stop(&pair);
        pair_start(&pair);
    }
    pair_free(&pair);
}
