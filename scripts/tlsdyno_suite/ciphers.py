"""Cipher suites: what the openssl command knows of each, at the lowest security level and whether or not the library
offers it by default."""
import difflib
import subprocess
from dataclasses import dataclass
from functools import cache

from .refusal import Refused

# TLS 1.3 has these five and no others. Only three are in the library's default list, so all are asked for by name.
SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
          "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256")
EVERYTHING = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
# Words in the names of ciphers that libraries once had: such a name is no slip of the pen.
HISTORICAL = frozenset(("RC2", "RC4", "DES", "CBC3", "EXP", "EXP1024", "IDEA", "SEED", "FZA", "KRB5", "MD5", "NULL",
                        "GOST94", "GOST2001", "CAMELLIA128", "CAMELLIA256"))
VERSIONS = ("SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


# One name for what each protocol version and kind of key spells in a way of its own.
ANY = {"AES128-GCM": ("TLS_AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
       "AES256-GCM": ("TLS_AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
       "CHACHA20": ("TLS_CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305")}


def spelled(name: str, tls_version: str, cert_key: str) -> str:
    """The cipher's own name, of one that stands for several: with ephemeral keys."""
    if name not in ANY:
        return name
    modern, older = ANY[name]
    return modern if tls_version == "TLSv1.3" else f"ECDHE-{'RSA' if cert_key.startswith('rsa') else 'ECDSA'}-{older}"


@dataclass(frozen=True)
class Cipher:
    since: str           # the first protocol version that has it
    exchange: str        # RSA, ECDH, any (TLS 1.3), and others
    authentication: str  # RSA, ECDSA, any (TLS 1.3); PSK, None and others that no certificate serves


@cache
def known() -> dict[str, Cipher]:
    """Every cipher of the library, by OpenSSL's name."""
    command = ["openssl", "ciphers", "-v", "-ciphersuites", ":".join(SUITES), EVERYTHING]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    except FileNotFoundError as error:
        raise Refused("openssl", "", "is not installed; it knows which ciphers there are") from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().splitlines()[-1:] or [f"exit status {error.returncode}"]
        raise Refused("openssl", "ciphers", last[0]) from error
    found = {}
    for name, since, exchange, authentication, *_ in map(str.split, listed.splitlines()):
        found[name] = Cipher(since, exchange.partition("=")[2], authentication.partition("=")[2])
    return found


def has_group(name: str) -> bool:
    """Whether keys are agreed on in a group; with RSA the client sends one."""
    return name not in known() or known()[name].exchange != "RSA"


def unknown(name: str) -> str | None:
    """Why there is no such cipher, or None: one that libraries used to have, or one that nobody ever heard of."""
    if name in known():
        return None
    if HISTORICAL & set(name.replace("_", "-").split("-")):
        return f"the linked OpenSSL has no {name}"
    close = difflib.get_close_matches(name, known(), 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"no cipher is called {name} as far as the linked OpenSSL knows{hint}"


def mismatch(name: str, tls_version: str, cert_key: str) -> str | None:
    """Why a cipher that is known cannot be negotiated with this version and this key, or None."""
    cipher = known()[name]
    if (cipher.since == "TLSv1.3") != (tls_version == "TLSv1.3"):
        return f"{name} is not a cipher of {tls_version}"
    if VERSIONS.index(cipher.since) > VERSIONS.index(tls_version):
        return f"{name} is not a cipher of {tls_version}: it came with {cipher.since}"
    key = cert_key.partition(":")[0]
    if cipher.authentication not in ("any", {"ed25519": "ecdsa"}.get(key, key).upper()):
        return f"{name} cannot be authenticated with a key {cert_key}"
    return None
