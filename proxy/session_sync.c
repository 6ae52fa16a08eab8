/* SPDX-License-Identifier: MIT */
#include "session_sync.h"

#include "regular_file.h"
#include "shared_memory.h"
#include "sync_socket.h"
#include "tls_credentials.h"
#include "tls_reason.h"
#include "units.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define KEY_FILE_MIN 16
#define KEY_FILE_MAX 16384

/* Both keys of whatever the operator has given. */
static bool derive(struct session_sync *sync, const uint8_t *bytes, size_t length) {
    return sync_secret_derive(sync->secret, bytes, length) && SHA1(bytes, length, sync->stud_key);
}

static const char *derive_from_file(struct session_sync *sync, const char *path) {
    uint8_t bytes[KEY_FILE_MAX + 1];
    const char *reason = NULL, *unreadable;
    FILE *stream = regular_file_open(path, &unreadable);
    size_t length;

    if (!stream)
        return tls_reason("--shared-cache-key: %s: cannot be read: %s", path, unreadable);
    setvbuf(stream, NULL, _IONBF, 0); /* no copy of the key is left in a buffer of stdio's */
    length = fread(bytes, 1, sizeof bytes, stream);
    if (ferror(stream))
        reason = tls_reason("--shared-cache-key: %s: cannot be read: %s", path, strerror(errno));
    else if (length < KEY_FILE_MIN)
        reason = tls_reason("--shared-cache-key: %s: shorter than 16 bytes", path);
    else if (length > KEY_FILE_MAX)
        reason = tls_reason("--shared-cache-key: %s: larger than 16 KiB", path);
    else if (!derive(sync, bytes, length))
        reason = "out of memory";
    fclose(stream);
    OPENSSL_cleanse(bytes, sizeof bytes);
    return reason;
}

/* The certificate's own key, of whatever type, as its type is written in DER. */
static const char *derive_from_certificate(struct session_sync *sync, const struct certificate_source *source) {
    struct tls_credentials credentials;
    const char *reason = tls_credentials_read(&credentials, source->file, source->key);
    unsigned char *der = NULL;
    int length;

    if (reason)
        return reason;
    length = i2d_PrivateKey(credentials.key, &der);
    if (length <= 0 || !derive(sync, der, (size_t)length))
        reason = tls_reason("--shared-cache: %s: its key cannot be read out: give --shared-cache-key",
                            source->key ? source->key : source->file);
    OPENSSL_clear_free(der, length > 0 ? (size_t)length : 0);
    tls_credentials_free(&credentials);
    return reason;
}

static bool has_random_keys(const struct proxy_settings *settings) {
    return settings->tickets && !settings->ticket_keys;
}

const char *session_sync_new(struct session_sync **made, const struct proxy_settings *settings,
                             struct session_store *store, struct ticket_keys *ticket_keys, int slots) {
    struct session_sync *sync;
    const char *reason;

    *made = NULL;
    if (!settings->sharing.on)
        return NULL;
    sync = calloc(1, sizeof *sync);
    if (!sync)
        return "out of memory";
    *sync = (struct session_sync){
        .sharing = settings->sharing,
        .store = store,
        .ticket_keys = has_random_keys(settings) ? ticket_keys : NULL,
        .lifetime_s = settings->session_lifetime_ns / NS_PER_S,
        .slots = slots,
        .fd = -1,
    };
    reason = settings->sharing.key_file ? derive_from_file(sync, settings->sharing.key_file)
                                        : derive_from_certificate(sync, settings_first_certificate(settings));
    if (!reason && (RAND_bytes(sync->id, sizeof sync->id) != 1 || !(sync->keys = sync_keys_new(sync->secret))))
        reason = "--shared-cache: the TLS library failed";
    if (reason) {
        OPENSSL_cleanse(sync, sizeof *sync);
        free(sync);
        return reason;
    }
    sync->next = shared_memory_new(SYNC_STREAMS * sizeof *sync->next);
    for (int stream = 0; stream < SYNC_STREAMS; stream++)
        sync->next[stream] = 1;
    sync->takes = shared_memory_new(sizeof *sync->takes);
    sync->foreign_keys = foreign_keys_new();
    sync->counters = sync_counters_new();
    *made = sync;
    return NULL;
}

const char *session_sync_check_reload(const struct session_sync *sync, const struct proxy_settings *old,
                                      const struct proxy_settings *new) {
    if (!sync || sync->ticket_keys || !has_random_keys(new))
        return NULL;
    return tls_reason("--%s: cannot begin to share random ticket keys while the proxy runs",
                      old->ticket_keys ? "ticket-keys" : "tickets");
}

/* False with errno set. */
static bool set_up_waiting(struct session_sync *sync) {
    sync->waiting = shared_memory_new((size_t)sync->slots * sizeof *sync->waiting);
    sync->wake = shared_memory_new((size_t)sync->slots * sizeof *sync->wake);
    for (int slot = 0; slot < sync->slots; slot++) {
        sync->wake[slot] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (sync->wake[slot] < 0)
            return false;
    }
    sync->hurry = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return sync->hurry >= 0;
}

bool session_sync_open(struct session_sync *sync) {
    sync->fd = sync_socket_open(&sync->sharing);
    return sync->fd >= 0 && set_up_waiting(sync);
}
