"""The whole way with the real programs: sessions resume as asked, counted alike on both sides."""
import csv
import subprocess

import pytest
from programs import BUILD
from suite_fakes import SCENARIO, TLSDYNO

BOTH = SCENARIO.replace('["reference"]', '["reference", "reference-no-resume"]').replace('"ecdsa:P-256"', '"rsa:2048"')
OLD = BOTH.replace("TLSv1.3", "TLSv1.2").replace("TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256")
VERSIONS = {
    "TLS 1.3 by ticket": BOTH,
    "TLS 1.2 by ticket": OLD + 'resume_with = "ticket"\n',
    # An ECDSA certificate before TLS 1.3 needs its curve among the groups that are offered.
    "TLS 1.2 with ECDSA": OLD.replace("rsa:2048", "ecdsa:P-256").replace("ECDHE-RSA", "ECDHE-ECDSA"),
    "TLS 1.2 by session ID": OLD + 'resume_with = "id"\nbackend = "unix"\n',
}


KEPT = SCENARIO.replace('reuse = ["never", "always"]', """
[axes.work]
tcp = { backend = "tcp", loop = "closed" }
unix = { backend = "unix", loop = "closed" }
held = { backend = "tcp", loop = "hold" }
drowned = { backend = "tcp", loop = "rate:2000000" }
""").replace("connections = 4", "connections = 200") + 'requests_per_connection = "inf"\nresponse_bytes = 1024\n'


def stands(row: dict[str, str]) -> bool:
    """Whether it measured what it claims. Whether the rate is one, and the clocks were read in time, depends on the
    machine."""
    return row["stands"] in ("cost", "all") or row["reason"].startswith("the CPU clocks were not read")


def test_connections_that_stay_are_measured_at_work_at_rest_and_beyond_what_can_be_done(tmp_path):
    (tmp_path / "some.toml").write_text(KEPT)
    result = subprocess.run([str(TLSDYNO), "run", str(tmp_path / "some.toml"), "--out", str(tmp_path / "out"),
                             "--duration", "1500ms"], capture_output=True, text=True)
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        rows = {row["case"].partition("=")[2]: row for row in csv.DictReader(file)}
    assert len(rows) == 4, result.stderr
    for name in ("tcp", "unix"):
        row = rows[name]
        assert stands(row) and row["floor_kind"] == "relay", row["reason"]
        # No relay is cheaper than a bare one by much, nor is a good one a multiple of it, on however busy a machine.
        assert 0.1 < float(row["efficiency"]) < 2
    assert rows["held"]["stands"] == "all", rows["held"]["reason"]
    # OpenSSL alone needs some 14; AddressSanitizer surrounds and keeps whatever is allocated.
    assert 4 < float(rows["held"]["subject_idle_kib_per_connection"]) < (1000 if BUILD.name == "san" else 100)
    assert rows["drowned"]["stands"] == "" and "that were due never began" in rows["drowned"]["reason"]
    assert result.returncode == 4


@pytest.mark.parametrize("kind", VERSIONS)
def test_resumption_and_its_absence_are_proven_on_both_sides(tmp_path, kind):
    (tmp_path / "some.toml").write_text(VERSIONS[kind])
    result = subprocess.run([str(TLSDYNO), "run", str(tmp_path / "some.toml"), "--out", str(tmp_path / "out")],
                            capture_output=True, text=True)
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        rows = {(row["subject"], row["reuse"]): row for row in csv.DictReader(file)}
    assert len(rows) == 4, result.stderr
    for row in (rows["reference", "never"], rows["reference", "always"], rows["reference-no-resume", "never"]):
        assert stands(row), row["reason"]
        assert "resumed" not in row["reason"] and "counted otherwise" not in row["reason"]
        assert float(row["subject_cpu_us_per_op"]) > 0 and float(row["efficiency"]) > 0
    # A signature costs whoever makes it many times what a client does that verifies none.
    full = rows["reference", "never"]
    cost = {role: float(full[f"{role}_cpu_us_per_op"]) for role in ("subject", "client", "backend")}
    assert cost["subject"] > max(cost["client"], cost["backend"]) and min(cost.values()) > 0
    assert rows["reference", "never"]["resumed_share"] == "0" and rows["reference", "always"]["resumed_share"] == "1"
    # One that never resumes is measured as such, and held against full handshakes.
    refusing = rows["reference-no-resume", "always"]
    assert stands(refusing) and refusing["resumed_share"] == "0", refusing["reason"]
    assert "counted otherwise" not in refusing["reason"] and result.returncode in (0, 4)
    assert float(refusing["floor_cpu_us_per_op"]) == float(rows["reference", "never"]["floor_cpu_us_per_op"])
