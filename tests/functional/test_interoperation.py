"""Both engines against other people's TLS servers: every version, suite, group, key and kind of resumption they claim.

With `openssl s_server` every combination of them is tried. With the others every suite, every group and every kind of
resumption is, once in each version and with each key; that they combine is known by then."""
from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from interoperating_servers import SERVERS, Farm, farm
from programs import run

ENGINES = ["light", "openssl"]
VERSIONS = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
GROUPS = ["X25519", "P-256", "P-384", "P-521"]
SUITES_13 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
# After "ECDHE-RSA-" and "ECDHE-ECDSA-", and what RSA key exchange has.
ECDHE_12 = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-SHA256", "AES256-SHA384"]
RSA_12 = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA256", "AES256-SHA256"]
SINCE_10 = ["AES128-SHA", "AES256-SHA"]
KEYS = {"RSA": "rsa:2048", "ECDSA": "ecdsa:P-256"}

CONNECTIONS = 6  # of a run, two at a time


@dataclass(frozen=True)
class Combination:
    version: str
    suite: str
    group: str  # "" where the suite has no use for one
    key: str
    kind: str  # of resumption: never, id, ticket

    def options(self) -> list[str]:
        group = self.group or "X25519"
        # Before TLS 1.3 the curve of the certificate must be among those offered.
        groups = group if group == "P-256" or self.version == "TLSv1.3" else f"{group}:P-256"
        reuse = ["--reuse", "never"] if self.kind == "never" else ["--reuse", "always", "--resume-with", self.kind]
        return ["--tls-version", self.version, "--cipher", self.suite, "--group", groups, *reuse]


def suites(version: str, key: str) -> list[str]:
    if version == "TLSv1.3":
        return SUITES_13
    new = version == "TLSv1.2"
    found = [f"ECDHE-{key}-{name}" for name in (ECDHE_12 if new else []) + SINCE_10]
    return found + ((RSA_12 if new else []) + SINCE_10 if key == "RSA" else [])


def kinds(version: str) -> list[str]:
    return ["never", "ticket"] if version == "TLSv1.3" else ["never", "id", "ticket"]


def has_group(suite: str) -> bool:
    return suite.startswith(("TLS_", "ECDHE-"))


def all_of_them(version: str) -> Iterator[Combination]:
    for key in KEYS:
        for suite in suites(version, key):
            for group in GROUPS if has_group(suite) else [""]:
                for kind in kinds(version):
                    yield Combination(version, suite, group, key, kind)


def each_once(version: str) -> Iterator[Combination]:
    """Suites, groups and kinds side by side, each as often as it takes to have had all of the longest list."""
    for key in KEYS:
        these = suites(version, key)
        for number in range(max(len(these), len(GROUPS), len(kinds(version)))):
            suite = these[number % len(these)]
            group = GROUPS[number % len(GROUPS)] if has_group(suite) else ""
            yield Combination(version, suite, group, key, kinds(version)[number % len(kinds(version))])


