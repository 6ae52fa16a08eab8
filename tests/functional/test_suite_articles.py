"""Loads, origins and shapes of load that articles used, the whole way with the real programs."""
import csv
import subprocess
from pathlib import Path

import pytest
from programs import run as run_program
from suite_fakes import SCENARIO, TLSDYNO
from tlsdyno_suite import article, record, scenario
from tlsdyno_suite.cell import contradiction
from tlsdyno_suite.ciphers import spelled
from tlsdyno_suite.placement import place as placed
from tlsdyno_suite.programs import installed
from tlsdyno_suite.refusal import Refused
from tlsdyno_suite.subjects import DRIVERS

KNOWN = tuple(DRIVERS)
POSTS = """
title = "posts"
[subject]
names = ["http", "https", "tls-off"]
[axes]
load_tool = ["wrk", "loadgen"]
[load]
cert_key = "ecdsa:P-256"
tls_version = "TLSv1.3"
cipher = "TLS_AES_256_GCM_SHA384"
requests_per_connection = "inf"
request_bytes = 100
response_bytes = 100
connections = 20
backend = "unix"
duration = "500ms"
warmup = "100ms"
[placement]
backend = "within"
cores = "all-but-one"
"""


def run(tmp_path: Path, text: str, *options: str) -> tuple[subprocess.CompletedProcess[str], list]:
    (tmp_path / "some.toml").write_text(text)
    command = [str(TLSDYNO), "run", str(tmp_path / "some.toml"), "--out", str(tmp_path / "out"), *options]
    result = subprocess.run(command, capture_output=True, text=True)
    return result, record.read(tmp_path / "out")


@pytest.mark.skipif(installed("wrk") is None, reason="wrk is not installed")
def test_wrk_and_loadgen_measure_an_origin_with_and_without_tls_before_it(tmp_path):
    result, rows = run(tmp_path, POSTS)
    assert len(rows) == 6, result.stderr
    for row in rows:
        # Whether a rate stands depends on the machine.
        assert row["status"] in ("ok", "invalid"), row["reason"]
        assert row["stands"] or "clocks" in row["reason"], (row["subject"], row["load_tool"], row["reason"])
        assert float(row["transactions_per_s"]) > 0 and float(row["transaction_p50_us"]) > 0
        # The backend is a part of the subject.
        assert float(row["subject_cpu_us_per_op"]) > 0 and row["backend_cpu_us_per_op"] == ""
        tells = row["load_tool"] == "loadgen" and row["subject"] != "http"
        assert row["negotiated_cipher"] == ("TLS_AES_256_GCM_SHA384" if tells else "")
        assert bool(row["floor_kind"]) == (row["subject"] != "http")
    with (tmp_path / "out" / article.FILE).open(newline="") as file:
        lines = list(csv.reader(file))
    assert {line[0] for line in lines} == {"http", "https", "tls-off"} and len(lines) == 3
    for config, size, requests, *times in lines:
        mean, stdev, p50, p90, p99 = map(float, times)
        assert size == "100" and int(requests) > 0 and 0 < p50 <= p90 <= p99 and mean > 0 and stdev >= 0
        row = next(row for row in rows if row["subject"] == config and row["load_tool"] == "wrk")
        assert float(row["transaction_p50_us"]) == p50


def test_lines_of_rows_that_were_not_kept_are_cut_off(tmp_path):
    (tmp_path / article.FILE).write_text("a\nb\nc\nhalf")
    rows = [{"load_tool": "wrk", "status": status} for status in ("ok", "skipped", "invalid", "failed")]
    article.cut(tmp_path, [*rows, {"load_tool": "loadgen", "status": "ok"}])
    assert (tmp_path / article.FILE).read_text() == "a\nb\n"


OF_2011 = SCENARIO.replace("ecdsa:P-256", "rsa:1024").replace("TLSv1.3", "TLSv1").replace(
    "TLS_AES_128_GCM_SHA256", "AES256-SHA") + 'resume_with = "id"\n'


def test_what_was_spoken_in_2011_is_measured_and_has_a_floor(tmp_path):
    result, rows = run(tmp_path, OF_2011)
    assert len(rows) == 2, result.stderr
    for row in rows:
        assert row["stands"] or "clocks" in row["reason"], row["reason"]
        assert (row["negotiated_version"], row["negotiated_cipher"]) == ("TLSv1", "AES256-SHA")
        assert float(row["floor_cpu_us_per_op"]) > 0 and row["floor_reason"] == ""


SEARCH = SCENARIO.replace('["never", "always"]', '["every:4"]') + 'loop = "search:100ms,0.1"\n'


