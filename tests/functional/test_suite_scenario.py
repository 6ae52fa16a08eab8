"""Scenario files: what they expand to, and that whatever is wrong in one is refused with its file, key and reason."""
import re
from dataclasses import replace
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
    "nan time": (SCENARIO.replace('"400ms"', "nan"), r"load\.duration: impossible value nan"),
    "infinite time": (SCENARIO.replace('"400ms"', "inf"), r"load\.duration: impossible value inf"),
    "infinite warmup": (SCENARIO.replace('"100ms"', "-inf"), r"load\.warmup: impossible value -inf"),
    "huge time": (SCENARIO.replace('"400ms"', "1e300"), r"load\.duration: '1e\+300' is not a time"),
    "time of a century": (SCENARIO.replace("400ms", "99999999m"), r"load\.duration: '99999999m' is longer than a day"),
    "too short a time": (SCENARIO.replace('"400ms"', "0.0004"), r"load\.duration: must be longer than nothing"),
    "negative time": (SCENARIO.replace('"400ms"', "-1"), r"load\.duration: impossible value -1"),
    "true time": (SCENARIO.replace('"400ms"', "true"), r"load\.duration: impossible value True"),
    "nan connections": (SCENARIO.replace("connections = 4", "connections = nan"),
                        r"load\.connections: impossible value nan \(a whole number is wanted\)"),
    "huge connections": (SCENARIO.replace("connections = 4", f"connections = {10**30}"),
                         r"load\.connections: impossible value 10* \(the largest is 1000000\)"),
    "fraction of a core": (SCENARIO + "cores = 2.0\n", r"load\.cores: impossible value 2\.0 \(a whole number"),
    "huge seed": (f"seed = {2**70}\n" + SCENARIO, r"seed: impossible value \d+ \(the largest is"),
    "infinite seed": ("seed = inf\n" + SCENARIO, r"seed: impossible value inf"),
    "infinite repeats": (SCENARIO + "repeats = inf\n", r"load\.repeats: impossible value inf"),
    "nan size": (SCENARIO + "response_bytes = nan\n", r"load\.response_bytes: impossible value nan"),
    "infinite requests": (SCENARIO + "requests_per_connection = inf\n",
                          r"load\.requests_per_connection: impossible value inf"),
    "nan in an axis": (SCENARIO.replace('reuse = ["never", "always"]', "connections = [1, nan]").replace(
        "connections = 4\n", ""), r"axes\.connections\[1\]: impossible value nan"),
    "nan in a bundle": (SCENARIO + "[axes.x]\na = { cores = nan }\n", r"axes\.x\.a\.cores: impossible value nan"),
    "infinite cpu": (SCENARIO + "[placement]\ncpus = [inf]\n", r"placement\.cpus\[0\]: impossible value inf"),
    "huge period": (SCENARIO.replace('"always"', '"every:99999999999"'), r"axes\.reuse\[1\]: impossible value"),
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
    assert "no cipher is called ECDHE-ECDSA-NOSUCH as far as the linked OpenSSL knows" in str(reasons)
    assert "ECDHE-RSA-AES128-GCM-SHA256 cannot be authenticated with a key ecdsa:P-256" in reasons


def test_where_a_host_dies_there_are_as_many_clients_as_soon_have_their_turn(tmp_path):
    cell, = scenario.expand(load(tmp_path, SCENARIO.replace('["never", "always"]', '["always"]') + """
hosts = 2
spread = "sticky"
failover = "kill"
loop = "rate:65%"
"""))
    assert cell.rate_per_s is None and cell.rate_share == 0.65
    many = replace(cell, connections=5000)
    paced = many.at_rate(1000)
    assert (paced.loop, paced.rate_per_s, paced.rate_share, paced.connections) == ("rate:1000", 1000, None, 1200)
    # As long as was planned, in which the first ones, with full handshakes, are no more than the hosts keep up with.
    assert paced.lead_s == pytest.approx(many.lead_s) and paced.ramp_s == pytest.approx(8 * 1.2)
    assert replace(many, loop="rate:50").ramp_s == 12 and replace(many, loop="rate:50", connections=50).ramp_s == 0
    assert many.at_rate(9000).connections == 5000 and many.at_rate(1).connections == 2
    assert replace(many, failover="none").at_rate(1000).connections == 5000


@pytest.mark.parametrize("cipher, tls_version, cert_key, reason", [
    ("TLS_AES_128_GCM_SHA256", "TLSv1.3", "rsa:2048", None),
    ("TLS_AES_128_CCM_SHA256", "TLSv1.3", "ecdsa:P-256", None),  # not among those that are offered by default
    ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", "ed25519", None),
    ("AES128-SHA", "TLSv1", "rsa:1024", None),
    ("TLS_NOPE", "TLSv1.3", "rsa:2048", "no cipher is called TLS_NOPE as far as the linked OpenSSL knows"),
    ("TLS_AES_128_GMC_SHA256", "TLSv1.3", "rsa:2048", r"no cipher is called .*\(did you mean TLS_AES_128_GCM_SHA256\?"),
    ("HIGH", "TLSv1.2", "rsa:2048", "no cipher is called HIGH"),  # a word of OpenSSL's lists, no cipher
    ("EXP-RC4-MD5", "TLSv1", "rsa:1024", "^the linked OpenSSL has no EXP-RC4-MD5$"),
    ("ECDHE-RSA-AES128-GCM-SHA256", "TLSv1", "rsa:2048", "is not a cipher of TLSv1: it came with TLSv1.2"),
    ("PSK-AES128-CBC-SHA", "TLSv1.2", "rsa:2048", "cannot be authenticated with a key rsa:2048"),
])
def test_ciphers_are_held_against_what_the_library_knows(tmp_path, cipher, tls_version, cert_key, reason):
    cell = replace(scenario.expand(load(tmp_path, SCENARIO))[0], cipher=cipher, tls_version=tls_version,
                   cert_key=cert_key)
    assert contradiction(cell) is None if reason is None else re.search(reason, str(contradiction(cell)))
