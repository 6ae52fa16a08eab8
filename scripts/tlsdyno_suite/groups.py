"""Key exchange groups: the classical ones that every library has, and post-quantum hybrids, which came with OpenSSL
3.5."""
import subprocess
from functools import cache

HYBRIDS = ("X25519MLKEM768", "SecP256r1MLKEM768")


@cache
def key_encapsulations() -> str:
    """What the openssl command lists; empty where it cannot, which is to say there are none."""
    try:
        return subprocess.run(["openssl", "list", "-kem-algorithms"], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL).stdout
    except OSError:
        return ""


def unknown(name: str) -> str | None:
    """Why the group cannot be used, or None."""
    if name in HYBRIDS and name.lower() not in key_encapsulations().lower():
        return f"the linked OpenSSL has no {name} (post-quantum hybrids came with 3.5)"
    return None
