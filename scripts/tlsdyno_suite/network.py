"""Where several hosts of a cell are: each in a network namespace of its own, joined by a bridge, where this machine
lets us make them; else each with a loopback address of its own.

A namespace has no name here: it lives as long as the process that was started for it, and goes with all that is in it.
So a run that is killed leaves nothing behind that is not a process, and those are ended like all others (strays)."""
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .processes import Failed, Program, start, wait_until_ready
from .programs import installed

NAMESPACES, LOOPBACK = "namespaces", "loopback"
READY_LIMIT_S = 10.0
PREFIX = "10.77.0"  # of addresses in the namespaces, which nobody else has
OUTSIDE = 254       # whose last part is that of clients and backend
LAST_WORDS = 200

# Clients come from one address, and to the backend each host does: without loopback's rules their ports would be
# blocked for a minute each, and before the last is gone each connection would look for one for milliseconds.
PORTS = "echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse; echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range"
# A group's datagrams go to all ports of the bridge: nobody asks there who wants them.
BRIDGE = "ip link add name bridge type bridge mcast_snooping 0"


@dataclass(frozen=True)
class Place:
    """Where programs run."""

    within: tuple[str, ...]  # the command that takes one there
    address: str
    process: str             # of /proc: in whose network it is


@dataclass(frozen=True)
class Network:
    kind: str
    outside: Place           # of clients and backend
    hosts: tuple[Place, ...]
    interface: str           # of a host, towards the others
    hops: int                # that a multicast datagram needs to reach them

    @property
    def places(self) -> tuple[Place, ...]:
        return (self.outside, *self.hosts) if self.kind == NAMESPACES else (self.outside,)


HERE = Place((), "127.0.0.1", "self")


@cache
def means() -> tuple[tuple[str, ...], str]:
    """The command that makes a namespace, or why there are none. As root it is a network of one's own; who is not, or
    is root of a container, may still be root of a user namespace."""
    for tool, package in (("ip", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux")):
        if not installed(tool):
            return (), f"{tool} is not installed (Debian package {package})"
    trial = f"{BRIDGE}; ip link add name one type veth peer name other; {PORTS}"
    reason = ""
    for command in (("unshare", "--net"), ("unshare", "--user", "--map-root-user", "--net")):
        tried = subprocess.run([*command, "sh", "-ec", trial], capture_output=True, text=True,
                               stdin=subprocess.DEVNULL)
        if tried.returncode == 0:
            return command, ""
        reason = last_words(tried)
    return (), reason


def last_words(ended: subprocess.CompletedProcess[str]) -> str:
    lines = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
    return lines[-1][:LAST_WORDS]


def kind(wanted: str) -> str:
    """What a cell of several hosts gets here; `wanted` is empty where the scenario leaves it to the machine."""
    return wanted or (NAMESPACES if means()[0] else LOOPBACK)


def obstacle(wanted: str) -> str | None:
    reason = means()[1] if wanted == NAMESPACES else ""
    return f"no network namespaces here: {reason}" if reason else None


def make(wanted: str, hosts: int, cpus: tuple[int, ...], directory: Path, programs: list[Program]) -> Network:
    """For so many hosts. What holds namespaces is put into the list of programs."""
    if kind(wanted) == LOOPBACK:
        places = tuple(Place((), f"127.0.0.{number}", "self") for number in range(1, hosts + 1))
        return Network(LOOPBACK, HERE, places, "lo", 0)
    command = means()[0]
    outside = hold(command, cpus, directory, programs)
    # All are in the user namespace of the first, or a wire between two would have no owner.
    user = ("--user", "--preserve-credentials") if "--user" in command else ()
    inside = ("nsenter", "--target", str(outside), *user, "--") if user else ()
    holders = [hold((*inside, "unshare", "--net"), cpus, directory, programs) for _ in range(hosts)]

    def place(holder: int, number: int) -> Place:
        return Place(("nsenter", "--target", str(holder), *user, "--net", "--"), f"{PREFIX}.{number}", str(holder))

    network = Network(NAMESPACES, place(outside, OUTSIDE),
                      tuple(place(holder, number) for number, holder in enumerate(holders, start=1)), "eth0", 1)
    configure(network.outside, BRIDGE, f"ip address add {PREFIX}.{OUTSIDE}/24 dev bridge", "ip link set bridge up")
    for number, host in enumerate(network.hosts, start=1):
        configure(network.outside, f"ip link add name host{number} type veth peer name eth0 netns {host.process}",
                  f"ip link set host{number} master bridge up")
        configure(host, f"ip address add {host.address}/24 dev eth0", "ip link set eth0 up")
    return network


def hold(command: tuple[str, ...], cpus: tuple[int, ...], directory: Path, programs: list[Program]) -> int:
    """A process that does nothing but be in a namespace of its own."""
    log = directory / f"network-{len(programs)}.log"
    program = start("network", ["sh", "-c", "echo there; exec sleep infinity"], cpus, log, command)
    programs.append(program)
    wait_until_ready(program, lambda: "there\n" in log.read_text(errors="replace"), READY_LIMIT_S)
    return program.popen.pid


def configure(place: Place, *commands: str) -> None:
    script = "\n".join(("ip link set lo up", PORTS, *commands))
    done = subprocess.run([*place.within, "sh", "-ec", script], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Failed(f"network of the hosts could not be made: {last_words(done)}")
