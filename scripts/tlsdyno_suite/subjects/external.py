"""Whatever already runs at an address that the command line gives. Nothing is started for it, and nothing is known of
it but what its clients see: rates and latencies, no CPU time."""
import ipaddress

from ..cell import Cell
from ..refusal import Refused
from .base import Driver, Task


def version() -> str:
    return ""  # nobody knows


def cannot(cell: Cell) -> str | None:
    return "a subject that is not started here has memory that is not seen here" if cell.holds else None


def command(_task: Task) -> list[str]:
    raise AssertionError("it is never started")


def is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_address(address: str, owned: bool) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        raise Refused("--external", address, "is not HOST:PORT")
    if not owned and not is_loopback(address):
        raise Refused("--external", address, "is not on this machine: load is put only on what is one's own; "
                      "if it is, say --i-own-the-target")


EXTERNAL = Driver("external", version, cannot, command, external=True)
