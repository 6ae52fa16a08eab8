"""nginx with its stream module. One worker process a core, one session cache in shared memory."""
import os
import re
import subprocess
from functools import cache
from pathlib import Path

from ..cell import Cell, group_list
from ..programs import installed
from .base import (
    BACKLOG, Driver, Task, cipher_list, is_modern, no_queue, offers_tickets, path_of, printed_version, quoted)

SESSION_CACHE = "10m"  # some 4,000 sessions a megabyte


def version() -> str | None:
    return printed_version("nginx", "-v", r"nginx/(\S+)")


@cache
def stream_module() -> str | None:
    """The line that loads the stream module; empty where it is built in; None where it is missing."""
    path = installed("nginx")
    if path is None:
        return None
    built = subprocess.run([path, "-V"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stderr
    if re.search(r"--with-stream(\s|$)", built):
        return ""
    found = re.search(r"--modules-path=(\S+)", built)
    module = Path(found[1] if found else "/usr/lib/nginx/modules") / "ngx_stream_module.so"
    return f"load_module {quoted(module)};" if module.exists() else None


def cannot(cell: Cell) -> str | None:
    if stream_module() is None:
        return "nginx is installed without its stream module (Debian package libnginx-mod-stream)"
    return no_queue("nginx", cell)


def configuration(task: Task, modules: str, block: str) -> str:
    """Everything around what it serves."""
    cell = task.cell
    # As root its workers would become another user; the other subjects stay what they are.
    user = "user root;" if os.geteuid() == 0 else ""
    # Two a client, and as many again are being closed where connections come and go.
    connections = (2 if cell.keeps_alive else 4) * cell.connections + 100
    return f"""{modules}
{user}
daemon off;
pid {quoted(task.directory / "nginx.pid")};
lock_file {quoted(task.directory / "nginx.lock")};
error_log stderr error;
worker_processes {cell.cores};

events {{
    worker_connections {connections};
    multi_accept on;
}}

{block}
"""


def start_command(task: Task, text: str) -> list[str]:
    path = task.directory / "nginx.conf"
    path.write_text(text)
    return [path_of("nginx"), "-c", str(path), "-p", str(task.directory), "-e", "stderr"]


def tls_directives(task: Task) -> str:
    """Of a server block, in it: where it listens and what it speaks there."""
    cell = task.cell
    suites = f"ssl_conf_command Ciphersuites {cell.cipher};" if is_modern(cell) else ""
    return f"""listen 127.0.0.1:{task.port} ssl backlog={BACKLOG};
        ssl_certificate {quoted(task.certificate)};
        ssl_certificate_key {quoted(task.certificate)};
        ssl_protocols {cell.tls_version};
        ssl_ciphers {cipher_list(cell)};
        {suites}
        ssl_ecdh_curve {group_list(cell)};
        ssl_session_cache shared:sessions:{SESSION_CACHE};"""


def command(task: Task) -> list[str]:
    cell = task.cell
    backend = quoted(f"unix:{task.backend}") if task.backend_is_unix else task.backend
    return start_command(task, configuration(task, stream_module() or "", f"""stream {{
    server {{
        {tls_directives(task)}
        ssl_session_timeout 1h;
        ssl_session_tickets {"on" if offers_tickets(cell) else "off"};
        tcp_nodelay on;
        proxy_pass {backend};
    }}
}}"""))


NGINX = Driver("nginx", version, cannot, command)
