"""Scenario files: what they expand to, and that whatever is wrong in one is refused with its file, key and reason."""
import re
from pathlib import Path

import pytest
from suite_fakes import SCENARIO
from tlsdyno_suite import scenario
from tlsdyno_suite.cell import contradiction
from tlsdyno_suite.programs import SCENARIOS
from tlsdyno_suite.refusal import Refused
from tlsdyno_suite.subjects import DRIVERS

KNOWN = tuple(DRIVERS)


def load(tmp_path: Path, text: str) -> scenario.Scenario:
    path = tmp_path / "some.toml"
    path.write_text(text)
    return scenario.load(path, KNOWN)


def test_quick_is_five_subjects_times_six_cases():
    cells = scenario.expand(scenario.load(SCENARIOS / "quick.toml", KNOWN))
    assert len(cells) == 30 and len(set(cells)) == 30
    assert {cell.subject for cell in cells} == {"reference", "hitch", "haproxy", "nginx", "stunnel"}
    assert {cell.case for cell in cells} == {
        f"tls={tls};work={work}"
        for tls in ("tls1.3-ecdsa", "tls1.2-rsa") for work in ("full", "resumed", "keep-alive")}
    assert not [cell for cell in cells if contradiction(cell)]


def test_a_bundle_sets_its_parameters_together(tmp_path):
    cells = scenario.expand(load(tmp_path, SCENARIO.replace('reuse = ["never", "always"]', """
reuse = ["never"]
[axes.size]
small = { response_bytes = 1, connections = 2 }
large = { response_bytes = 1000, connections = 3 }
""").replace("connections = 4\n", "")))
    assert [(cell.case, cell.response_bytes, cell.connections) for cell in cells] == [
        ("size=small", 1, 2), ("size=large", 1000, 3)]


def test_only_keeps_the_values_named_and_nothing_else(tmp_path):
    loaded = scenario.narrow(load(tmp_path, SCENARIO), ["reuse=always"])
    assert [cell.reuse for cell in scenario.expand(loaded)] == ["always"]


@pytest.mark.parametrize("restriction", ["colour=red", "reuse=sometimes", "reuse", "connections=4", "subject=apache"])
def test_only_refuses_what_is_no_axis_or_no_value(tmp_path, restriction):
    with pytest.raises(Refused, match="--only"):
        scenario.narrow(load(tmp_path, SCENARIO), [restriction])


BROKEN = {
    "empty": ("", "the file is empty"),
    "no toml": ("title = ", "not a TOML file"),
    "unknown key": (SCENARIO.replace("warmup", "warm_up"), r"load\.warm_up: unknown key .*'warmup'"),
    "unknown table": (SCENARIO + "[tabel]\n", r"tabel: unknown key"),
    "unknown axis": (SCENARIO.replace("reuse =", "resue ="), r"axes\.resue: unknown axis .*'reuse'"),
    "unknown subject": (SCENARIO.replace('"reference"', '"apache"'), r"subject\.names: unknown subject 'apache'"),
    "no duration": (SCENARIO.replace('duration = "400ms"', ""), r"load\.duration: is missing"),
    "no cipher": (re.sub("cipher.*", "", SCENARIO), r"load\.cipher: is missing"),
    "bad time": (SCENARIO.replace("400ms", "soon"), r"load\.duration: impossible value 'soon'"),
    "no time": (SCENARIO.replace("400ms", "0s"), r"load\.duration: must be longer"),
    "bad reuse": (SCENARIO.replace('"always"', '"every:1"'), r"axes\.reuse\[1\]: impossible value 'every:1'"),
    "bad key": (SCENARIO.replace("ecdsa:P-256", "rsa:77"), r"load\.cert_key: impossible value 'rsa:77'"),
    "bad version": (SCENARIO.replace("TLSv1.3", "TLSv1.4"), r"load\.tls_version: impossible value 'TLSv1.4'"),
    "no connections": (SCENARIO.replace("connections = 4", "connections = 0"), r"load\.connections: "),
    "empty axis": (SCENARIO.replace('["never", "always"]', "[]"), r"axes\.reuse: needs at least one value"),
    "twice": (SCENARIO.replace("[load]", '[load]\nreuse = "never"'), r"axes\.reuse: sets reuse, which load sets"),
    "uneven bundles": (SCENARIO + "[axes.x]\na = { cores = 1 }\nb = { group = 'X25519' }\n",
                       r"axes\.x: every bundle of an axis must set the same parameters"),
    "unknown in bundle": (SCENARIO + "[axes.x]\na = { colour = 1 }\n", r"axes\.x\.a\.colour: unknown key"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_file_key_and_reason(tmp_path, name):
    text, reason = BROKEN[name]
    with pytest.raises(Refused, match=reason) as refusal:
        load(tmp_path, text)
    assert str(refusal.value).startswith(str(tmp_path / "some.toml") + ": ") and "\n" not in str(refusal.value)


def test_combinations_that_mean_nothing_say_why(tmp_path):
    cells = scenario.expand(load(tmp_path, SCENARIO.replace('reuse = ["never", "always"]', """
tls_version = ["TLSv1.2", "TLSv1.3"]
cipher = ["TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-NOSUCH"]
requests_per_connection = [1, "inf"]
reuse = ["never", "always"]
""").replace('tls_version = "TLSv1.3"\n', "").replace('cipher = "TLS_AES_128_GCM_SHA256"\n', "")))
    fine = [cell for cell in cells if not contradiction(cell)]
    assert {(cell.tls_version, cell.cipher) for cell in fine} == {("TLSv1.3", "TLS_AES_128_GCM_SHA256")}
    assert ("always", "inf") not in {(cell.reuse, cell.requests_per_connection) for cell in fine}
    reasons = {contradiction(cell) for cell in cells}
    assert "the linked OpenSSL has no ECDHE-ECDSA-NOSUCH" in reasons
    assert "ECDHE-RSA-AES128-GCM-SHA256 cannot be authenticated with a key ecdsa:P-256" in reasons
