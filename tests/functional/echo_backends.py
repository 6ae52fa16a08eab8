"""What tests of the echo-backend share: one that runs, a client that reads one response at a time, and bodies."""
import random
import re
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import programs
from proxies import client_context


MIB = 1 << 20
LONG_S = 60  # no test waits so long unless something hangs


class Backend:
    """A running echo-backend. Leaving the context ends it as a user would, and looks whether it ended well."""

    def __init__(self, *arguments, descriptors=None, within=()):
        self.server = programs.running("echo-backend", *map(str, arguments), within=within)
        self.descriptors = descriptors

    def __enter__(self):
        running = self.server.__enter__()
        self.process, self.address, self.workers, self.errors = (running.process, running.address, running.workers,
                                                                 running.errors)
        for pid in [self.process.pid, *self.workers()] if self.descriptors else []:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))
        return self

    def __exit__(self, *exception):
        killed = self.process.poll() == -signal.SIGKILL
        self.process.terminate()
        try:
            status = self.process.wait(LONG_S)
        finally:
            self.server.__exit__(*exception)
        if exception[0] is None and not killed:
            assert status == 0, self.errors
            assert not [line for line in self.errors if "Sanitizer" in line or "runtime error" in line], self.errors

    def connect(self, receive_buffer=None):
        if self.address.startswith("/"):
            client = socket.socket(socket.AF_UNIX)
            target = self.address
        else:
            client = socket.socket()
            host, port = self.address.rsplit(":", 1)
            target = host, int(port)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(LONG_S)
        client.connect(target)
        return client


def tls_client(backend, version=None, session=None, context=None):
    context = context or client_context(version)
    return context.wrap_socket(backend.connect(), server_hostname="localhost", session=session)


class Response:
    """One response, read without taking a byte of the next one."""

    def __init__(self, client, method="GET"):
        self.client = client
        lines = iter(self.line, "")
        self.status = int(next(lines).split()[1])
        self.headers = [tuple(line.split(": ", 1)) for line in lines]
        self.body = self.read_body() if method != "HEAD" and self.status not in (204, 304) else b""

    def exactly(self, count):
        received = bytearray()
        while len(received) < count:
            piece = self.client.recv(min(count - len(received), 1 << 18))
            assert piece, f"closed after {len(received)} of {count} bytes"
            received += piece
        return bytes(received)

    def line(self):
        text = b""
        while not text.endswith(b"\r\n"):
            text += self.exactly(1)
        return text[:-2].decode()

    def header(self, name):
        return dict(self.headers).get(name)

    def read_body(self):
        if self.header("Transfer-Encoding") != "chunked":
            return self.exactly(int(self.header("Content-Length")))
        body = bytearray()
        while size := int(self.line(), 16):
            body += self.exactly(size)
            assert self.line() == ""
        assert self.line() == ""
        return bytes(body)


def response_of(client, method="GET"):
    response = Response(client, method)
    return response, response.body


def ask(client, target="/", method="GET", version="1.1", headers="", body=b""):
    client.sendall(f"{method} {target} HTTP/{version}\r\nHost: x\r\n{headers}\r\n".encode() + body)
    return response_of(client, method)


def is_closed(client):
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def read_all(client):
    received = bytearray()
    while piece := client.recv(1 << 16):
        received += piece
    return bytes(received)


def split_randomly(data, seed, largest=100_000):
    dice, at = random.Random(seed), 0
    while at < len(data):
        step = dice.choice([1, dice.randint(1, 100), dice.randint(1, largest)])
        yield data[at:at + step]
        at += step


def echo(client, data, seed, chunked):
    """Sends data as the body of a POST in pieces of random sizes while reading the answer, whose body it returns."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data)}"

    def send():
        client.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        for piece in split_randomly(data, seed):
            client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            client.sendall(b"0\r\n\r\n")

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    response, body = response_of(client)
    sender.join(LONG_S)
    assert response.status == 200
    assert (response.header("Transfer-Encoding") == "chunked") == chunked
    assert response.header("Content-Length") == (None if chunked else str(len(data)))
    return body


def resident_bytes(pid, most=False):
    """Memory that a process has, or the most that it ever had."""
    name = "VmHWM" if most else "VmRSS"
    return int(re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def kernel_buffer_bytes():
    """The most that a connection's two directions can hold in the kernel."""
    limits = [Path(f"/proc/sys/net/ipv4/tcp_{name}").read_text().split()[2] for name in ("rmem", "wmem")]
    return 2 * sum(map(int, limits))


def filling(size):
    line = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.\n"
    return (line * (size // len(line) + 1))[:size]


def wait_until(condition):
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