# What the light engine does not speak, and the other one does: not all there is, but something of each kind.
OPENSSL_ONLY = [
    Combination("TLSv1.3", "TLS_AES_128_CCM_SHA256", "X25519", "ECDSA", "ticket"),
    Combination("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X448", "RSA", "ticket"),
    Combination("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "X448", "RSA", "id"),
    Combination("TLSv1.2", "DHE-RSA-AES128-GCM-SHA256", "", "RSA", "ticket"),
]


# ---- What a server cannot do ----

@dataclass(frozen=True)
class Cannot:
    """Every connection of such a combination is refused with an alert."""

    why: str
    server: str
    suite: str


NO_CCM = "OpenSSL's default list of TLS 1.3 suites is without CCM, and this server is not told another"
NO_DH = "its configuration names no Diffie-Hellman parameters"
CANNOT = [
    *(Cannot(NO_CCM, server, "TLS_AES_128_CCM_SHA256") for server in SERVERS if server != "gnutls"),
    *(Cannot(NO_DH, server, "DHE-RSA-AES128-GCM-SHA256") for server in ("nginx", "haproxy", "hitch")),
]


def limit_of(server: str, combination: Combination) -> Cannot | None:
    return next((limit for limit in CANNOT if (limit.server, limit.suite) == (server, combination.suite)), None)


# ---- A run, and what is wrong with it ----

def load(engine: str, port: int, combination: Combination) -> tuple[int, dict, str]:
    done = run("loadgen", "--engine", engine, "-c", "2", "-n", str(CONNECTIONS), "--timeout", "20s", "--json", "-",
               *combination.options(), f"https://127.0.0.1:{port}/")
    with contextlib.suppress(ValueError):
        return done.returncode, json.loads(done.stdout), done.stderr
    return done.returncode, {}, done.stderr


def wrong_agreement(result: dict, combination: Combination) -> Iterator[str]:
    if result["certificate"]["key"] != KEYS[combination.key]:
        yield f"certificate {result['certificate']}"
    for row in result["negotiated"]:
        if (row["tls_version"], row["cipher"]) != (combination.version, combination.suite):
            yield f"negotiated {row}"
        # A resumption before TLS 1.3 has none, and is the row without a signature.
        group = row.get("group") or ""
        tells = has_group(combination.suite) and (combination.version == "TLSv1.3" or row.get("sigalg"))
        if tells and group != combination.group:
            yield f"group {group}"
    if has_group(combination.suite) and not any(row.get("sigalg") for row in result["negotiated"]):
        yield "no signature was seen"


def wrong(code: int, result: dict, combination: Combination, limit: Cannot | None) -> Iterator[str]:
    totals = result["totals"]
    errors = {name: count for name, count in totals["errors"].items() if count}
    if limit:
        if code != 1 or errors != {"tls_alert": CONNECTIONS}:
            yield f"expected nothing but alerts ({limit.why}), got {errors}"
        return
    if code != 0 or errors:
        yield f"exit status {code}, {errors}"
        return
    resumed = 0 if combination.kind == "never" else CONNECTIONS - 2
    expected = {"connections_opened": CONNECTIONS, "handshakes_full": CONNECTIONS - resumed,
                "handshakes_resumed": resumed, "transactions": CONNECTIONS, "resume_offered": resumed,
                "resume_refused": 0}
    for name, count in expected.items():
        if totals[name] != count:
            yield f"{name} is {totals[name]}, not {count}"
    yield from wrong_agreement(result, combination)


@pytest.fixture(scope="module")
def servers() -> Iterator[Farm]:
    with farm() as started:
        yield started


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_combination(servers: Farm, engine: str, server: str, version: str) -> None:
    try_all(servers, engine, server, list((all_of_them if server == "s_server" else each_once)(version)))


@pytest.mark.parametrize("server", SERVERS)
def test_what_only_the_openssl_engine_speaks(servers: Farm, server: str) -> None:
    try_all(servers, "openssl", server, OPENSSL_ONLY)
    for combination in OPENSSL_ONLY:
        done = run("loadgen", "--engine", "light", *combination.options(), "https://127.0.0.1:1/")
        assert done.returncode == 2 and "light engine does not speak it" in done.stderr, combination


def try_all(servers: Farm, engine: str, server: str, combinations: list[Combination]) -> None:
    ports = {key: servers.port(server, KEYS[key]) for key in KEYS}

    def complaints(combination: Combination) -> list[str]:
        code, result, said = load(engine, ports[combination.key], combination)
        if not result:
            return [f"{combination}: {said}"]
        return [f"{combination}: {what}" for what in wrong(code, result, combination, limit_of(server, combination))]
    with ThreadPoolExecutor(2) as pool:
        found = [line for lines in pool.map(complaints, combinations) for line in lines]
    assert not found, "\n".join(found)


# ---- How a PSK is used (RFC 8446, 4.2.9) ----

NO_PSK_KE = "its configuration has no word for psk_ke, and OpenSSL does not take it unasked"
# What becomes of a session that is offered like this: the mode in which it is resumed, or "full" and why it is not.
PSK_MODES = {
    "s_server": {"psk_dhe_ke": "psk_dhe_ke", "psk_ke": "psk_ke", "any": "psk_dhe_ke"},
    "gnutls": {"psk_dhe_ke": "psk_dhe_ke", "psk_ke": "psk_ke", "any": "psk_dhe_ke"},
    **{server: {"psk_dhe_ke": "psk_dhe_ke", "psk_ke": f"full: {NO_PSK_KE}", "any": "psk_dhe_ke"}
       for server in ("nginx", "haproxy", "hitch", "stunnel")},
}


@pytest.mark.parametrize("mode", ["psk_dhe_ke", "psk_ke", "any"])
@pytest.mark.parametrize("server", SERVERS)
def test_every_psk_mode(servers: Farm, server: str, mode: str) -> None:
    becomes = PSK_MODES[server][mode]
    for engine in ENGINES if mode != "psk_ke" else ["light"]:
        for suite in SUITES_13:
            combination = Combination("TLSv1.3", suite, "X25519", "ECDSA", "ticket")
            done = run("loadgen", "--engine", engine, "-c", "1", "-n", "3", "--json", "-", "--psk-mode", mode,
                       *combination.options(), f"https://127.0.0.1:{servers.port(server, KEYS['ECDSA'])}/")
            assert done.returncode == 0, (suite, done.stderr)
            result = json.loads(done.stdout)
            resumed = 0 if becomes.startswith("full") else 2
            assert result["totals"]["handshakes_resumed"] == resumed, suite
            # The row without a signature is that of the resumed ones.
            groups = [row.get("group") or "" for row in result["negotiated"] if not row.get("sigalg")]
            assert groups == ([] if not resumed else [""] if becomes == "psk_ke" else ["X25519"]), (engine, suite)


def test_every_limit_is_about_something_that_is_tried() -> None:
    tried = {combination.suite for version in VERSIONS for combination in all_of_them(version)}
    tried |= {combination.suite for combination in OPENSSL_ONLY}
    for limit in CANNOT:
        assert limit.server in SERVERS and limit.suite in tried, limit
