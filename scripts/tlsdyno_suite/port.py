"""Ports for products that cannot take port 0 and say which one they got."""
import random
import socket
from pathlib import Path

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
USUAL_OUTGOING = (32768, 60999)
PORTS = range(10000, 65536)
ENOUGH = 1000  # of ports to choose from: several runs at once hardly meet


def outgoing() -> tuple[int, int]:
    """The range, ends included, that the kernel gives to outgoing connections."""
    try:
        low, high = map(int, OUTGOING.read_text().split())
    except (OSError, ValueError):
        return USUAL_OUTGOING
    return low, high


def choices() -> list[int]:
    """Ports outside of that range, so that none of the thousands of connections that a cell opens can sit on a port
    between our look and the product's bind. Where the range leaves none, as on machines set up for benchmarks (1024 to
    65535), any port; the product that finds its port taken is started again with another."""
    low, high = outgoing()
    outside = [port for port in PORTS if not low <= port <= high]
    return outside if len(outside) >= ENOUGH else list(PORTS)


def free_port() -> int:
    """Free now. Another process may still take it before the product does: the caller tries again with another."""
    chooser, ports = random.SystemRandom(), choices()
    while True:
        port = chooser.choice(ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
