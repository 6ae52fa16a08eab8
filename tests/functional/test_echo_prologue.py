"""What a proxy says of its client before the request: taken in every form that is written, refused if broken."""
import contextlib
import json
import re
import socket
import ssl
import struct

import programs
import pytest
from echo_backends import Backend, LONG_S, ask, is_closed, read_all, response_of
from proxies import client_context

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REQUEST = b"GET /whoami HTTP/1.1\r\n\r\n"


def version_2(command=1, family=0x11, addresses=b"\xc0\0\x02\x01\xc6\x33\x64\x02\x01\x02\x01\xbb", tlvs=b""):
    body = addresses + tlvs
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body


def tlv(kind, value):
    return bytes([kind]) + struct.pack(">H", len(value)) + value


IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "::1")
SSL_TLV = tlv(0x20, b"\x07" + bytes(4) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"Jos\xc3\xa9") + tlv(0x28, bytes(700)))
HEADERS = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 258 443\r\n",
     {"version": 1, "source": "192.0.2.1:258", "destination": "198.51.100.2:443"}),
    (b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
     {"version": 1, "source": "[2001:db8::1]:1", "destination": "[::1]:65535"}),
    (b"PROXY UNKNOWN\r\n", {"version": 1}),
    (b"PROXY UNKNOWN whatever this may be\r\n", {"version": 1}),
    (version_2(), {"version": 2, "command": "PROXY", "source": "192.0.2.1:258", "destination": "198.51.100.2:443"}),
    (version_2(family=0x21, addresses=IPV6 + b"\0\x01\0\x02"),
     {"version": 2, "command": "PROXY", "source": "[2001:db8::1]:1", "destination": "[::1]:2"}),
    (version_2(command=0, family=0, addresses=b""), {"version": 2, "command": "LOCAL"}),
    (version_2(tlvs=tlv(1, b"h2") + SSL_TLV + tlv(0xe0, b"x") + tlv(2, b"a\x01b") + tlv(4, b"")),
     {"version": 2, "command": "PROXY", "source": "192.0.2.1:258", "destination": "198.51.100.2:443",
      "tlvs": {"alpn": "h2", "ssl_client": 7, "ssl_verify": 0, "ssl_version": "TLSv1.3", "ssl_cn": "José",
               "ssl_client_cert": {"bytes": 700}, "0xe0": {"bytes": 1}, "authority": {"bytes": 3},
               "noop": {"bytes": 0}}}),
    (version_2(tlvs=b"".join(tlv(0xe0 + i % 16, bytes(100)) for i in range(150))), {"version": 2}),
]


@pytest.fixture(scope="module")
def listener():
    with Backend("http", "--accept-proxy") as running:
        yield running


def whoami(client):
    return json.loads(ask(client, "/whoami")[1])


@pytest.mark.parametrize("header, expected", HEADERS)
@pytest.mark.parametrize("pace", ["at once", "by bytes"])
def test_whoami_says_what_the_header_said(listener, header, expected, pace):
    with listener.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if pace == "by bytes":
            for byte in header[:300]:
                client.send(bytes([byte]))
            client.sendall(header[300:] + REQUEST)
        else:
            client.sendall(header + REQUEST)
        said = json.loads(response_of(client)[1])["proxy"]
        assert said.pop("bytes") == len(header)
        assert said.items() >= expected.items()
        assert "tlvs" not in said or "tlvs" in expected or len(said["tlvs"]) == 16
        assert whoami(client)["proxy"]["version"] == expected["version"], "it is said once and known from then on"


@pytest.mark.parametrize("rubbish", [
    b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 258\r\n", b"PROXY TCP4 x y 1 2\r\n",
    b"PROXY " + b"a" * 200, b"\x16\x03\x01" + bytes(100), SIGNATURE + b"\x31\x11\0\x0c" + bytes(12),
    version_2(tlvs=b"\x01\0\x09h2"), version_2(tlvs=b"\x01"), version_2(tlvs=tlv(0x20, b"\x01\0")),
    version_2(tlvs=tlv(0x20, bytes(5) + b"\x21\0\xff")), version_2(tlvs=tlv(0xe0, bytes(20_000))),
], ids=["none", "no port", "no address", "no end", "tls", "version 3", "tlv cut", "tlv head", "ssl cut", "in ssl",
        "long"])
def test_a_broken_header_is_refused_in_words(listener, rubbish):
    with listener.connect() as client:
        client.sendall(rubbish)
        response, body = response_of(client)
        assert (response.status, body) == (400, b"the PROXY header is missing or broken\n")
        assert is_closed(client)
    with listener.connect() as client:
        client.sendall(b"PROXY UNKNOWN\r\n")
        assert "proxy" in whoami(client)


