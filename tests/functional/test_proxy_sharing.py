"""Sessions and ticket keys of the reference proxy, shared between hosts."""
from __future__ import annotations

import contextlib
import hmac
import itertools
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from hosts import applied, by_id, farm, have_met, holds_sessions, is_to_all, settled, shared, sync_process, visit
from programs import make_certificate, run
from proxies import backend, client_context, connected, counters, echo, eventually, nobody, proxy
from test_proxy_statistics import metrics

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
NEW, DEL = 3, 4  # kinds of messages


def test_a_session_born_on_one_host_resumes_on_every_other(ecdsa: str) -> None:
    with farm(ecdsa, own=([], [], [])) as hosts:
        context = by_id()
        proven = [shared(one)["proofs_taken"] for one in hosts.hosts]
        for born in range(3):
            _, session = visit(hosts.hosts[born], context)
            for other in range(3):
                if other != born:
                    eventually(lambda: visit(hosts.hosts[other], context, session)[0], "resumed elsewhere")
        for one in hosts.hosts:
            eventually(lambda: shared(one)["lost"] == 0, "all has come")
            assert shared(one)["sessions_announced"] >= 1
        assert [shared(one)["proofs_taken"] for one in hosts.hosts] == proven, "who is known is not asked again"


def test_without_sharing_a_session_resumes_nowhere_else(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa) as one, proxy(to, ecdsa) as other:
        for context in (by_id(), client_context(TLS12), client_context(TLS13)):
            assert visit(other, context, visit(one, context)[1])[0] is False
        assert "shared_cache" not in counters(one)


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_ticket_of_one_host_resumes_on_another(version: ssl.TLSVersion, ecdsa: str) -> None:
    with farm(ecdsa) as hosts:
        context = client_context(version)
        session = None
        for turn in range(6):
            resumed, session = visit(hosts.hosts[turn % 2], context, session)
            assert resumed == (turn > 0)
        assert shared(hosts.hosts[0])["sessions_announced"] == 0


def test_a_stateful_ticket_resumes_on_another_host_and_then_nowhere(ecdsa: str) -> None:
    with farm(ecdsa, "--tickets", "off") as hosts:
        one, other = hosts.hosts
        context = client_context(TLS13)
        _, session = visit(one, context)
        applied(other, 1)
        assert visit(other, context, session)[0] is True
        eventually(lambda: shared(one)["withdrawals_applied"] == 1, "it is withdrawn where it was born")
        assert visit(one, context, session)[0] is False
        assert visit(other, context, session)[0] is False


def end_in_error(tls: ssl.SSLSocket) -> None:
    """Until the server has said so and closed."""
    with socket.socket(fileno=tls.detach()) as plain:
        plain.settimeout(60)
        plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))  # no record of this connection
        with contextlib.suppress(ConnectionError):
            while plain.recv(4096):
                pass


def test_a_session_that_ended_in_an_error_is_withdrawn_everywhere(ecdsa: str) -> None:
    """And stays so, though what brought it comes later than what withdrew it."""
    with farm(ecdsa, "--tickets", "off") as hosts:
        one, other = hosts.hosts
        late: list[bytes] = []

        def hold_back_first(datagram: bytes) -> list[bytes]:
            if not late and holds_sessions(datagram):
                late.append(datagram)
                return []
            return [datagram]

        wire = hosts.wires[0, 1]
        wire.carry = hold_back_first
        context = by_id()
        _, session = visit(one, context)
        eventually(lambda: bool(late), "the new session is told of")
        with connected(one, context, session) as tls:
            assert tls.session_reused
            end_in_error(tls)
        eventually(lambda: shared(one)["withdrawals_announced"] == 1, "it is withdrawn")
        assert visit(one, context, session)[0] is False
        applied(other, 1)  # the session of that visit, told of after the withdrawal
        wire.inject(late[0])
        eventually(lambda: shared(other)["rejected"]["withdrawn"] >= 1, "it comes too late")
        assert visit(other, context, session)[0] is False


