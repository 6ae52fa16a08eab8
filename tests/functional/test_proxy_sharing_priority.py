"""proxy-sync runs ahead of the workers where the system lets it, and not for those who keep it busy."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hosts import farm, is_to_all, sync_process
from programs import Running, children, program
from proxies import eventually

BE_FIRST = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
RLIMIT_RTPRIO = 14  # which the module has no name for
BECOME_NOBODY = f"import os, resource; resource.setrlimit({RLIMIT_RTPRIO}, (1, 1)); os.setuid(65534); "


def can(code: str) -> bool:
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False,
                          timeout=60).returncode == 0


IS_USUAL = os.sched_getscheduler(0) == os.SCHED_OTHER and os.getpriority(os.PRIO_PROCESS, 0) <= 0
AS_NOBODY = pytest.param(["--user", "nobody"], id="as nobody", marks=pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become another user"))


def policy(server: Running) -> int:
    """How proxy-sync is scheduled; all others as ever."""
    found = {pid: os.sched_getscheduler(pid) for pid in [server.process.pid, *children(server.process.pid)]}
    own = found.pop(sync_process(server))
    assert set(found.values()) == {os.SCHED_OTHER}
    return own


@pytest.mark.skipif(not IS_USUAL or not can(BE_FIRST), reason="the system lets nobody run ahead of others")
@pytest.mark.parametrize("options", [pytest.param([], id="as who started it"), AS_NOBODY])
def test_it_runs_ahead_of_others_until_somebody_keeps_it_busy(options: list[str], ecdsa: str) -> None:
    """With datagrams that look as a peer's do, so that each is opened, in vain: it is the only one that they cost."""
    with farm(ecdsa, *options) as hosts:
        other, seen = hosts.hosts[1], hosts.wires[0, 1].seen
        eventually(lambda: any(map(is_to_all, seen)), "a sign of life")
        beginning = next(filter(is_to_all, seen))[:24].hex()
        assert policy(other) == os.SCHED_RR
        with subprocess.Popen([program("bench/datagram-flood"), other.announced["shared cache"], "1000000",
                               "1000000000", beginning], stdout=subprocess.DEVNULL) as attack:
            try:
                eventually(lambda: policy(other) == os.SCHED_OTHER, "it steps back")
            finally:
                attack.kill()
        if not options or can(BECOME_NOBODY + BE_FIRST):
            eventually(lambda: policy(other) == os.SCHED_RR, "it is first again")
        assert policy(hosts.hosts[0]) == os.SCHED_RR


def test_who_is_told_to_be_nice_stays_so(ecdsa: str) -> None:
    with farm(ecdsa, within=(["nice", "-n", "1"], ["nice", "-n", "1"])) as hosts:
        for server in hosts.hosts:
            assert policy(server) == os.SCHED_OTHER
            assert os.getpriority(os.PRIO_PROCESS, sync_process(server)) > 0