def test_a_client_that_goes_in_its_header_leaves_nothing(listener):
    for header in version_2()[:20], b"PROXY TC", b"":
        with listener.connect() as client:
            client.sendall(header)
            client.shutdown(socket.SHUT_WR)
            read_all(client)


@pytest.mark.parametrize("option, start", [("--accept-proxy", b"PROXY TCP4 1"), ("--accept-proxy", version_2()[:17]),
                                           ("--accept-ip", bytes([socket.AF_INET, 1])), ("--accept-ipv4", b"\x01")])
def test_half_a_prologue_does_not_hold_a_connection_for_ever(option, start):
    with Backend("http", option, "--idle-timeout", "200ms") as backend:
        with backend.connect() as silent, backend.connect() as halfway:
            halfway.sendall(start)
            assert is_closed(halfway) and is_closed(silent)


@pytest.mark.parametrize("option, prologue, expected", [
    ("--accept-ip", bytes([socket.AF_INET]) + b"\xc0\0\x02\x01", "192.0.2.1"),
    ("--accept-ip", bytes([socket.AF_INET6]) + IPV6[:16], "2001:db8::1"),
    ("--accept-ip", bytes([socket.AF_UNSPEC]), ""),
    ("--accept-ipv4", b"\xc0\0\x02\x01", "192.0.2.1"),
    ("--accept-ipv4", bytes(4), "0.0.0.0"),
])
def test_whoami_says_which_address_came_first(option, prologue, expected):
    with Backend("http", option) as backend:
        with backend.connect() as client:
            client.sendall(prologue + REQUEST)
            assert json.loads(response_of(client)[1])["ip"] == expected
            assert whoami(client)["ip"] == expected
        with backend.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in prologue:
                client.send(bytes([byte]))
            assert whoami(client)["ip"] == expected


def test_an_address_of_no_known_family_is_refused():
    with Backend("http", "--accept-ip") as backend, backend.connect() as client:
        client.sendall(b"G")
        response, body = response_of(client)
        assert (response.status, body) == (400, b"the address before the request is broken\n")
        assert is_closed(client)


@pytest.mark.parametrize("written, accepted", [
    ("--write-proxy=v1", "--accept-proxy"), ("--write-proxy=v2", "--accept-proxy"), ("--write-ip", "--accept-ip"),
    ("--write-ipv4", "--accept-ipv4")])
@pytest.mark.parametrize("mode", ["http", "sock"])
def test_what_the_proxy_writes_is_understood(written, accepted, mode, ecdsa, tmp_path):
    at = ["-l", tmp_path / "echo.sock"] if mode == "sock" else []
    with Backend(mode, accepted, *at) as backend, \
            programs.running("proxy", "-f", "127.0.0.1:0", "-b", backend.address, written, ecdsa) as proxy:
        with socket.create_connection(proxy.host_port, timeout=LONG_S) as plain:
            with client_context(ssl.TLSVersion.TLSv1_3).wrap_socket(plain, server_hostname="localhost") as client:
                facts = whoami(client)
                own = "%s:%d" % client.getsockname()
        if accepted != "--accept-proxy":
            assert facts["ip"] == "127.0.0.1"
            return
        assert (facts["proxy"]["source"], facts["proxy"]["destination"]) == (own, proxy.address)
        if written.endswith("v2"):
            assert facts["proxy"]["tlvs"]["ssl_version"] == "TLSv1.3"
            assert facts["proxy"]["tlvs"]["authority"] == "localhost"
        else:
            assert "tlvs" not in facts["proxy"]


@pytest.mark.parametrize("accepted, prologue", [("--accept-proxy", HEADERS[0][0]), ("--accept-ipv4", bytes(4))])
def test_in_https_it_comes_before_tls_in_the_same_segment_or_not(accepted, prologue, certificate):
    with Backend("https", "--cert", certificate[2], accepted) as backend:
        for together in True, False:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context().wrap_bio(incoming, outgoing)
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            hello = outgoing.read()
            with backend.connect() as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in [prologue + hello] if together else [prologue[:3], prologue[3:], hello]:
                    client.sendall(piece)
                assert client.recv(3)[:2] == b"\x16\x03", "the server's hello"
        with backend.connect() as client:  # a hello without it
            client.sendall(hello if accepted == "--accept-proxy" else b"\x01")
            with contextlib.suppress(OSError):  # the refusal may be here already
                client.shutdown(socket.SHUT_WR)
            assert is_closed(client)


@pytest.mark.parametrize("options", [["--accept-proxy", "--accept-ip"], ["--accept-ip", "--accept-ipv4"]])
def test_only_one_kind_can_be_expected(options):
    result = programs.run("echo-backend", "http", *options, timeout=LONG_S)
    assert result.returncode == 2
    assert re.fullmatch("echo-backend: --accept-proxy, --accept-ip, --accept-ipv4: only one .*\n", result.stderr)