def test_a_session_that_had_to_make_room_and_then_ended_in_an_error_is_withdrawn_elsewhere(ecdsa: str) -> None:
    with farm(ecdsa, "--tickets", "off", own=(["-C", "1"], [])) as hosts:
        one, other = hosts.hosts
        context = by_id()
        with connected(one, context) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            session = tls.session
            visit(one, context)
            applied(other, 2)
            assert counters(one)["session_evictions"] == 1
            assert visit(other, context, session)[0] is True
            end_in_error(tls)
        eventually(lambda: shared(other)["withdrawals_applied"] == 1, "it is withdrawn")
        assert visit(other, context, session)[0] is False


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_connection_with_a_stateless_ticket_withdraws_nothing(version: ssl.TLSVersion, ecdsa: str) -> None:
    """Its session ID, with TLS 1.2 the client's choice, is none of the cache's."""
    with farm(ecdsa) as hosts:
        one, other = hosts.hosts
        context = client_context(version)
        _, ticket = visit(one, context)
        with connected(one, context, ticket) as tls:
            assert tls.session_reused
            end_in_error(tls)
        visit(one, by_id())
        applied(other, 1)  # nothing told of before is on its way any more
        assert shared(one)["withdrawals_announced"] == 0
        assert visit(other, context, ticket)[0] is True


def test_a_host_that_was_restarted_catches_up(ecdsa: str) -> None:
    """With sessions that took many datagrams, and with a key of tickets that is not told of to it alone."""
    with farm(ecdsa, own=([],)) as hosts, backend(echo) as to:
        old = hosts.hosts[0]
        context = by_id()
        sessions = [visit(old, context)[1] for _ in range(60)]
        tickets = [(ticket, visit(old, ticket)[1]) for ticket in (client_context(TLS12), client_context(TLS13))]
        with proxy(to, ecdsa, "-U", "127.0.0.1:0", "-P", old.announced["shared cache"]) as new:
            have_met(new, 1)
            assert shared(new)["sessions_applied"] == 60
            assert all(visit(new, context, session)[0] for session in sessions)
            for ticket_context, ticket in tickets:
                assert visit(new, ticket_context, ticket)[0]


def test_keys_of_tickets_are_told_of_before_they_seal(ecdsa: str) -> None:
    """Rotating all the time, while every other datagram is lost."""
    with farm(ecdsa, "--ticket-rotation", "2s") as hosts:
        for wire in hosts.wires.values():
            turns = itertools.cycle([True, False])
            wire.carry = lambda datagram, turns=turns: [datagram] if next(turns) else []
        for version in (TLS12, TLS13):
            context = client_context(version)
            session = None
            for turn in range(40):
                resumed, session = visit(hosts.hosts[turn % 2], context, session)
                assert resumed == (turn > 0)
                threading.Event().wait(0.05)
        assert all(shared(one)["ticket_keys_applied"] >= 3 for one in hosts.hosts)


@pytest.mark.parametrize("key", ["rsa:2048", "ecdsa:P-256"])
def test_the_certificate_is_the_secret_where_no_file_is_given(key: str, certificates: Path, tmp_path: Path) -> None:
    """Its key, of whatever type, and not the file: another with the same key will do, another key will not."""
    certificate = certificates / (key.replace(":", "-") + "-localhost.pem")
    same = tmp_path / "same.pem"
    same.write_text("\n\n" + certificate.read_text())
    other = make_certificate(tmp_path, key)[2]
    with backend(echo) as to, proxy(to, str(certificate), "-U", "127.0.0.1:0") as one:
        with proxy(to, str(same), "-U", "127.0.0.1:0", "-P", one.announced["shared cache"]) as friend:
            have_met(friend, 1)
        with proxy(to, str(other), "-U", "127.0.0.1:0", "-P", one.announced["shared cache"]) as foe:
            eventually(lambda: shared(one)["rejected"]["forged"] >= 2, "nothing of it can be opened")
            assert shared(foe)["peers"] == 0


def test_ipv6(ecdsa: str) -> None:
    with backend(echo) as to, proxy(to, ecdsa, "-U", "[::1]:0") as one, \
            proxy(to, ecdsa, "-U", "[::1]:0", "-P", one.announced["shared cache"]) as other:
        have_met(other, 1)
        context = by_id()
        _, session = visit(other, context)
        eventually(lambda: visit(one, context, session)[0], "it resumes")


