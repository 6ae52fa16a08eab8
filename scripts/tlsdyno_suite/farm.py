"""Several hosts of the reference that share sessions or do not: how they are started, until they know each other."""
import random
import socket
import time
from collections.abc import Callable
from typing import Any

from . import counters
from .cell import Cell
from .network import NAMESPACES, Network
from .processes import Failed, Program

MEET_LIMIT_S = 20.0  # who starts says so at once, and then once a second; a busy machine may take several times as long
POLL_S = 0.02
SYNC_PORT = 8888     # in a network of one's own
GROUP = "239.77.77.77"
PULL = "5ms"
TRIES = 5
OVERHEAD_S = 2.0     # starting and stopping the hosts of one cell, as estimated for people


def where_to_share(cell: Cell, network: Network) -> list[str]:
    """Addresses at which the hosts take each other's datagrams. On loopback two runs at once must not meet: whoever has
    the same certificate would be taken for one of the farm."""
    if network.kind == NAMESPACES:
        return [f"{GROUP if cell.sharing == 'multicast' else host.address}:{SYNC_PORT}" for host in network.hosts]
    if cell.sharing == "multicast":
        chance = random.SystemRandom()
        group = f"239.77.{chance.randrange(256)}.{chance.randrange(1, 255)}:{free_udp_port('127.0.0.1')}"
        return [group] * cell.hosts
    return [f"{host.address}:{free_udp_port(host.address)}" for host in network.hosts]


def free_udp_port(address: str) -> int:
    """Free now; who finds it taken tries again with another."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def sharing_options(cell: Cell, network: Network, addresses: list[str], number: int) -> tuple[str, ...]:
    """Of one host, for the proxy's command line."""
    if cell.sharing == "none":
        return ()
    if cell.sharing == "multicast":
        return ("-U", addresses[number], "-M", f"{network.interface},{network.hops}")
    peers = [option for other, address in enumerate(addresses) if other != number for option in ("-P", address)]
    return ("-U", addresses[number], *peers, *(("--shared-cache-pull", PULL) if cell.sharing == "pull" else ()))


def start(cell: Cell, network: Network, begin: Callable[[int, tuple[str, ...]], str],
          stop: Callable[[], None]) -> list[str]:
    """Addresses of the hosts. `begin` starts the host of that number with these options; `stop` ends all that were
    started, when somebody had taken a port that was to be theirs."""
    for attempt in range(TRIES):
        addresses = where_to_share(cell, network)
        try:
            return [begin(number, sharing_options(cell, network, addresses, number)) for number in range(cell.hosts)]
        except Failed as error:
            if "in use" not in str(error) or attempt == TRIES - 1:
                raise
            stop()
    raise AssertionError("the loop returns or raises")


def know_each_other(page: dict[str, Any], others: int) -> bool:
    shared = page["shared_cache"]
    return bool(shared["peers"] == others and shared["catch_ups_done"] >= others)


def wait_until_met(cell: Cell, statistics: list[str], serving: list[Program],
                   check_alive: Callable[[list[Program]], None]) -> None:
    deadline = time.monotonic() + MEET_LIMIT_S
    while cell.sharing != "none":
        pages = [counters.read(address) for address in statistics]
        strangers = [number for number, page in enumerate(pages, 1) if not know_each_other(page, cell.hosts - 1)]
        if not strangers:
            return
        check_alive(serving)
        if time.monotonic() > deadline:
            raise Failed(f"host {strangers[0]} had not heard of all others after {MEET_LIMIT_S:g} s")
        time.sleep(POLL_S)
