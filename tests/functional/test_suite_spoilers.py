"""Ways to spoil a measurement, each provoked: exactly the rows that it spoils are invalid, with the right reason. (One
more, time that the hypervisor takes, is in test_suite_runner.)"""
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import suite_fakes
from programs import BUILD
from suite_fakes import SCENARIO, TLSDYNO
from tlsdyno_suite import record

SHORT = SCENARIO.replace("400ms", "500ms")


def measured(place: Path, *within: str, **recipe: object) -> dict[str, record.ReadRow]:
    """The rows of a run of the scenario, by how they reuse sessions."""
    command = [*within, str(TLSDYNO), "run", str(place / "some.toml"), "--out", str(place / "out")]
    result = subprocess.run(command, env=suite_fakes.environment(place / "build", **recipe), capture_output=True,
                            text=True)
    assert result.returncode in (0, 4), result.stderr
    rows = {row["reuse"]: row for row in record.read(place / "out")}
    assert set(rows) == {"never", "always"}
    return rows


@pytest.fixture
def faked(tmp_path):
    suite_fakes.build(tmp_path / "build")
    (tmp_path / "some.toml").write_text(SHORT)
    return tmp_path


@pytest.fixture
def real(tmp_path):
    """A build directory whose programs a test may put something before."""
    (tmp_path / "build").mkdir()
    for name in ("proxy", "echo-backend", "loadgen", "tls-floor"):
        (tmp_path / "build" / name).symlink_to(BUILD / name)
    (tmp_path / "some.toml").write_text(SHORT)
    return tmp_path


def put_before(place: Path, name: str, script: str) -> None:
    """A shell script in the program's place; it has the program in $PROGRAM."""
    path = place / "build" / name
    path.unlink()
    path.write_text(f"#!/bin/sh\nPROGRAM={shlex.quote(str(BUILD / name))}\n{script}\n")
    path.chmod(0o755)


# What a program that stands in for the real one does, what stands of the rows that this spoils, and why. `only` does it
# in the cell with that reuse.
FAKED = {
    "slow client": ({"burns": "loadgen", "only": "never"}, "cost",
                    ("load generator was the bottleneck", "something else used CPU")),
    "backend bound": ({"burns": "echo-backend"}, "cost",
                      ("backend was the bottleneck", "something else used CPU", "several filled CPU")),
    "resumption leak": ({"counts": {"handshakes_full": 999, "handshakes_resumed": 1}, "only": "never"}, "",
                        ("1 handshakes were resumed and none should be",)),
    "wrong cipher": ({"result": {"negotiated": [{"tls_version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384",
                                                 "group": "X25519", "count": 1}]}, "only": "never"}, "",
                     ("negotiated cipher TLS_AES_256_GCM_SHA384, not TLS_AES_128_GCM_SHA256",)),
    "unsteady subject": ({"result": {"half_rates": {"first": 500, "second": 400}}, "only": "always"}, "cost",
                         ("not steady: the halves of the window differ by 22.2 %",)),
    "pinning undone": ({"strays": "proxy"}, "", ("not on its CPUs: subject",)),
}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one CPU nobody is elsewhere")
@pytest.mark.parametrize("name", FAKED)
def test_a_spoiler_spoils_what_it_touches(faked, name):
    recipe, stands, reasons = FAKED[name]
    if "result" in recipe or "counts" in recipe:  # what the load generator says takes no time
        (faked / "some.toml").write_text(SHORT.replace("500ms", "200ms"))
    if "burns" in recipe:  # from one end of the window to the other: at both a reading covers idle time too
        (faked / "some.toml").write_text(SHORT.replace("500ms", "2s"))
    for reuse, row in measured(faked, **recipe).items():
        if recipe.get("only", reuse) != reuse:
            assert row["stands"] or "clocks" in row["reason"], row["reason"]
            assert not any(reason in row["reason"] for reason in reasons[:1]), row["reason"]
            continue
        assert row["status"] == "invalid" and any(reason in row["reason"] for reason in reasons), row["reason"]
        # On a busy machine more may be spoilt, and the reason says so.
        assert row["stands"] == stands or "clocks" in row["reason"], row["reason"]


def test_a_cache_that_is_too_small_spoils_the_rows_that_resume(real):
    """Sixteen clients, and room for two sessions."""
    (real / "some.toml").write_text(SHORT.replace("connections = 4", "connections = 16").replace(
        "TLSv1.3", "TLSv1.2").replace("TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256")
        + 'resume_with = "id"\n')
    put_before(real, "proxy", 'exec "$PROGRAM" "$@" -C 2')
    rows = measured(real)
    assert rows["never"]["stands"] in ("cost", "all"), rows["never"]["reason"]
    assert rows["always"]["stands"] == "" and "of the handshakes were resumed, not 100.0 %" in rows["always"]["reason"]
    assert "the subject refused" in rows["always"]["reason"]


def test_too_few_descriptors_spoil_the_rows_of_who_has_them(real):
    put_before(real, "loadgen", 'ulimit -n 9; exec "$PROGRAM" "$@"')
    for row in measured(real).values():
        assert row["stands"] == "" and ("fd_unavailable" in row["reason"] or row["status"] == "failed"), row["reason"]


def test_too_few_descriptors_for_a_cell_skip_it(real):
    for row in measured(real, "prlimit", "--nofile=100:100").values():
        assert row["status"] == "skipped" and row["reason"] == "needs 208 open files and may have 100 (ulimit -Hn)"


NAMESPACE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
CAN_NAMESPACE = shutil.which("unshare") and shutil.which("ip") and subprocess.run(
    [*NAMESPACE, f"ip link set lo up && echo 40000 40019 >{PORTS}"], capture_output=True).returncode == 0


@pytest.mark.skipif(not CAN_NAMESPACE, reason="no network namespace of one's own")
def test_a_full_range_of_ports_spoils_the_rows_that_open_connections(real):
    """Twenty ports for the load generator, each blocked for a minute after use."""
    put_before(real, "loadgen", f"""echo 40000 40019 >{PORTS}
"$PROGRAM" "$@"
status=$?
echo 32768 60999 >{PORTS}
exit $status""")
    script = 'ip link set lo up && echo 0 >/proc/sys/net/ipv4/tcp_tw_reuse && exec "$@"'
    for row in measured(real, *NAMESPACE, script, "sh").values():
        assert (row["status"], row["stands"]) == ("invalid", ""), row["reason"]
        assert "address_unavailable" in row["reason"], row["reason"]
