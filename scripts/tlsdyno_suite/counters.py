"""The subject's own account of its connections, read where it shows its statistics: HOST:PORT, or the path of a UNIX
socket, which is there whatever network the subject is in."""
import http.client
import json
import socket
import time
from typing import Any

from .processes import Failed
from .verdict import SAME, count_differences

SETTLE_S = 1.0   # a server may count a connection a moment after its client has
POLL_S = 0.05
LIMIT_S = 2.0
COUNTED = (*SAME, "handshakes_failed")


class Local(http.client.HTTPConnection):
    """To a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=LIMIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def fetch(address: str, path: str) -> Any:
    """A JSON object."""
    connection = Local(address) if address.startswith("/") else http.client.HTTPConnection(address, timeout=LIMIT_S)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    except http.client.HTTPException as error:
        raise ValueError(repr(error)) from error
    finally:
        connection.close()


def read(address: str) -> dict[str, Any]:
    """All that a subject shows, its connections among it."""
    try:
        page = fetch(address, "/stats.json")
        return {**page, **{name: int(page[name]) for name in COUNTED}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"subject's statistics at {address} cannot be read: {error}") from error


def growth(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, int]:
    """Of the connections of all of them."""
    return {name: sum(page[name] for page in after) - sum(page[name] for page in before) for name in COUNTED}


def settled(addresses: list[str], before: list[dict[str, Any]], totals: dict[str, Any]) -> list[dict[str, Any]]:
    """Read when the load has ended; waits a moment for the servers to have counted what the client has."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        after = [read(address) for address in addresses]
        if not count_differences(growth(before, after), totals, 0) or time.monotonic() > deadline:
            return after
        time.sleep(POLL_S)


def service_mean_ms(backend: str) -> float:
    """Of every request so far, from its beginning to its end in the backend itself."""
    try:
        return float(fetch(backend, "/whoami")["service"]["mean_ms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"backend's account of its requests at {backend} cannot be read: {error}") from error
