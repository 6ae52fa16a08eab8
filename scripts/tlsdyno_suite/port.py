"""Ports for products that cannot take port 0 and say which one they got."""
import random
import socket

# Below the range that the kernel gives to outgoing connections (32768 and up unless changed), so that none of the
# thousands that a cell opens can sit on a port between our look and the product's bind.
RANGE = (15000, 32000)


def free_port() -> int:
    """Free now. Another process may still take it before the product does: the caller tries again with another."""
    chooser = random.SystemRandom()
    while True:
        port = chooser.randrange(*RANGE)
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