def ipv6_interface() -> str:
    """One that has IPv6 multicast, as the loopback interface has not."""
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            if line.startswith("fe80"):
                return line.split()[-1]
    pytest.skip("no interface has a link-local IPv6 address")


@pytest.mark.parametrize("group", ["239.%d.%d.%d", "[ff12::%x:%x:%x]"])
def test_a_multicast_group_that_stays_on_this_host(group: str, ecdsa: str) -> None:
    chance = random.SystemRandom()
    own = group % tuple(chance.randrange(1, 255) for _ in range(3))
    interface = ipv6_interface() if ":" in own else "lo"
    options = ["-U", f"{own}:{chance.randrange(20000, 30000)}", "-M", f"{interface},0"]
    with backend(echo) as to, proxy(to, ecdsa, *options) as one, proxy(to, ecdsa, *options) as other, \
            proxy(to, ecdsa, *options) as third:
        for host in (one, other, third):
            have_met(host, 2)
        context = by_id()
        _, session = visit(other, context)
        for host in (one, third):
            eventually(lambda: visit(host, context, session)[0], "it resumes")
        for host in (one, other, third):
            counted = shared(host)["rejected"]
            assert {reason for reason, count in counted.items() if count} <= {"unproven"}


def test_a_reload_goes_on_sharing(ecdsa: str) -> None:
    with farm(ecdsa, "--tickets", "off") as hosts:
        one, other = hosts.hosts
        context = by_id()
        _, before = visit(one, context)
        one.process.send_signal(signal.SIGHUP)
        eventually(lambda: counters(one)["reloads"] == 1 and counters(one)["processes"] == 1, "new workers serve")
        _, after = visit(one, context)
        _, there = visit(other, context)
        for session in (before, after):
            eventually(lambda: visit(other, context, session)[0], "what the workers of both times had")
        eventually(lambda: visit(one, context, there)[0], "and what comes to them")
        eventually(lambda: shared(one)["lost"] == shared(other)["lost"] == 0, "all has come")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_sharing_as_another_user_in_another_root(ecdsa: str, tmp_path: Path) -> None:
    with farm(ecdsa, "-u", "nobody", "-r", str(tmp_path), "--tickets", "off") as hosts:
        one, other = hosts.hosts
        context = by_id()
        _, session = visit(one, context)
        eventually(lambda: visit(other, context, session)[0], "it resumes")
        assert "Uid:\t0" not in Path(f"/proc/{sync_process(one)}/status").read_text()


def test_a_peer_that_is_down_disturbs_nobody(ecdsa: str) -> None:
    with nobody() as silent, backend(echo) as to, proxy(to, ecdsa, "-U", "127.0.0.1:0") as one, \
            proxy(to, ecdsa, "-U", "127.0.0.1:0", "-P", silent, "-P", one.announced["shared cache"]) as other:
        have_met(other, 1)
        context = by_id()
        for _ in range(20):
            _, session = visit(other, context)
            eventually(lambda: visit(one, context, session)[0], "it resumes")
        assert shared(other)["peers"] == 1


def test_the_counters_are_in_both_documents(ecdsa: str) -> None:
    with farm(ecdsa) as hosts:
        one, other = hosts.hosts
        visit(one, by_id())
        applied(other, 1)
        hosts.spoil(lambda datagram: [])
        settled(other, wires=hosts.wires.values())
        counted, families = shared(other), metrics(other)
        for reason, count in counted.pop("rejected").items():
            assert families["tlsdyno_shared_cache_rejected_total"].sum(reason=reason) == count
        for name, value in counted.items():
            family = families.get(f"tlsdyno_shared_cache_{name}_total") or families[f"tlsdyno_shared_cache_{name}"]
            if not name.endswith("_sent"):  # it goes on telling that it lives
                assert family.sum() == value, name
        assert counted["sessions_applied"] == counted["lag_count"] == 1
        assert counted["lag_us_last"] == counted["lag_us_max"] == counted["lag_us_sum"]


