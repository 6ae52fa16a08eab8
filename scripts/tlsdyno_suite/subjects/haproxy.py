"""HAProxy in TCP mode. One process, one thread a core. Its words are quoted as a shell's are."""
import shlex

from ..cell import group_list
from .base import (
    BACKLOG, SESSIONS, Driver, Task, can_all, cipher_list, is_modern, is_weak, offers_tickets, path_of,
    printed_version)


def version() -> str | None:
    return printed_version("haproxy", "-v", r"version (\S+)")


def command(task: Task) -> list[str]:
    cell = task.cell
    bind = [
        f"bind 127.0.0.1:{task.port} backlog {BACKLOG} ssl crt {shlex.quote(str(task.certificate))}",
        f"ssl-min-ver {protocol(cell.tls_version)} ssl-max-ver {protocol(cell.tls_version)} curves {group_list(cell)}",
        f"ciphersuites {cell.cipher}" if is_modern(cell) else f"ciphers {cipher_list(cell)}",
    ]
    if not offers_tickets(cell):
        bind.append("no-tls-tickets")
    server = shlex.quote(f"unix@{task.backend}") if task.backend_is_unix else task.backend
    # It raises its own descriptor limit to two for each of maxconn, and gives up if it may not: ask for what the cell
    # needs. Where connections come and go, as many again are being closed.
    closing = 0 if cell.keeps_alive else cell.connections
    configuration = task.directory / "haproxy.cfg"
    configuration.write_text(f"""global
    nbthread {cell.cores}
    maxconn {cell.connections + closing + 60}
    tune.ssl.cachesize {SESSIONS}
    log stderr format raw daemon err

defaults
    mode tcp
    timeout connect 10s
    timeout client 10m
    timeout server 10m

frontend tls
    {" ".join(bind)}
    default_backend origin

backend origin
    server origin {server}{f" maxconn {cell.maxconn}" if cell.maxconn else ""}
""")
    return [*environment(task), path_of("haproxy"), "-db", "-f", str(configuration)]


def environment(task: Task) -> list[str]:
    """It loads a certificate before it hears of the ciphers, and with them of the security level: for a weak key the
    level has to be the library's default."""
    if not is_weak(task.cell):
        return []
    settings = task.directory / "openssl.cnf"
    settings.write_text("""openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = default
[default]
CipherString = ALL:@SECLEVEL=0
""")
    return ["env", f"OPENSSL_CONF={settings}"]


def protocol(tls_version: str) -> str:
    return "TLSv1.0" if tls_version == "TLSv1" else tls_version


HAPROXY = Driver("haproxy", version, can_all, command)
