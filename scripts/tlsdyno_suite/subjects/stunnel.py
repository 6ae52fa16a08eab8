"""stunnel. One process, one thread a connection; the threads share the process's session cache. That is how Debian
builds it: a build has one threading model, and the two others are subjects that only such a build can be."""
from collections.abc import Callable

from ..cell import Cell, group_list
from .base import (
    SESSIONS, Driver, Task, cipher_list, is_modern, no_queue, offers_tickets, path_of, printed_version)


def version() -> str | None:
    return printed_version("stunnel", "-version", r"stunnel (\S+)")


def threading() -> str | None:
    """PTHREAD, FORK or UCONTEXT, as the build says."""
    return printed_version("stunnel", "-version", r"Threading:(\w+)")


# Of a core, transactions a second: at low load, where it wakes a thread for each, it takes some 100 us for one.
FOLLOWED_PER_S = 5000


def cannot_as(model: str) -> Callable[[Cell], str | None]:
    def cannot_or_other_build(cell: Cell) -> str | None:
        built = threading()
        if built != model:
            return f"stunnel is built with {built}, not with {model} (stunnel -version)"
        return cannot(cell)

    return cannot_or_other_build


def cannot(cell: Cell) -> str | None:
    if cell.rate_per_s and cell.rate_per_s > FOLLOWED_PER_S * cell.cores:
        return f"stunnel wakes a thread for each transaction: it does not follow {cell.rate_per_s} a second"
    return no_queue("stunnel", cell)


def command(task: Task) -> list[str]:
    cell = task.cell
    lines = [
        "foreground = yes",
        "pid =",
        "syslog = no",
        "debug = err",
        "socket = l:TCP_NODELAY=1",
        "socket = r:TCP_NODELAY=1",
        "[tls]",
        f"accept = 127.0.0.1:{task.port}",
        f"connect = {task.backend}",
        f"cert = {task.certificate}",
        f"sslVersionMin = {cell.tls_version}",
        f"sslVersionMax = {cell.tls_version}",
        f"ciphersuites = {cell.cipher}" if is_modern(cell) else f"ciphers = {cipher_list(cell)}",
        f"curves = {group_list(cell)}",
        f"sessionCacheSize = {SESSIONS}",
        "sessionCacheTimeout = 3600",
    ]
    if ":@SECLEVEL=0" in cipher_list(cell):
        lines.append("securityLevel = 0")
    if not offers_tickets(cell):
        lines.append("options = NO_TICKET")
    configuration = task.directory / "stunnel.conf"
    configuration.write_text("\n".join(lines) + "\n")
    return [path_of("stunnel"), str(configuration)]


STUNNEL = Driver("stunnel", version, cannot_as("PTHREAD"), command)
STUNNEL_FORK = Driver("stunnel-fork", version, cannot_as("FORK"), command, variant=True)
STUNNEL_UCONTEXT = Driver("stunnel-ucontext", version, cannot_as("UCONTEXT"), command, variant=True)
