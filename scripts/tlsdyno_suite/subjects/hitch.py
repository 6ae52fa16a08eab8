"""hitch. One worker process a core, each with a session cache of its own."""
import os

from ..cell import Cell, group_list
from .base import BACKLOG, Driver, Task, cipher_list, is_modern, no_queue, path_of, printed_version, quoted

# hitch spells the first version with its minor number, and TLS 1.3 has its own list of ciphers.
PROTOCOLS = {"TLSv1": "TLSv1.0"}


def version() -> str | None:
    return printed_version("hitch", "--version", r"hitch (\S+)")


def cannot(cell: Cell) -> str | None:
    if cell.resume_with == "id" and cell.reuse != "never" and cell.cores > 1:
        return "hitch has a session cache in each worker, so a session ID is known to one worker only"
    return no_queue("hitch", cell)


def command(task: Task) -> list[str]:
    backend = task.backend if task.backend_is_unix else "[{}]:{}".format(*task.backend.rsplit(":", 1))
    lines = [
        f'frontend = "[127.0.0.1]:{task.port}"',
        f"backend = {quoted(backend)}",
        f"pem-file = {quoted(task.certificate)}",
        f"workers = {task.cell.cores}",
        f"backlog = {BACKLOG}",
        f"tls-protos = {PROTOCOLS.get(task.cell.tls_version, task.cell.tls_version)}",
        f'ciphers = "{cipher_list(task.cell)}"',
        f'ecdh-curve = "{group_list(task.cell)}"',
        "daemon = off",
        "log-level = 1",
        'ocsp-dir = ""',
    ]
    if is_modern(task.cell):
        lines.append(f'ciphersuites = "{task.cell.cipher}"')
    if os.geteuid() == 0:
        # hitch refuses to run its workers as root unless told so in these words. The same user as the other subjects.
        lines += ['user = "root"', 'group = "root"']
    configuration = task.directory / "hitch.conf"
    configuration.write_text("\n".join(lines) + "\n")
    return [path_of("hitch"), f"--config={configuration}"]


HITCH = Driver("hitch", version, cannot, command)
