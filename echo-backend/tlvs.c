/* SPDX-License-Identifier: MIT */
#include "tlvs.h"

#include "bytes.h"

#include <ctype.h>
#include <stdio.h>

#define TYPE_SSL     0x20
#define TEXT_MAX     128 /* of a value; a longer one is nothing that a person reads */
#define SSL_FIXED    5   /* flags of the client in one byte, what came of verifying it in four */
#define NAME_MAX_LEN 16

struct tlv {
    uint8_t type;
    struct reader value;
};

static struct tlv next_tlv(struct reader *reader) {
    struct tlv tlv = {.type = reader_u8(reader)};

    tlv.value = reader_vector(reader, 2);
    return tlv;
}

static bool are_whole(struct reader reader, bool may_have_ssl) {
    while (reader.left > 0) {
        struct tlv tlv = next_tlv(&reader);
        if (reader.failed)
            return false;
        if (!may_have_ssl || tlv.type != TYPE_SSL)
            continue;
        if (!reader_take(&tlv.value, SSL_FIXED) || !are_whole(tlv.value, false))
            return false;
    }
    return !reader.failed;
}

bool tlvs_are_whole(const uint8_t *bytes, size_t length) {
    return are_whole(reader_of(bytes, length), true);
}

static const struct {
    uint8_t type;
    const char *name;
} names[] = {
    {0x01, "alpn"},           {0x02, "authority"},       {0x03, "crc32c"},      {0x04, "noop"},
    {0x05, "unique_id"},      {TYPE_SSL, "ssl_client"},  {0x21, "ssl_version"}, {0x22, "ssl_cn"},
    {0x23, "ssl_cipher"},     {0x24, "ssl_sig_alg"},     {0x25, "ssl_key_alg"}, {0x26, "ssl_group"},
    {0x27, "ssl_sig_scheme"}, {0x28, "ssl_client_cert"}, {0x30, "netns"},
};

/* The name that a type has, or "0xe0", which is written to buffer. */
static const char *name_of(uint8_t type, char buffer[NAME_MAX_LEN]) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].type == type)
            return names[i].name;
    snprintf(buffer, NAME_MAX_LEN, "0x%02x", type);
    return buffer;
}

static bool is_text(const struct reader *value) {
    for (size_t i = 0; i < value->left; i++)
        if (iscntrl(value->at[i]))
            return false;
    return value->left > 0 && value->left <= TEXT_MAX;
}

/* Without a name, its length: what it means is between those who send and receive it. */
static json_t *tell_value(const struct reader *value, bool has_name) {
    /* NULL for what is no UTF-8. */
    json_t *text = has_name && is_text(value) ? json_stringn((const char *)value->at, value->left) : NULL;

    return text ? text : json_pack("{s:I}", "bytes", (json_int_t)value->left);
}

static void tell_into(json_t *object, struct reader reader, bool may_have_ssl) {
    int unnamed = 0;

    while (reader.left > 0) {
        struct tlv tlv = next_tlv(&reader);
        char buffer[NAME_MAX_LEN];
        const char *name = name_of(tlv.type, buffer);
        if (name == buffer && unnamed++ == TLVS_UNNAMED_MAX)
            return;
        if (json_object_get(object, name))
            continue;
        if (may_have_ssl && tlv.type == TYPE_SSL) {
            json_object_set_new(object, name, json_integer(reader_u8(&tlv.value)));
            json_object_set_new(object, "ssl_verify", json_integer(reader_uint(&tlv.value, 4)));
            tell_into(object, tlv.value, false);
            continue;
        }
        json_object_set_new(object, name, tell_value(&tlv.value, name != buffer));
    }
}

json_t *tlvs_tell(const uint8_t *bytes, size_t length) {
    json_t *object = json_object();

    tell_into(object, reader_of(bytes, length), true);
    return object;
}
