"""Several frontends: each is served and told apart; a reload that adds, moves or removes some costs nobody a thing."""
from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import select
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from programs import Running, is_alive, make_certificate, preloaded, run, running
from proxies import backend, client_context, counters, echo, eventually
from test_proxy_life import add_up, loaded, reload
from test_proxy_names import common_name


def dial(address: str) -> socket.socket:
    if address.startswith("/"):
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(60)
        plain.connect(address)
        return plain
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=60)


def talk(plain: socket.socket, host: str | None = None, context: ssl.SSLContext | None = None) -> str:
    """A byte there and back: the common name in the certificate that was shown."""
    with (context or client_context()).wrap_socket(plain, server_hostname=host) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        return common_name(tls.getpeercert(binary_form=True) or b"")


def visit(address: str, host: str | None = None, context: ssl.SSLContext | None = None) -> str:
    with dial(address) as plain:
        return talk(plain, host, context)


def is_refused(address: str) -> bool:
    try:
        dial(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


def own_address() -> str:
    """A fixed port that nobody else has: on a loopback address of this test's own."""
    return f"127.{random.randrange(1, 255)}.{random.randrange(255)}.{random.randrange(1, 255)}:4433"


def shown(server: Running) -> dict[str, dict]:
    return {frontend["address"]: frontend for frontend in counters(server)["frontends"]}


@contextlib.contextmanager
def configured(folder: Path, to: str, frontends: int, *lines: str,
               within: Sequence[str] = ()) -> Iterator[tuple[Running, Callable[..., None]]]:
    """A proxy with a file of these lines, and what replaces them."""
    pem, config = make_certificate(folder, name="served")[2], folder / "proxy.conf"

    def write(*others: str) -> None:
        config.write_text("\n".join(["stats = 127.0.0.1:0", f"backend = {to}", f"pem-file = {pem}", *others, ""]))

    write(*lines)
    with running("proxy", "--config", str(config), frontends=frontends, within=within) as server:
        yield server, write


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_frontend_is_served_and_told_of(workers: str, ecdsa: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    fronts = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:0", str(tmp_path / "front.sock")]
    with backend(echo) as to, \
            running("proxy", *(word for front in fronts for word in ("-f", front)), "-b", to, "-n", workers, "--stats",
                    "127.0.0.1:0", "--log-format", "json", "--access-log", str(log), ecdsa,
                    frontends=len(fronts)) as server:
        assert len(set(server.addresses)) == len(fronts) and fronts[3] in server.addresses
        for number, address in enumerate(server.addresses):
            for _ in range(number + 1):
                assert visit(address) == "localhost"
        with dial(server.addresses[1]) as plain:
            plain.sendall(b"no TLS at all\r\n\r\n")
            while plain.recv(1000):
                pass
        eventually(lambda: counters(server)["connections_open"] == 0, "all have ended")
        for number, address in enumerate(server.addresses):
            failed = int(number == 1)
            assert shown(server)[address] == {
                "address": address, "connections_open": 0, "connections_accepted": number + 1 + failed,
                "connections_closed": number + 1 + failed, "handshakes_full": number + 1, "handshakes_resumed": 0,
                "handshakes_failed": failed}
        assert sum(frontend["connections_accepted"] for frontend in counters(server)["frontends"]) == 11
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert all(map(is_refused, server.addresses)) and not Path(fronts[3]).exists()
    told = [json.loads(line)["frontend"] for line in log.read_text().splitlines()]
    assert sorted(told) == sorted(address for number, address in enumerate(server.addresses)
                                  for _ in range(number + 1 + (number == 1)))


def test_the_same_frontend_twice_is_refused(ecdsa: str, tmp_path: Path) -> None:
    some, other = own_address(), own_address()
    path = str(tmp_path / "front.sock")
    for good in ([some, other], [some, some[:-1] + "4"], ["*:4433", "[fd22:5979:45f3:9471::1]:4433"], [some, path],
                 ["127.0.0.1:0", "127.0.0.1:0"]):
        assert run("proxy", "-t", "-b", "127.0.0.1:1", "-f", good[0], "-f", good[1], ecdsa).returncode == 0, good
    for bad in ([some, other, some], ["*:4433", "*:4433"], ["[fd22:5979::1]:443", "[fd22:5979:0::1]:443"],
                [path, path]):
        refused = run("proxy", "-t", "-b", "127.0.0.1:1", *(word for front in bad for word in ("-f", front)), ecdsa)
        assert refused.returncode == 2
        assert refused.stderr == f"proxy: --frontend: {bad[-1]}: another frontend has the same address\n"


def test_more_frontends_than_there_is_room_for_are_refused(ecdsa: str) -> None:
    fronts = [word for _ in range(65) for word in ("-f", "127.0.0.1:0")]
    refused = run("proxy", "-t", "-b", "127.0.0.1:1", *fronts, ecdsa)
    assert (refused.returncode, refused.stderr) == (2, "proxy: --frontend: 127.0.0.1:0: more than 64 frontends\n")


def test_frontends_of_the_command_line_stand_for_those_of_the_file(ecdsa: str, tmp_path: Path) -> None:
    config = tmp_path / "proxy.conf"
    config.write_text("frontend = 127.0.0.1:1\nfrontend = /no/such/folder/front.sock\nbackend = 127.0.0.1:1\n")
    with running("proxy", "--config", str(config), "-f", "127.0.0.1:0", "-f", "127.0.0.1:0", ecdsa,
                 frontends=2) as server:
        assert all(address.startswith("127.0.0.1:") for address in server.addresses)


def test_one_frontend_that_cannot_listen_refuses_the_start_and_leaves_nothing(ecdsa: str, tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = run("proxy", "-b", "127.0.0.1:1", "-f", "127.0.0.1:0", "-f", str(path), "-f", address, ecdsa)
    assert refused.returncode == 2
    assert refused.stderr == f"proxy: --frontend: {address}: cannot listen: Address already in use\n"
    assert not path.exists()


# Reloads


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_moves_a_frontend_and_nobody_notices(workers: str, tmp_path: Path) -> None:
    first, second = own_address(), own_address()
    path = str(tmp_path / "front.sock")
    count = f"workers = {workers}"
    with backend(echo) as to, configured(tmp_path, to, 2, count, f"frontend = {first}",
                                         "frontend = 127.0.0.1:0") as (server, write):
        stays = server.addresses[1]
        visit(first)
        with dial(first) as before, client_context().wrap_socket(before) as tls:
            write(count, f"frontend = {second}", f"frontend = {path}", "frontend = 127.0.0.1:0")
            reload(server)
            for address in (second, path, stays):
                assert visit(address) == "served"
            eventually(lambda: is_refused(first), "the old one is closed")
            assert shown(server).keys() == {second, path, stays}
            for address in (second, path):
                eventually(lambda: f"proxy: listening on {address}" in server.errors, "it is told")
            tls.sendall(b"as before")
            assert tls.recv(9) == b"as before"
        # And back: a place where somebody was before is as good as any.
        write(count, f"frontend = {first}", "frontend = 127.0.0.1:0")
        reload(server)
        assert visit(first) == "served" and not Path(path).exists()
        eventually(lambda: is_refused(second), "the other one is closed")
        assert shown(server)[first]["connections_accepted"] == 1
        assert visit(stays) == "served"
        eventually(lambda: counters(server)["processes"] == int(workers), "the old generations have ended")
        assert add_up(counters(server)) and counters(server)["closed"]["worker_died"] == 0


@pytest.mark.parametrize("kind", ["TCP", "UNIX"])
def test_who_waits_at_a_frontend_that_goes_is_served(kind: str, tmp_path: Path) -> None:
    """Its workers are stopped, clients queue, a reload takes the frontend away: they were promised a connection."""
    goes = own_address() if kind == "TCP" else str(tmp_path / "front.sock")
    with backend(echo) as to, configured(tmp_path, to, 2, "handshake-timeout = 5m", f"frontend = {goes}",
                                         "frontend = 127.0.0.1:0") as (server, write):
        worker = server.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            with contextlib.ExitStack() as stack:
                waiting = [stack.enter_context(dial(goes)) for _ in range(40)]
                write("frontend = 127.0.0.1:0")
                reload(server, "generation")
                assert visit(server.addresses[1]) == "served"
                os.kill(worker, signal.SIGCONT)
                for plain in waiting:
                    assert talk(plain) == "served"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)
        eventually(lambda: not is_alive(worker), "the old worker ends")
        assert is_refused(goes)


def test_frontends_that_come_and_go_under_full_load_fail_no_connection_of_those_that_stay(tmp_path: Path) -> None:
    with running("echo-backend", "http", "-l", "127.0.0.1:0") as origin, \
            configured(tmp_path, origin.address, 1, "workers = 2", "quiet = yes",
                       "frontend = 127.0.0.1:0") as (server, write), \
            loaded(server, "-c", "50", "-d", "3s", "--requests-per-connection", "1") as load:
        for number in range(6):
            time.sleep(0.4)
            write("workers = 2", "quiet = yes", *[f"frontend = {own_address()}" for _ in range(number % 3)],
                  "frontend = 127.0.0.1:0", *[f"frontend = {own_address()}" for _ in range(number % 2)])
            reload(server)
        result = load.wait()
        assert sum(result["totals"]["errors"].values()) == 0, result["totals"]["errors"]
        eventually(lambda: counters(server)["processes"] == 2, "the old generations have ended")
        counted = counters(server)
        assert counted["reloads"] == 6 and counted["closed"]["worker_died"] == 0 and add_up(counted)
        assert shown(server)[server.address]["connections_accepted"] == result["totals"]["connections_opened"]
        assert server.errors == []


def test_a_reload_takes_all_frontends_or_none(tmp_path: Path) -> None:
    path, new = tmp_path / "front.sock", own_address()
    with backend(echo) as to, configured(tmp_path, to, 1, "frontend = 127.0.0.1:0") as (server, write):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            occupied = f"127.0.0.1:{taken.getsockname()[1]}"
            write(f"frontend = {new}", f"frontend = {path}", f"frontend = {occupied}")
            workers = server.workers()
            reload(server)
        eventually(lambda: len(server.errors) == 1, "it is told")
        assert server.errors == [f"proxy: reload: --frontend: {occupied}: cannot listen: Address already in use: the "
                                 "old configuration stays"]
        assert is_refused(new) and not path.exists() and server.workers() == workers
        assert visit(server.address) == "served" and shown(server).keys() == {server.address}
        write("frontend = 127.0.0.1:0", f"frontend = {path}", f"frontend = {path}")
        reload(server)
        eventually(lambda: len(server.errors) == 2, "this too")
        assert server.errors[-1].startswith(f"proxy: reload: --frontend: {path}: another frontend has the same address")
        # What was refused for others' sake can be had afterwards.
        write(f"frontend = {new}", f"frontend = {path}")
        reload(server)
        assert visit(new) == "served" and visit(str(path)) == "served"


def test_reloads_leave_no_descriptor_of_frontends_that_have_gone(tmp_path: Path) -> None:
    with backend(echo) as to, configured(tmp_path, to, 1, "quiet = yes", "frontend = 127.0.0.1:0") as (server, write):
        def descriptors() -> int:
            return len(os.listdir(f"/proc/{server.process.pid}/fd"))

        before = descriptors()
        for _ in range(6):  # more in all than there are places in the statistics
            write("quiet = yes", "frontend = 127.0.0.1:0", *[f"frontend = {own_address()}" for _ in range(40)])
            reload(server)
            eventually(lambda: counters(server)["processes"] == 1, "the old worker has ended")
        assert descriptors() == before + 40 and len(shown(server)) == 41
        write("quiet = yes", "frontend = 127.0.0.1:0")
        reload(server)
        assert descriptors() == before and visit(server.address) == "served"


def begin_to_connect(address: str) -> socket.socket:
    if address.startswith("/"):
        return dial(address)
    host, _, port = address.rpartition(":")
    plain = socket.socket()
    plain.setblocking(False)
    assert plain.connect_ex((host, int(port))) == errno.EINPROGRESS
    return plain


def come_to_an_end(plain: socket.socket) -> str:
    with plain:
        assert select.select([], [plain], [], 60)[1]
        if plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
            return "refused"
        plain.settimeout(60)
        return talk(plain)


@pytest.mark.parametrize(("kind", "forks", "outcome"),
                         [("tcp", 0, "refused"), ("tcp", 1, "refused"), ("unix", 1, "served")])
def test_a_reload_that_cannot_fork_resets_nobody_who_has_come_to_a_new_frontend(
        kind: str, forks: int, outcome: str, tmp_path: Path) -> None:
    """Some of the new workers may be there already when the next one cannot be forked."""
    first, fails = own_address(), tmp_path / "fails"
    second = own_address() if kind == "tcp" else str(tmp_path / "second.sock")
    with backend(echo) as to, \
            configured(tmp_path, to, 1, "workers = 2", f"frontend = {first}",
                       within=preloaded("fork_fails", tmp_path, f"FORK_FAILS={fails}")) as (server, write):
        write("workers = 2", f"frontend = {first}", f"frontend = {second}")
        fails.write_text(str(forks))
        server.process.send_signal(signal.SIGHUP)
        eventually((tmp_path / "fails.waits").exists, "the master forks")
        with ThreadPoolExecutor(10) as threads:
            coming = [threads.submit(come_to_an_end, begin_to_connect(second)) for _ in range(10)]
            fails.unlink()
            assert {one.result() for one in coming} == {outcome}
        eventually(lambda: counters(server)["reloads_refused"] == 1, "the reload is refused")
        assert server.errors == ["proxy: reload: fork: Resource temporarily unavailable: the old configuration stays"]
        assert is_refused(second) and visit(first) == "served"
        reload(server)
        assert visit(second) == visit(first) == "served"