def test_what_cannot_be_is_refused(ecdsa: str, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"x" * 15)
    long = tmp_path / "long"
    long.write_bytes(b"x" * 16385)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    on = ("-U", "127.0.0.1:0")
    for options, complaint in [
            (("-P", "127.0.0.1:1"), "--shared-cache-peer: only with --shared-cache"),
            (("-M", "lo"), "--shared-cache-if: only with --shared-cache"),
            (("--shared-cache-key", str(short)), "--shared-cache-key: only with --shared-cache"),
            (("--shared-cache-format", "stud"), "--shared-cache-format: only with --shared-cache"),
            (("-U", "/socket"), "--shared-cache: /socket: not HOST:PORT"),
            (("-U", "127.0.0.1"), "--shared-cache: 127.0.0.1: not HOST:PORT or a path that begins with /"),
            ((*on, "-P", "[::1]:1"),
             "--shared-cache-peer: [::1]:1: of another address family than --shared-cache"),
            ((*on, "-P", "239.1.1.1:1"),
             "--shared-cache-peer: 239.1.1.1:1: a multicast group is given with --shared-cache"),
            (("-U", "239.1.1.1:1", "-P", "127.0.0.1:1"),
             "--shared-cache-peer: 127.0.0.1:1: not together with a multicast group"),
            *(((*on, "-P", peer), f"--shared-cache-peer: {peer}: port 0: nobody can be reached there")
              for peer in ("127.0.0.1:0", "[::1]:0", "*:0")),
            *(((*on, "-P", peer), f"--shared-cache-peer: {peer}: not the address of a host")
              for peer in ("0.0.0.0:1", "*:1", "[::]:1", "[::ffff:0.0.0.0]:1", "255.255.255.255:1")),
            (("-U", "127.0.0.1:1", "-P", "127.0.0.1:2", "-P", "127.0.0.1:1"),
             "--shared-cache-peer: 127.0.0.1:1: this host's own --shared-cache"),
            (("-P", "[::1]:1", "-U", "[::1]:1"), "--shared-cache-peer: [::1]:1: this host's own --shared-cache"),
            ((*on, "-P", "127.0.0.1:1", "-P", "127.0.0.1:2", "-P", "127.0.0.1:1"),
             "--shared-cache-peer: 127.0.0.1:1: given twice"),
            (("-U", "[::]:1", "-P", "[::ffff:127.0.0.1]:1", "-P", "127.0.0.1:1"),
             "--shared-cache-peer: 127.0.0.1:1: given twice"),
            *((("-U", f"{group}:0"),
               f"--shared-cache: {group}:0: port 0: a multicast group has the same port on all hosts")
              for group in ("239.1.1.1", "[ff12::1]")),
            ((*on, "-M", "lo"), "--shared-cache-if: lo: only where --shared-cache is a multicast group"),
            *((("-U", "[ff02::1]:1", *options),
               "--shared-cache: [ff02::1]:1: a group of one link: give its interface with --shared-cache-if (-M)")
              for options in ((), ("-M", "*"))),
            ((*on, "-M", ""), "--shared-cache-if: : must not be empty"),
            ((*on, "-M", ",1"), "--shared-cache-if: ,1: no interface before the comma"),
            ((*on, "-M", "no-such"), "--shared-cache-if: no-such: no such interface"),
            ((*on, "-M", "lo,256"), "--shared-cache-if: lo,256: the hops after the comma are not a number up to 255"),
            ((*on, "--shared-cache-key", str(short)), f"--shared-cache-key: {short}: shorter than 16 bytes"),
            ((*on, "--shared-cache-key", str(long)), f"--shared-cache-key: {long}: larger than 16 KiB"),
            ((*on, "--shared-cache-key", str(tmp_path / "none")),
             f"--shared-cache-key: {tmp_path}/none: cannot be read: No such file or directory"),
            ((*on, "--shared-cache-key", str(tmp_path)),
             f"--shared-cache-key: {tmp_path}: cannot be read: Is a directory"),
            ((*on, "--shared-cache-key", str(fifo)),
             f"--shared-cache-key: {fifo}: cannot be read: not a regular file"),
            ((*on, "--shared-cache-key", "/dev/urandom"),
             "--shared-cache-key: /dev/urandom: cannot be read: not a regular file"),
            ((*on, "-C", "0", "--tickets", "off"),
             "--shared-cache: nothing to share: there is neither a session cache nor a random ticket key"),
            ((*on, "--client"), "--shared-cache: not together with --client, which keeps no sessions"),
            ((*on, "--shared-cache-format", "stud"),
             "--shared-cache-format: stud: knows no ticket keys, so give --tickets off too"),
            ((*on, *("-P", "127.0.0.1:1") * 17), "--shared-cache-peer: 127.0.0.1:1: more than 16 peers")]:
        done = run("proxy", "-t", "-b", "127.0.0.1:1", *options, ecdsa)
        assert (done.returncode, done.stderr) == (2, f"proxy: {complaint}\n")


