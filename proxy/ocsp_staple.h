/* SPDX-License-Identifier: MIT */
#ifndef PROXY_OCSP_STAPLE_H
#define PROXY_OCSP_STAPLE_H
/*
 * What a certificate's authority says of it, in a file that the operator fetched: stapled to the handshake of clients
 * that ask for it (RFC 6066, section 8; RFC 8446, 4.4.2.1). Its signature is the client's to verify; the operator may
 * ask for it to be verified here too.
 */
#include <openssl/ocsp.h>
#include <stdbool.h>
#include <time.h>

struct ocsp_file {
    const char *path;
    OCSP_RESPONSE *response;
    OCSP_BASICRESP *basic;
};

struct ocsp_staple {
    unsigned char *response; /* DER; NULL: none */
    size_t length;
    time_t expires; /* 0: never */
};

/* Opens a response in DER. NULL, or one line that names the file and says why it is refused. */
const char *ocsp_file_open(struct ocsp_file *file, const char *path);
void ocsp_file_close(struct ocsp_file *file);

/*
 * If the file is about the certificate, *about is set to true and the staple filled, and NULL returned - or why it may
 * not be stapled: the certificate is not said to be good, or not now.
 */
const char *ocsp_file_answer(const struct ocsp_file *file, const X509 *certificate, struct ocsp_staple *staple,
                             bool *about);

/*
 * NULL, or why the file is not believed: it must be signed by an authority that the chain leads to and that is among
 * those that this machine trusts.
 */
const char *ocsp_file_verify(const struct ocsp_file *file, STACK_OF(X509) * chain);

void ocsp_staple_free(struct ocsp_staple *staple);

#endif