def test_the_highest_rate_that_is_answered_well_is_searched(tmp_path):
    result, rows = run(tmp_path, SEARCH, "--duration", "200ms")
    row = rows[0]
    assert row["status"] in ("ok", "invalid") and row["loop"] == "search:100ms,0.1", (row["reason"], result.stderr)
    # There are machines on which nothing is answered in a tenth of a second.
    assert float(row["transaction_mean_us"]) < 100_000 or "no rate met search:100ms,0.1" in row["reason"]


def test_a_share_of_what_a_closed_loop_does_is_asked_for(tmp_path):
    loops = '[axes]\nloop = ["rate:10%", "rate:20%"]'
    text = SCENARIO.replace('["never", "always"]', '["never"]').replace("[axes]", loops)
    result, rows = run(tmp_path, text, "--duration", "1s")
    for row in rows:
        assert row["stands"] or "clocks" in row["reason"] or "that were due" in row["reason"], row["reason"]
        assert float(row["connections_per_s"]) < 1.1 * float(row["target_rate_per_s"]), result.stderr
    assert {row["loop"] for row in rows} == {"rate:10%", "rate:20%"} and "% of a closed loop's rate" in result.stdout


QUEUED = SCENARIO.replace('reuse = ["never", "always"]', 'maxconn = [5, 20]').replace("connections = 4", """
connections = 20
loop = "burst"
service_model = "quadratic:20ms,4"
""")


@pytest.mark.skipif("--service-model" not in run_program("echo-backend", "--help").stdout,
                    reason="the backend has no service model")
def test_a_queue_before_a_server_that_slows_down(tmp_path):
    """Twenty requests, 20 ms each five at a time, 100 ms each all at once."""
    result, rows = run(tmp_path, QUEUED)
    by_limit = {row["maxconn"]: row for row in rows}
    for limit, service_ms, longest_ms in (("5", 20, 80), ("20", 100, 100)):
        row = by_limit[limit]
        assert row["stands"] == "all", (row["reason"], result.stderr)
        assert row["subject_cpu_us_per_op"] == "" and row["transactions_per_s"] == ""
        # A busy machine makes it longer, and spreads the arrivals; nothing makes five times four requests shorter.
        assert float(row["transaction_max_us"]) / 1000 >= 0.4 * longest_ms and 0 < float(row["service_mean_ms"])
        assert limit == "20" or float(row["service_mean_ms"]) >= 0.99 * service_ms


@pytest.mark.parametrize("name, version, key, wanted", [
    ("AES128-GCM", "TLSv1.3", "rsa:2048", "TLS_AES_128_GCM_SHA256"),
    ("AES128-GCM", "TLSv1.2", "rsa:2048", "ECDHE-RSA-AES128-GCM-SHA256"),
    ("AES256-GCM", "TLSv1.2", "ed25519", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ("CHACHA20", "TLSv1.2", "ecdsa:P-256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ("CHACHA20", "TLSv1.3", "ecdsa:P-256", "TLS_CHACHA20_POLY1305_SHA256"),
    ("AES256-SHA", "TLSv1", "rsa:1024", "AES256-SHA")])
def test_one_name_stands_for_a_cipher_of_each_version_and_key(name, version, key, wanted):
    assert spelled(name, version, key) == wanted


WRONG = {
    "hybrid before 1.3": ({"group": '"X25519MLKEM768"', "tls_version": '"TLSv1.2"', "cipher": '"AES128-GCM"'},
                          "X25519MLKEM768 is a group of TLS 1.3"),
    "burst kept": ({"loop": '"burst"', "requests_per_connection": '"inf"'}, "a burst is of new connections"),
    "wrk once": ({"load_tool": '"wrk"'}, "wrk keeps its connections"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_combined_says_why(tmp_path, name):
    changes, reason = WRONG[name]
    lines = [line for line in SCENARIO.replace('"never", "always"', '"never"').splitlines()
             if line.partition(" =")[0] not in changes]
    (tmp_path / "some.toml").write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in changes.items())]))
    cells = scenario.expand(scenario.load(tmp_path / "some.toml", KNOWN))
    assert reason in str(contradiction(cells[0]))


def test_all_cores_but_one_are_those_of_the_machine_or_of_the_scenario(tmp_path):
    (tmp_path / "some.toml").write_text(POSTS + "cpus = [0, 3, 5, 7]\n")
    cell = scenario.expand(scenario.load(tmp_path / "some.toml", KNOWN))[0]
    assert cell.cores == 3
    assert str(placed(cell, (0, 3, 5, 7), "within")) == "subject 0,3,5; client 7; backend 0,3,5"
    (tmp_path / "some.toml").write_text(POSTS.replace("connections = 20", "connections = 20\ncores = 1"))
    with pytest.raises(Refused, match="placement.cores: load sets cores already"):
        scenario.load(tmp_path / "some.toml", KNOWN)
