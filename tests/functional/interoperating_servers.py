"""Other people's TLS servers, each set up to speak all that it can with one key, on a port of 127.0.0.1."""
from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from counting_server import free_port
from programs import START_LIMIT_S, make_certificate, running
from tlsdyno_suite.subjects.nginx import stream_module

# P-256 comes last: where a server goes by its own preference, the group that is asked for is to win over the curve of
# the certificate, which a client before TLS 1.3 must name, too.
GROUPS = "X448:X25519:P-521:P-384:P-256"
CIPHERS = "ALL:@SECLEVEL=0"  # nothing is too old: what is spoken is the client's choice
GNUTLS_PRIORITY = ("NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:+VERS-TLS1.1:+VERS-TLS1.0:+CIPHER-ALL:+MAC-ALL:+SHA256:"
                   "+SHA384:+RSA:+PSK:+ECDHE-PSK:-GROUP-ALL:"
                   "+GROUP-FFDHE2048:+GROUP-X448:+GROUP-X25519:+GROUP-SECP521R1:"
                   "+GROUP-SECP384R1:+GROUP-SECP256R1")


@dataclass(frozen=True)
class Task:
    port: int
    certificate: Path
    key: Path
    both: Path
    backend: str
    folder: Path  # for its configuration

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


def s_server(task: Task) -> list[str]:
    return ["openssl", "s_server", "-accept", f"127.0.0.1:{task.port}", "-www", "-cert", str(task.certificate),
            "-key", str(task.key), "-cipher", CIPHERS, "-groups", GROUPS, "-allow_no_dhe_kex"]


def gnutls(task: Task) -> list[str]:
    """It would listen on every address of the machine: its bind() is replaced by one that knows loopback only."""
    source = task.write("bind.c", """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <netinet/in.h>
        int bind(int fd, const struct sockaddr *address, socklen_t length) {
            struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
            int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
            if (address->sa_family != AF_INET)
                return next(fd, address, length);
            here.sin_port = ((const struct sockaddr_in *)address)->sin_port;
            return next(fd, (const struct sockaddr *)&here, sizeof here);
        }
        int listen(int fd, int backlog) {
            int (*next)(int, int) = dlsym(RTLD_NEXT, "listen");
            struct sockaddr_in6 own;
            socklen_t length = sizeof own;
            getsockname(fd, (struct sockaddr *)&own, &length);
            return own.sin6_family == AF_INET ? next(fd, backlog) : 0; /* IPv6: as if, but nobody can connect */
        }
    """)
    library = str(task.folder / "bind.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return ["env", f"LD_PRELOAD={library}", "gnutls-serv", "--quiet", "--http", "--disable-client-cert",
            f"--port={task.port}", f"--x509certfile={task.certificate}", f"--x509keyfile={task.key}",
            f"--priority={GNUTLS_PRIORITY}"]


def nginx(task: Task) -> list[str]:
    configuration = task.write("nginx.conf", f"""{stream_module()}
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
pid "{task.folder / "nginx.pid"}";
lock_file "{task.folder / "nginx.lock"}";
error_log stderr error;
events {{ worker_connections 100; }}
stream {{
    server {{
        listen 127.0.0.1:{task.port} ssl;
        ssl_certificate "{task.both}";
        ssl_certificate_key "{task.both}";
        ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
        ssl_ciphers {CIPHERS};
        ssl_ecdh_curve {GROUPS};
        ssl_session_cache shared:sessions:1m;
        ssl_session_tickets on;
        proxy_pass {task.backend};
    }}
}}
""")
    return ["/usr/sbin/nginx", "-c", configuration, "-p", str(task.folder), "-e", "stderr"]


def haproxy(task: Task) -> list[str]:
    configuration = task.write("haproxy.cfg", f"""global
    maxconn 100
    tune.ssl.cachesize 1000
defaults
    mode tcp
    timeout connect 10s
    timeout client 1m
    timeout server 1m
frontend tls
    bind 127.0.0.1:{task.port} ssl crt {task.both} ssl-min-ver TLSv1.0 ciphers {CIPHERS} curves {GROUPS}
    default_backend origin
backend origin
    server origin {task.backend}
""")
    return ["/usr/sbin/haproxy", "-db", "-f", configuration]


def hitch(task: Task) -> list[str]:
    host, _, port = task.backend.rpartition(":")
    user = 'user = "root"\ngroup = "root"\n' if os.geteuid() == 0 else ""
    configuration = task.write("hitch.conf", f"""frontend = "[127.0.0.1]:{task.port}"
backend = "[{host}]:{port}"
pem-file = "{task.both}"
workers = 1
tls-protos = TLSv1.0 TLSv1.1 TLSv1.2 TLSv1.3
ciphers = "{CIPHERS}"
ecdh-curve = "{GROUPS}"
daemon = off
log-level = 1
ocsp-dir = ""
{user}""")
    return ["/usr/sbin/hitch", f"--config={configuration}"]


def stunnel(task: Task) -> list[str]:
    configuration = task.write("stunnel.conf", f"""foreground = yes
pid =
syslog = no
debug = err
[tls]
accept = 127.0.0.1:{task.port}
connect = {task.backend}
cert = {task.both}
sslVersionMin = TLSv1
sslVersionMax = TLSv1.3
securityLevel = 0
ciphers = {CIPHERS}
curves = {GROUPS}
""")
    return ["/usr/bin/stunnel", configuration]


SERVERS: dict[str, Callable[[Task], list[str]]] = {
    "s_server": s_server, "gnutls": gnutls, "nginx": nginx, "haproxy": haproxy, "hitch": hitch, "stunnel": stunnel}


def wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"{process.args} does not listen: {log.read_text(errors='replace')}")


class Farm:
    """Starts a server when it is first asked for; all of them live until the end of the block."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.ports: dict[tuple[str, str], int] = {}
        self.certificates: dict[str, tuple[Path, Path, Path]] = {}
        self.backend = stack.enter_context(running("echo-backend", "http")).address

    def port(self, name: str, key: str) -> int:
        if key not in self.certificates:
            self.certificates[key] = make_certificate(self.folder / "certificates", key)
        if (name, key) not in self.ports:
            self.ports[name, key] = self._start(name, key)
        return self.ports[name, key]

    def _start(self, name: str, key: str) -> int:
        folder = self.folder / f"{name}-{key.replace(':', '-')}"
        folder.mkdir()
        log = folder / "log"
        task = Task(free_port(), *self.certificates[key], self.backend, folder)
        with log.open("wb") as output:
            process = subprocess.Popen(SERVERS[name](task), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.stack.callback(self._stop, process)
        wait_until_it_listens(process, task.port, log)
        return task.port

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def farm() -> Iterator[Farm]:
    with tempfile.TemporaryDirectory(prefix="tlsdyno-servers-") as folder, contextlib.ExitStack() as stack:
        yield Farm(Path(folder), stack)