def test_an_address_that_is_taken_is_refused(ecdsa: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("proxy", "-f", str(tmp_path / "front"), "-b", "127.0.0.1:1", "-U", address, ecdsa)
        assert (done.returncode, done.stderr) == (2, f"proxy: --shared-cache: {address}: Address already in use\n")
        assert not (tmp_path / "front").exists()


def test_sessions_that_sharing_pushes_out_are_counted(ecdsa: str) -> None:
    """By new sessions of a peer, and by what is remembered of those that it withdraws; not where that takes the place
    of the session itself."""
    with farm(ecdsa, "--tickets", "off", own=([], ["-C", "10"])) as hosts:
        one, other = hosts.hosts
        context = client_context(TLS13)
        sessions = [visit(one, context)[1] for _ in range(16)]
        applied(other, 16)
        assert shared(other)["sessions_evicted"] == 6
        assert visit(one, context, sessions[-1])[0] is True
        applied(other, 17)
        assert (shared(other)["withdrawals_applied"], shared(other)["sessions_evicted"]) == (1, 7), "for a new session"
        assert visit(one, context, sessions[0])[0] is True
        applied(other, 18)
        assert (shared(other)["withdrawals_applied"], shared(other)["sessions_evicted"]) == (1, 9), "and for a dead one"
        assert counters(other)["session_evictions"] == 0, "which are those that its own clients push out"


def told(datagram: bytes, secret: bytes) -> list[tuple[int, bytes]]:
    """The messages of a datagram to all: kind and body. GCM without its tag is CTR, and two is where it begins."""
    extracted = hmac.digest(b"tlsdyno sessions between hosts", secret, "sha256")
    key = hmac.digest(extracted, b"sender" + datagram[4:20] + b"\x01", "sha256")
    plain = subprocess.run(["openssl", "enc", "-d", "-aes-256-ctr", "-K", key.hex(), "-iv",
                            datagram[20:32].hex() + "00000002"], input=datagram[32:-16], capture_output=True,
                           timeout=60, check=True).stdout
    messages, at = [], 8  # the date
    while at < len(plain):
        length = int.from_bytes(plain[at + 1:at + 3], "big")
        messages.append((plain[at], plain[at + 3:at + 3 + length]))
        at += 3 + length
    return messages


def test_what_is_dead_is_remembered_until_it_would_have_ended(ecdsa: str, tmp_path: Path) -> None:
    """And a second more, for what is rounded on the way; not for as long as a new session would live."""
    secret = os.urandom(32)
    (tmp_path / "secret").write_bytes(secret)
    with farm(ecdsa, "--tickets", "off", "--shared-cache-key", str(tmp_path / "secret")) as hosts:
        one, other = hosts.hosts
        context = client_context(TLS13)
        _, session = visit(one, context)
        time.sleep(2.1)
        assert visit(one, context, session)[0] is True
        eventually(lambda: shared(other)["withdrawals_applied"] == 1, "it is withdrawn")
        hosts.wires[0, 1].come_through()
        messages = [message for datagram in hosts.wires[0, 1].seen if is_to_all(datagram)
                    for message in told(datagram, secret)]
        ends = {body[8:]: int.from_bytes(body[:8], "big") for kind, body in messages if kind == DEL}
        (dead, remembered), = ends.items()
        born, = {int.from_bytes(body[:8], "big") for kind, body in messages
                 if kind == NEW and dead[1:] in body}  # the ID stands in the session
        assert remembered == born + 1000
