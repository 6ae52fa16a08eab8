"""A relay that keeps what passes through it, and the packets that would have carried it, for programs that read
captures. No privilege is needed, and nothing else of the machine's traffic is in them."""
from __future__ import annotations

import contextlib
import socket
import struct
import threading
from pathlib import Path

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 443)
SEGMENT_BYTES = 1400
SYN, PSH_ACK, ACK, FIN_ACK, SYN_ACK = 0x02, 0x18, 0x10, 0x11, 0x12


class Relay:
    """`conversations`: of each connection, in the order in which it came: (is it from the client, bytes)."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.conversations: list[list[tuple[bool, bytes]]] = []
        self.threads: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target, 60)
                conversation: list[tuple[bool, bytes]] = []
                self.conversations.append(conversation)
                for source, sink, is_client in ((client, server, True), (server, client, False)):
                    source.settimeout(60)
                    self.threads.append(threading.Thread(
                        target=self._copy, args=(source, sink, is_client, conversation), daemon=True))
                    self.threads[-1].start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, is_client: bool,
              conversation: list[tuple[bool, bytes]]) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                conversation.append((is_client, piece))
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(60)


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


class Stream:
    """One connection as packets: Ethernet, IPv4, TCP, with a port of its own."""

    def __init__(self, number: int) -> None:
        self.client = (CLIENT[0], CLIENT[1] + number)
        self.next = {True: 1000, False: 5000}  # sequence numbers
        self.packets: list[bytes] = []
        self._packet(True, SYN)
        self._packet(False, SYN_ACK)
        self._packet(True, ACK)

    def _packet(self, from_client: bool, flags: int, data: bytes = b"") -> None:
        source, target = (self.client, SERVER) if from_client else (SERVER, self.client)
        addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
        tcp = struct.pack(">HHIIBBHHH", source[1], target[1], self.next[from_client],
                          self.next[not from_client] if flags & ACK else 0, 5 << 4, flags, 65535, 0, 0) + data
        tcp = tcp[:16] + struct.pack(">H", checksum(addresses + struct.pack(">HH", 6, len(tcp)) + tcp)) + tcp[18:]
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), len(self.packets) & 0xffff, 0x4000, 64, 6, 0) + addresses
        ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
        self.packets.append(bytes(6) + bytes(6) + b"\x08\0" + ip + tcp)
        self.next[from_client] += len(data) + (1 if flags & (SYN | (FIN_ACK & ~ACK)) else 0)

    def say(self, from_client: bool, data: bytes) -> None:
        for at in range(0, len(data), SEGMENT_BYTES):
            self._packet(from_client, PSH_ACK, data[at:at + SEGMENT_BYTES])
            self._packet(not from_client, ACK)

    def end(self) -> None:
        self._packet(True, FIN_ACK)
        self._packet(False, FIN_ACK)
        self._packet(True, ACK)


def write_capture(path: Path, conversations: list[list[tuple[bool, bytes]]]) -> None:
    packets = []
    for number, conversation in enumerate(conversations):
        stream = Stream(number)
        for from_client, data in conversation:
            stream.say(from_client, data)
        stream.end()
        packets += stream.packets
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for number, packet in enumerate(packets):
            file.write(struct.pack("<IIII", 1700000000 + number // 1000, number % 1000 * 1000, len(packet),
                                   len(packet)) + packet)
