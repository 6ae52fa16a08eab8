"""The machine: its fingerprint for machine.json, and what on it would spoil a measurement (`tlsdyno doctor`)."""
import hashlib
import os
import platform
import resource
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import network, sampler
from .placement import cpu_list
from .programs import build_directory, built
from .subjects import DRIVERS

BUILT = ("proxy", "echo-backend", "loadgen", "tls-floor")
CPU = Path("/sys/devices/system/cpu")


def read_text(path: Path | str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def cpu_model() -> str:
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "Model", "cpu model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def siblings(cpu: int) -> set[int]:
    """Logical CPUs on the same physical core."""
    listed = read_text(CPU / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu)
    found: set[int] = set()
    for part in listed.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def governors(cpus: set[int]) -> set[str]:
    return {name for cpu in cpus if (name := read_text(CPU / f"cpu{cpu}/cpufreq/scaling_governor"))}


def fingerprint() -> dict[str, Any]:
    """Whatever could make the same build measure differently: two runs whose fingerprints differ do not compare."""
    cpus = os.sched_getaffinity(0)
    memory = next((line.split()[1] for line in (read_text("/proc/meminfo") or "").splitlines()
                   if line.startswith("MemTotal:")), None)
    return {
        "cpu_model": cpu_model(), "cpus_available": cpu_list(tuple(cpus)), "cpus_online": os.cpu_count(),
        "architecture": platform.machine(), "kernel": platform.release(), "memory_kib": int(memory) if memory else None,
        "hypervisor": "hypervisor" in (read_text("/proc/cpuinfo") or ""),
        "governors": sorted(governors(cpus)), "no_turbo": read_text(CPU / "intel_pstate/no_turbo"),
        "smt": read_text(CPU / "smt/control"),
        "mitigations": {path.name: read_text(path) for path in sorted((CPU / "vulnerabilities").glob("*"))},
        "openssl": ssl.OPENSSL_VERSION, "python": platform.python_version(),
        "sysctl": {name: read_text(Path("/proc/sys") / name.replace(".", "/")) for name in (
            "net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.ip_local_port_range",
            "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_congestion_control", "kernel.randomize_va_space")},
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "programs_sha256": {name: sha256(built(name)) for name in BUILT},
        "subjects": {name: driver.version() for name, driver in DRIVERS.items()
                     if not driver.external and (not driver.reports_address or built("proxy").exists())},
    }


def raise_descriptor_limit() -> int:
    """To the hard limit; programs started from here inherit it. Returns the limit."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@dataclass(frozen=True)
class Finding:
    level: str  # ok, warn, spoils
    what: str
    mend: str = ""


def steal_share(seconds: float) -> tuple[float, float]:
    """Worst steal and worst load of a CPU over a moment."""
    before, begin = sampler.read_machine(), time.monotonic()
    time.sleep(seconds)
    after, elapsed = sampler.read_machine(), time.monotonic() - begin
    steal = max((after[cpu][1] - before[cpu][1]) / elapsed for cpu in before if cpu in after)
    busy = max((after[cpu][0] - before[cpu][0]) / elapsed for cpu in before if cpu in after)
    return steal, busy


def examine_cpus() -> list[Finding]:
    cpus = os.sched_getaffinity(0)
    findings = []
    if len(cpus) < 2:
        findings.append(Finding("spoils", "one CPU: subject and load generator share it, so no rate can stand",
                                "give two CPUs or more; CPU cost per op is measured all the same"))
    else:
        findings.append(Finding("ok", f"{len(cpus)} CPUs: subject from {min(cpus)}, load generator on {max(cpus)}"))
        if max(cpus) in siblings(min(cpus)):
            findings.append(Finding("warn", f"CPUs {min(cpus)} and {max(cpus)} are threads of one core",
                                    "they slow each other down: taskset -c with CPUs of two cores"))
    slow = governors(cpus) - {"performance"}
    if slow:
        findings.append(Finding("warn", f"CPU frequency is governed by {', '.join(sorted(slow))}",
                                "cpupower frequency-set -g performance"))
    steal, busy = steal_share(1.0)
    if steal > 0.01:
        findings.append(Finding("spoils", f"the hypervisor takes {100 * steal:.1f} % of a CPU",
                                "a machine with CPUs of its own, or another hour"))
    if busy > 0.1:
        findings.append(Finding("warn", f"something else uses {100 * busy:.0f} % of a CPU now", "see top; stop it"))
    return findings


def examine_network() -> list[Finding]:
    findings = []
    backlog = int(read_text("/proc/sys/net/core/somaxconn") or 0)
    if backlog < 1024:
        findings.append(Finding("warn", f"listen queues end at {backlog} connections",
                                "sysctl net.core.somaxconn=4096"))
    ports = (read_text("/proc/sys/net/ipv4/ip_local_port_range") or "32768 60999").split()
    count = int(ports[1]) - int(ports[0]) + 1
    if count < 20000 and read_text("/proc/sys/net/ipv4/tcp_tw_reuse") == "0":
        findings.append(Finding("warn", f"only {count} ports for outgoing connections, each blocked a minute after use",
                                "sysctl net.ipv4.tcp_tw_reuse=2"))
    congestion = read_text("/proc/sys/net/ipv4/tcp_congestion_control")
    if congestion not in (None, "cubic", "reno"):
        findings.append(Finding(
            "warn", f"TCP congestion control is {congestion}: what paces with timers costs CPU time of its own, so "
            "figures compare only with others of this machine and this setting",
            "sysctl net.ipv4.tcp_congestion_control=cubic"))
    tracked = read_text("/proc/sys/net/netfilter/nf_conntrack_count")
    if tracked is not None:
        findings.append(Finding("warn", "connection tracking is loaded and costs every connection something",
                                "iptables -t raw -A PREROUTING -i lo -j NOTRACK, or unload nf_conntrack"))
    reason = network.means()[1]
    findings.append(Finding("warn", f"no network namespaces ({reason}): several hosts are on loopback addresses",
                            "root, or user namespaces that a user may make") if reason else
                    Finding("ok", "network namespaces: several hosts have one each"))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files < 4096:
        findings.append(Finding("warn", f"a process may open {files} files", "ulimit -Hn 65536 (as root)"))
    return findings


def examine_programs() -> list[Finding]:
    missing = [name for name in BUILT if not os.access(built(name), os.X_OK)]
    findings = [Finding("spoils", f"not built in {build_directory()}: {', '.join(missing)}", "make")] if missing else []
    for name, driver in DRIVERS.items():
        if driver.reports_address or driver.external or driver.variant:
            continue
        version = driver.version()
        findings.append(Finding("ok", f"{name} {version}") if version else Finding(
            "warn", f"{name} is not installed; its rows will be skipped", "scripts/install-deps"))
    return findings


def examine() -> list[Finding]:
    return [*examine_programs(), *examine_cpus(), *examine_network()]
