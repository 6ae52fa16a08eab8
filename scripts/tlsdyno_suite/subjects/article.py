"""What articles compared with a TLS terminator: an origin that is asked without one, and a terminator by the name that
it has there."""
from ..cell import Cell
from ..placement import cpu_list
from ..programs import built
from . import nginx, reference
from .base import BACKLOG, Driver, Task, can_all, is_modern, quoted


def echo_version() -> str | None:
    return reference.version()  # of one tree, built together


def echo_command(task: Task, mode: str, more: list[str]) -> list[str]:
    return [str(built("echo-backend")), mode, "-l", "127.0.0.1:0", "-n", str(task.cell.cores), "--cpus",
            cpu_list(task.cpus), "--backlog", str(BACKLOG), *more]


def http_command(task: Task) -> list[str]:
    return echo_command(task, "http", [])


def https_command(task: Task) -> list[str]:
    versions = ["--tls-min", task.cell.tls_version, "--tls-max", task.cell.tls_version]
    return echo_command(task, "https", ["--cert", str(task.certificate), *versions])


def https_cannot(cell: Cell) -> str | None:
    if not is_modern(cell) or cell.cipher != "TLS_AES_256_GCM_SHA384":
        return "echo-backend has no setting for ciphers: TLS 1.3 with its first, TLS_AES_256_GCM_SHA384"
    return None


def single_command(task: Task) -> list[str]:
    """One worker whatever it may have."""
    command = reference.command(task)
    command[command.index("-n") + 1] = "1"
    command[command.index("--cpus") + 1] = str(task.cpus[0])
    return command


def web_command(task: Task) -> list[str]:
    """nginx as a web server of files, all of one size."""
    pages = task.directory / "pages"
    pages.mkdir()
    (pages / "object").write_bytes(b"a" * task.cell.response_bytes)
    return nginx.start_command(task, nginx.configuration(task, "", f"""http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    client_body_temp_path {quoted(task.directory / "body")};
    proxy_temp_path {quoted(task.directory / "proxy")};
    fastcgi_temp_path {quoted(task.directory / "fastcgi")};
    uwsgi_temp_path {quoted(task.directory / "uwsgi")};
    scgi_temp_path {quoted(task.directory / "scgi")};
    open_file_cache max=10;
    server {{
        {nginx.tls_directives(task)}
        root {quoted(pages)};
        location / {{ rewrite ^ /object break; }}
    }}
}}"""))


HTTP = Driver("http", echo_version, can_all, http_command, reports_address=True, origin=True, plain=True)
HTTPS = Driver("https", echo_version, https_cannot, https_command, reports_address=True, origin=True)
TLS_OFF = Driver("tls-off", reference.version, can_all, reference.command, reports_address=True, has_statistics=True)
TLS_OFF_SINGLE = Driver("tls-off-single", reference.version, can_all, single_command, reports_address=True,
                        has_statistics=True)
NGINX_WEB = Driver("nginx-web", nginx.version, can_all, web_command, origin=True, variant=True)
