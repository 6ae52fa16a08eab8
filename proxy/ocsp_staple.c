/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "ocsp_staple.h"

#include "regular_file.h"
#include "tls_credentials.h"
#include "tls_reason.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A response with its own certificates has some 2 KiB. It goes out in one TLS message of less than 2^24 bytes. */
#define RESPONSE_BYTES_MAX 65536
/* Clocks differ. */
#define LEEWAY_S 300

static const char *read_response(struct ocsp_file *file) {
    unsigned char bytes[RESPONSE_BYTES_MAX + 1];
    const unsigned char *at = bytes;
    const char *why;
    FILE *stream = regular_file_open(file->path, &why);
    size_t length;

    if (!stream)
        return tls_reason("--ocsp: %s: cannot be read: %s", file->path, why);
    errno = 0;
    length = fread(bytes, 1, sizeof bytes, stream);
    if (ferror(stream)) {
        const char *reason = tls_reason("--ocsp: %s: cannot be read: %s", file->path, strerror(errno));
        fclose(stream);
        return reason;
    }
    fclose(stream);
    if (length <= RESPONSE_BYTES_MAX)
        file->response = d2i_OCSP_RESPONSE(NULL, &at, (long)length);
    if (!file->response || at != bytes + length)
        return tls_reason("--ocsp: %s: not an OCSP response in DER", file->path);
    return NULL;
}

const char *ocsp_file_open(struct ocsp_file *file, const char *path) {
    const char *reason;
    int status;

    *file = (struct ocsp_file){.path = path};
    reason = read_response(file);
    if (!reason) {
        status = OCSP_response_status(file->response);
        if (status != OCSP_RESPONSE_STATUS_SUCCESSFUL)
            reason = tls_reason("--ocsp: %s: the responder did not answer: %s", path, OCSP_response_status_str(status));
    }
    if (!reason) {
        file->basic = OCSP_response_get1_basic(file->response);
        if (!file->basic)
            reason = tls_reason("--ocsp: %s: not a basic OCSP response", path);
    }
    ERR_clear_error();
    if (reason)
        ocsp_file_close(file);
    return reason;
}

void ocsp_file_close(struct ocsp_file *file) {
    OCSP_BASICRESP_free(file->basic);
    OCSP_RESPONSE_free(file->response);
}

/* By serial number and by the hash of the issuer's name: the issuer's key may be in nobody's hands here. */
static bool is_about(OCSP_SINGLERESP *single, const X509 *certificate) {
    ASN1_OCTET_STRING *name_hash;
    ASN1_INTEGER *serial;
    ASN1_OBJECT *algorithm;
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned length;

    OCSP_id_get0_info(&name_hash, &algorithm, NULL, &serial, (OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(single));
    if (ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(certificate)) != 0)
        return false;
    return EVP_get_digestbyobj(algorithm) &&
           X509_NAME_digest(X509_get_issuer_name(certificate), EVP_get_digestbyobj(algorithm), hash, &length) == 1 &&
           (int)length == ASN1_STRING_length(name_hash) && memcmp(hash, ASN1_STRING_get0_data(name_hash), length) == 0;
}

static const char *fill(const struct ocsp_file *file, OCSP_SINGLERESP *single, struct ocsp_staple *staple) {
    ASN1_GENERALIZEDTIME *from, *until;
    int status = OCSP_single_get0_status(single, NULL, NULL, &from, &until);
    char text[64];
    struct tm date;
    int length;

    if (status != V_OCSP_CERTSTATUS_GOOD)
        return tls_reason("--ocsp: %s: says that the certificate is %s", file->path, OCSP_cert_status_str(status));
    if (until && X509_cmp_current_time(until) < 0)
        return tls_reason("--ocsp: %s: expired on %s", file->path, tls_time_text(until, text, sizeof text));
    if (OCSP_check_validity(from, until, LEEWAY_S, -1) != 1)
        return tls_reason("--ocsp: %s: not valid before %s", file->path, tls_time_text(from, text, sizeof text));
    ocsp_staple_free(staple);
    length = i2d_OCSP_RESPONSE(file->response, &staple->response);
    if (length <= 0)
        return "out of memory";
    staple->length = (size_t)length;
    staple->expires = until && ASN1_TIME_to_tm(until, &date) == 1 ? timegm(&date) : 0;
    return NULL;
}

const char *ocsp_file_answer(const struct ocsp_file *file, const X509 *certificate, struct ocsp_staple *staple,
                             bool *about) {
    for (int i = 0; i < OCSP_resp_count(file->basic); i++) {
        OCSP_SINGLERESP *single = OCSP_resp_get0(file->basic, i);
        if (is_about(single, certificate)) {
            const char *reason = fill(file, single, staple);
            *about = true;
            ERR_clear_error();
            return reason;
        }
    }
    return NULL;
}

const char *ocsp_file_verify(const struct ocsp_file *file, STACK_OF(X509) * chain) {
    X509_STORE *trusted = X509_STORE_new();
    const char *reason = NULL, *why;

    ERR_clear_error();
    if (!trusted || X509_STORE_set_default_paths(trusted) != 1) {
        reason = "out of memory";
    } else if (OCSP_basic_verify(file->basic, chain, trusted, 0) <= 0) {
        why = ERR_reason_error_string(ERR_peek_error());
        reason = tls_reason("--ocsp: %s: its signature cannot be verified: %s", file->path, why ? why : "no reason");
    }
    ERR_clear_error();
    X509_STORE_free(trusted);
    return reason;
}

void ocsp_staple_free(struct ocsp_staple *staple) {
    OPENSSL_free(staple->response);
    *staple = (struct ocsp_staple){0};
}
