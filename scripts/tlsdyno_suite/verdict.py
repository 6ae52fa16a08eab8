"""When a row is valid. One table of named rules; each says what it spoils and why its threshold is what it is.

Thresholds without a source are proposals, to be calibrated with runs of one build against itself on a noisy two-core
machine. """
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import ciphers
from .cell import Cell
from .loads.loadgen import Result
from .placement import Placement, cpu_list
from .sharing import Told
from .takeover import Takeover

RATE = "rate"  # the wall-clock figures do not stand; CPU cost per op does
ALL = "all"    # the row did not measure what it claims


@dataclass(frozen=True)
class Evidence:
    """Everything a judge may look at."""

    cell: Cell
    placement: Placement
    asked_s: float
    load: Result
    cpu_s: dict[str, float]            # CPU seconds of each role in the window
    sample_gap_s: float                # the wider of the gaps between readings around the two ends of the window
    busy: dict[int, float]             # share of the window each CPU was not idle: at work for whoever, or stolen
    steal: float                       # share of the window taken by the hypervisor, worst CPU of the cell
    tcp: dict[str, int]                # growth of the machine's counters of lost connections and segments
    unpinned: tuple[str, ...]          # roles seen on CPUs that are not theirs
    counted: dict[str, int] | None     # growth of the subject's own counters, if it has any
    beyond: "Evidence | None" = None  # of a search: at the lowest rate that was too high
    met: bool = True                  # of a search: whether this rate met the criterion
    service_mean_ms: float | None = None  # of a request in the backend, where that has a service model
    network: str = ""                  # of several hosts: where they were
    hosts: tuple[Told, ...] = ()       # what each of them counted; none where one of them died
    takeover: Takeover | None = None   # where one of them died: what became of the others
    plain: bool = False                # the subject speaks no TLS
    external: bool = False             # the subject runs elsewhere: cpu_s is of the client only
    resumes: bool = True               # whether the subject resumes sessions at all
    together: float = 1.0              # of several cells at once: the share of the window that was everybody's
    # Of the subject, without what is a file's: before the first connection, and last read in the window; None when it
    # was not read there.
    memory_kib: tuple[float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    status: str  # ok, invalid
    stands: str  # all, cost or empty: which figures of the row may be used
    bound: str   # subject, client, backend, none
    reason: str


@dataclass(frozen=True)
class Rule:
    name: str
    spoils: str
    threshold: float
    because: str  # why this threshold
    broken: Callable[[Evidence, float], str | None]


SHORT_GAP_S = 0.25  # a gap between readings taken in any window: so long may a busy machine keep the sampler waiting
NAMES = {"subject": "subject", "client": "load generator", "backend": "backend"}
FIND_IT_GONE = 20  # clients
SATURATED = 0.95  # share of its cores at which a role counts as the bottleneck
# The same of a load generator whose subject is elsewhere, where nothing else says who was: a generator that has less
# than 15 % left is late now and then.
HEADROOM = 0.85


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def ops(cell: Cell, load: Result) -> int:
    """Units of work in the window: a connection that was held, a transaction on kept-alive connections, else a
    connection with its handshake."""
    if cell.holds:
        return load.held or 0
    if cell.bursts:
        return load.transactions
    return load.transactions if cell.keeps_alive else load.handshakes


def resumed_share(load: Result) -> float | None:
    """Of the window; of the whole life where the window opened no connection."""
    full, resumed = load.handshakes_full, load.handshakes_resumed
    if not full + resumed:
        full, resumed = load.totals["handshakes_full"], load.totals["handshakes_resumed"]
    return resumed / (full + resumed) if full + resumed else None


def accepted_share(load: Result) -> float | None:
    """Of the sessions that were offered in the window."""
    return load.handshakes_resumed / load.resume_offered if load.resume_offered else None


def role_share(evidence: Evidence, role: str, cores: int) -> float:
    return evidence.cpu_s[role] / (evidence.load.duration_s * cores)


def average(busy: dict[int, float], cpus: tuple[int, ...]) -> float:
    return sum(busy.get(cpu, 0.0) for cpu in cpus) / len(cpus)


@dataclass(frozen=True)
class Contest:
    """Roles that share CPUs, and what they made of them."""

    cpus: tuple[int, ...]
    shares: dict[str, float]  # of these CPUs, by role, the largest first
    busy: float               # share of these CPUs that was not idle, whoever used it
    others: float | None      # the same that no role used; None where a role that has more CPUs may have

    @property
    def filled(self) -> bool:
        """Whether these roles left nothing. The few per cent that others take of any CPU are not what they left."""
        few = self.others if self.others is not None and 0 < self.others <= 1 - SATURATED else 0.0
        return sum(self.shares.values()) + few >= SATURATED


def contests(evidence: Evidence) -> list[Contest]:
    """Each CPU with the roles that have no other; then each set of CPUs that roles share, with all of them. How the
    time of a role is spread over several CPUs is not known, so of such a role only the whole can be judged."""
    homes = {role: set(getattr(evidence.placement, role)) for role in evidence.cpu_s}
    single = [{cpu} for cpu in sorted(set().union(*homes.values()))]
    joint = [set(cpus) for cpus in single]
    for cpus in homes.values():
        joint = [part for part in joint if not part & cpus] + [set().union(*(part for part in joint if part & cpus))]
    found = []
    for cpus in [*single, *(part for part in joint if len(part) > 1)]:
        shares = {role: role_share(evidence, role, len(cpus)) for role, home in homes.items() if home <= cpus}
        busy = average(evidence.busy, tuple(cpus))
        whole = all(role in shares for role, home in homes.items() if home & cpus)
        # What the hypervisor took is not idle either, and has a rule of its own.
        others = busy - sum(shares.values()) - evidence.steal if whole else None
        largest_first = dict(sorted(shares.items(), key=lambda item: -item[1]))
        found.append(Contest(tuple(sorted(cpus)), largest_first, busy, others))
    return found


def bottleneck_beyond(evidence: Evidence) -> tuple[str, str]:
    """Of a subject that runs elsewhere: it, or what is behind it or before it, unless it was the load generator."""
    cpus = evidence.placement.client
    used, busy = role_share(evidence, "client", len(cpus)), average(evidence.busy, cpus)
    if used >= HEADROOM:
        return "client", f"load generator was the bottleneck ({percent(used)} of its cores)"
    if busy >= SATURATED:
        return "none", f"something else used CPU {cpu_list(cpus)} ({percent(busy - used)} beside load generator " \
                       f"{percent(used)})"
    return "none", ""


def bottleneck_of(evidence: Evidence) -> tuple[str, str]:
    """Who was the bottleneck, and in words what else kept the subject from being it.

    The subject is, when its own CPU time fills its cores. Else a role is, when the roles of its CPU fill it: the
    largest of them, or, where the subject is one of them, only a role that fills the CPU by itself. A subject that has
    70 % of a core of which a backend has the rest ran out of CPU, but at what the backend left it, which is nobody's
    capacity; and the backend did not hold it up either. That is `none`, with a reason that names who shared. Nobody
    of this cell is to blame where a CPU was full and its roles did not fill it."""
    if evidence.external:
        return bottleneck_beyond(evidence)
    placement = evidence.placement
    own = role_share(evidence, "subject", len(placement.subject))
    shared = placement.company and not placement.overlapped
    if own >= SATURATED or shared and average(evidence.busy, placement.subject) >= SATURATED:
        return "subject", ""
    subject = f"subject {percent(own)}"
    held = contests(evidence)
    for contest in filter(lambda each: each.filled, held):
        role, used = next(iter(contest.shares.items()))
        if "subject" not in contest.shares or used >= SATURATED:
            beside = "" if used >= SATURATED else "".join(
                f", {NAMES[other]} {percent(share)}" for other, share in list(contest.shares.items())[1:])
            return role, (f"{NAMES[role]} was the bottleneck ({percent(used)} of its core, which was "
                          f"{percent(contest.busy)} busy{beside}, {subject})")
    for contest in held:
        sharers = ", ".join(f"{NAMES[role]} {percent(share)}" for role, share in contest.shares.items())
        cpus = cpu_list(contest.cpus)
        if contest.filled and len(contest.shares) > 1:
            return "none", f"no role alone was the bottleneck: several filled CPU {cpus} ({sharers})"
        if contest.busy >= SATURATED and contest.others is not None and \
                (contest.filled or contest.others > 1 - SATURATED):
            also = "" if "subject" in contest.shares else f", {subject} of its cores"
            return "none", f"something else used CPU {cpus} ({percent(contest.others)} beside {sharers}{also})"
    return "none", f"nobody was the bottleneck ({subject} of its cores)"


def bound(evidence: Evidence) -> str:
    return bottleneck_of(evidence.beyond or evidence)[0]


def bottleneck(evidence: Evidence, _threshold: float) -> str | None:
    # Who kept a higher rate from being served well is seen at that rate.
    if evidence.cell.searches and evidence.beyond is None:
        return "no rate was too high"
    return bottleneck_of(evidence.beyond or evidence)[1] or None


def company(evidence: Evidence, threshold: float) -> str | None:
    """Of several cells on the same CPUs: their rates are shares. Where all together leave a CPU idle, they get their
    work piece by piece, each piece with cold caches, which is in their costs."""
    others = evidence.placement.company
    if not others:
        return None
    busy = average(evidence.busy, evidence.placement.subject)
    idle = f", and all together left their CPU idle ({percent(busy)} busy)" if busy < threshold else ""
    return f"measured at once with {others} more{idle}"


def overlap(evidence: Evidence, _threshold: float) -> str | None:
    shared = evidence.placement.overlapped
    return f"subject and load generator shared CPU {cpu_list(shared)}" if shared else None


# What becomes of connections to a host that dies.
LOST = ("connect_refused", "tls_protocol", "reset", "unexpected_eof")


def most_lost(cell: Cell) -> int:
    """Each client of one of the hosts had a connection at most, and a few find it gone before all know."""
    return math.ceil(cell.connections / cell.hosts) + FIND_IT_GONE


def errors(evidence: Evidence, threshold: float) -> str | None:
    if evidence.cell.searches:
        return None  # they are losses, of which it may have so many
    seen = {name: count for name, count in evidence.load.errors.items() if count > threshold}
    if evidence.cell.fails_over and sum(seen.get(name, 0) for name in LOST) <= most_lost(evidence.cell):
        seen = {name: count for name, count in seen.items() if name not in LOST}
    return "errors: " + ", ".join(f"{name} {count}" for name, count in seen.items()) if seen else None


def work_done(evidence: Evidence, threshold: float) -> str | None:
    done = ops(evidence.cell, evidence.load)
    return f"only {done} ops in the window" if done < threshold else None


def reuse(evidence: Evidence, tolerance: float) -> str | None:
    cell, load = evidence.cell, evidence.load
    if cell.reuse == "never" or not evidence.resumes:
        # Of the whole life: one session that leaked in the warm-up is a leak.
        leaked = load.totals["handshakes_resumed"]
        return f"{leaked} handshakes were resumed and none should be" if leaked else None
    if cell.fails_over:
        return None  # how many are, is what is asked
    share = resumed_share(load)
    wanted = 1.0 - 1.0 / cell.reuse_period if cell.reuse_period else 1.0
    if share is None or not load.handshakes:
        return "no handshake in the window"
    if cell.spread == "turn" and cell.hosts > 1:
        # Whether a session is taken elsewhere is what is asked; that it was offered there is the client's part.
        share = load.resume_offered / load.handshakes
    # A window cuts through a period of each connection somewhere, so of each it may hold one full handshake more or
    # less than its share: all together, as long as the connections keep no step, three standard deviations of as many
    # uniform ones. In an open loop some are used more than others, so there it is one for each.
    cuts = cell.connections if cell.searches or cell.rate_per_s else max(1.0, 3 * math.sqrt(cell.connections / 6))
    cut = cuts / load.handshakes if cell.reuse_period else 0.0
    if abs(share - wanted) > tolerance + cut + 1e-12:
        if cell.spread == "turn" and cell.hosts > 1:
            return f"{percent(share, 1)} of the handshakes offered a session, not {percent(wanted, 1)}"
        return f"{percent(share, 1)} of the handshakes were resumed, not {percent(wanted, 1)}: {why_full(load)}"
    return None


def why_full(load: Result) -> str:
    """Of handshakes that were to be resumed: whether the subject gave no session or would not take it back."""
    if load.resume_refused:
        return f"the subject refused {load.resume_refused} of {load.resume_offered} sessions that were offered"
    return f"{load.resume_offered} sessions were offered in {load.handshakes} handshakes"


# Errors of the client that may end a handshake which its server counts as failed.
IN_HANDSHAKE = ("tls_alert", "tls_protocol", "tls_timeout", "reset", "unexpected_eof", "io_timeout")
# What the subject counts, and what the client calls the same.
SAME = {"handshakes_full": "handshakes_full", "handshakes_resumed": "handshakes_resumed",
        "connections_accepted": "connections_opened"}


def count_differences(counted: dict[str, int], load_totals: dict[str, Any], threshold: float) -> list[str]:
    """Where the subject's account of the whole life of the load is not the client's. Handshakes that failed are equal
    only when there was none: which of its errors fell in a handshake the client does not say."""
    differences = [f"{name} {counted[name]}, not {load_totals[theirs]}" for name, theirs in SAME.items()
                   if abs(counted[name] - load_totals[theirs]) > threshold]
    failed, errors = counted["handshakes_failed"], load_totals["errors"]
    at_most = sum(errors.get(name, 0) for name in IN_HANDSHAKE)
    if failed > at_most + threshold:
        differences.append(f"handshakes_failed {failed}, not {at_most}")
    return differences


def own_counters(evidence: Evidence, threshold: float) -> str | None:
    if evidence.counted is None or not evidence.load.tells:
        return None
    differences = count_differences(evidence.counted, evidence.load.totals, threshold)
    return "the subject counted otherwise than the client: " + ", ".join(differences) if differences else None


def negotiated(evidence: Evidence, _threshold: float) -> str | None:
    cell, load = evidence.cell, evidence.load
    if evidence.plain or not load.tells:
        return None
    if not load.negotiated:
        return "the load generator does not say what was negotiated"
    wanted = {"tls_version": cell.tls_version, "cipher": cell.cipher, "group": cell.group}
    # Before TLS 1.3 a session that is resumed has no key exchange, so no group.
    resuming = cell.tls_version != "TLSv1.3" and cell.reuse != "never"
    without_exchange = resuming or not ciphers.has_group(cell.cipher)
    for agreed in load.negotiated:
        for name, value in wanted.items():
            got = agreed.get(name)
            if name == "group" and not got and without_exchange:
                continue
            if got != value:
                return f"negotiated {name} {got or 'unknown'}, not {value}"
    return None


def certificate(evidence: Evidence, _threshold: float) -> str | None:
    """Of every full handshake of the whole life; one that resumes a session has no certificate."""
    wanted, load = evidence.cell.cert_key, evidence.load
    if evidence.plain or not load.tells:
        return None
    for seen in load.certificates:
        if seen.get("key") and seen["key"] != wanted:
            return f"the certificate's key was {seen['key']}, not {wanted}"
    said = sum(int(seen.get("count", 0)) for seen in load.certificates if seen.get("key"))
    if said < load.totals["handshakes_full"]:
        return "the load generator does not say whose certificate it saw"
    return None


def length(evidence: Evidence, _threshold: float) -> str | None:
    cell, load = evidence.cell, evidence.load
    if not load.transactions or not load.tells:
        return None
    wanted = cell.request_bytes or cell.response_bytes  # what is posted comes back
    if load.body_bytes != (wanted, wanted):
        seen = " to ".join(map(str, sorted(set(load.body_bytes)))) if load.body_bytes else "an unknown number of"
        return f"responses had {seen} bytes, not {wanted}"
    return None


def arrivals(evidence: Evidence, threshold: float) -> str | None:
    counts = evidence.load.open_loop
    if counts is None or evidence.cell.searches or evidence.cell.fails_over:
        return None
    if counts["never_begun"]:
        return f"{counts['never_begun']} of {counts['due']} that were due never began"
    late = counts["unfinished_at_end"]
    # One is always under way.
    return (f"{late} of {counts['due']} that were due were unfinished when the time was over"
            if late > max(1.0, threshold * counts["due"]) else None)


def farm(evidence: Evidence, tolerance: float) -> str | None:
    """Of several hosts, all of which lived: that each did its part, and heard of the others and of nobody else."""
    cell, hosts = evidence.cell, evidence.hosts
    if len(hosts) < 2:
        return None
    total = sum(host.connections for host in hosts)
    for number, host in enumerate(hosts, start=1):
        due = total / len(hosts)
        if cell.spread == "turn" and abs(host.connections - due) > tolerance * due + cell.connections:
            return f"host {number} had {host.connections} of {total} connections, not one in {len(hosts)}"
        others = 0 if cell.sharing == "none" else len(hosts) - 1
        if host.peers != others:
            return f"host {number} had heard of {host.peers} others at the end, not {others}"
        if host.strange:
            return f"host {number} got datagrams that no host of this farm had sent: " + ", ".join(
                f"{reason} {count}" for reason, count in host.strange.items())
    if cell.sharing == "none" and cell.spread == "turn" and (leaked := evidence.load.totals["handshakes_resumed"]):
        return f"{leaked} handshakes were resumed on a host that could not know of the session"
    return None


def failover(evidence: Evidence, at_least: float) -> str | None:
    """Where a host dies: that it did so in the window, and that until then all was well."""
    if not evidence.cell.fails_over:
        return None
    takeover, load = evidence.takeover, evidence.load
    if takeover is None or not load.started_ns < takeover.killed_ns < load.end_ns:
        return "no host was killed within the window"
    share = takeover.before.resumed_share
    if share is None or share < at_least:
        seen = "nothing was" if share is None else f"{percent(share, 1)} of the handshakes were"
        return f"{seen} resumed before the host was killed, not {percent(at_least, 1)}"
    if not all(span.handshakes for span in takeover.after):
        return "in a second after the host was killed nobody was served"
    if evidence.cell.sharing == "none" and all(span.resumed == span.handshakes for span in takeover.after):
        return "no client of the host that was killed came to another"
    return None


def held(evidence: Evidence, _threshold: float) -> str | None:
    if not evidence.cell.holds or evidence.load.held == evidence.cell.connections:
        return None
    return f"{evidence.load.held} of {evidence.cell.connections} connections were open at the end"


def burst(evidence: Evidence, _threshold: float) -> str | None:
    cell, load = evidence.cell, evidence.load
    if not cell.bursts or load.transactions == cell.connections:
        return None
    return f"{load.transactions} of {cell.connections} requests were answered"


def answered_well(evidence: Evidence, _threshold: float) -> str | None:
    if evidence.met:
        return None
    due = (evidence.load.open_loop or {}).get("due", 0) / max(evidence.load.duration_s, 1e-9)
    return f"no rate met {evidence.cell.loop}, down to {due:.0f} a second"


def memory(evidence: Evidence, _threshold: float) -> str | None:
    if evidence.cell.holds and evidence.memory_kib is None:
        return "the subject's memory was not read in the window"
    return None


def window(evidence: Evidence, threshold: float) -> str | None:
    measured = evidence.load.duration_s
    if evidence.cell.bursts:
        return None  # it lasts as long as it takes
    if measured < evidence.asked_s * threshold:
        return f"the window was {measured:.2f} s, not {evidence.asked_s:g} s"
    return None


def together(evidence: Evidence, threshold: float) -> str | None:
    if evidence.together >= threshold:
        return None
    return f"only {percent(evidence.together)} of the window was that of the others who were to be measured at once"


def sampling(evidence: Evidence, threshold: float) -> str | None:
    gap = evidence.sample_gap_s
    if evidence.cell.bursts:
        return None  # no CPU time is reported of it
    if gap > max(threshold * evidence.load.duration_s, SHORT_GAP_S):
        return "the CPU clocks were not read around the window" if gap == float("inf") else \
            f"the CPU clocks were not read for {1000 * gap:.0f} ms at an end of the window"
    return None


def pinning(evidence: Evidence, _threshold: float) -> str | None:
    return f"not on its CPUs: {', '.join(evidence.unpinned)}" if evidence.unpinned else None


def steady(evidence: Evidence, threshold: float) -> str | None:
    if not evidence.load.tells:
        return None
    if evidence.load.half_rates is None:
        return "the load generator does not give the rates of the halves of the window"
    first, second = evidence.load.half_rates
    mean = (first + second) / 2
    if mean and abs(first - second) / mean > threshold:
        return f"not steady: the halves of the window differ by {percent(abs(first - second) / mean, 1)}"
    return None


def stolen(evidence: Evidence, threshold: float) -> str | None:
    return f"the hypervisor took {percent(evidence.steal, 1)} of the CPU" if evidence.steal > threshold else None


# The kernel counts these for the whole machine (network namespace), so the traffic of others spoils a rate too: better
# a rate left out than one that lost segments of its own and does not say so.
EVERYBODYS = " (counted for the whole machine)"


def listen_queue(evidence: Evidence, threshold: float) -> str | None:
    lost = max(evidence.tcp["ListenOverflows"], evidence.tcp["ListenDrops"])
    return f"{lost} connections did not fit in a listen queue{EVERYBODYS}" if lost > threshold else None


def retransmits(evidence: Evidence, threshold: float) -> str | None:
    # A tail loss probe is counted as a retransmission, but it says only that the peer took its time, as one does that
    # computes a signature with 50 connections waiting; the probe's copy is thrown away on arrival.
    if evidence.external:
        return None  # a network may lose some
    segments = evidence.tcp["RetransSegs"] - evidence.tcp["TCPLossProbes"]
    done = max(ops(evidence.cell, evidence.load), 1)
    return f"{segments} segments were lost and sent again{EVERYBODYS}" if segments > threshold * done else None


RULES = (
    Rule("work", ALL, 1, "a figure needs something to count", work_done),
    Rule("errors", ALL, 0,
         "a failed transaction costs something else than a good one; RFC 9411 allows 0.001 %, which below 100,000 "
         "attempts means none", errors),
    Rule("reuse", ALL, 0.001,
         "a full handshake costs up to 25 resumed ones, so a slip of 0.1 % is one of 1 to 3 % in the cost", reuse),
    Rule("counters", ALL, 0, "two counts of the same connections are equal or one is wrong", own_counters),
    Rule("negotiated", ALL, 0, "one connection with another cipher measures something else", negotiated),
    Rule("certificate", ALL, 0, "another key costs another signature, up to 30 times as much", certificate),
    Rule("length", ALL, 0, "an answer of another length is another answer", length),
    Rule("arrivals", ALL, 0.01,
         "what is due and does not happen is missing from every figure; what is under way at the end is a moment's "
         "worth unless the target falls behind (proposal)", arrivals),
    Rule("farm", ALL, 0.01,
         "a farm's figure is of hosts that have equal parts and only each other; connections that are under way at the "
         "end are a moment's worth (proposal)", farm),
    Rule("failover", ALL, 0.99,
         "what a dead host takes away is seen only where nothing was missing before", failover),
    Rule("held", ALL, 0, "memory is divided by the connections that there should be", held),
    Rule("burst", ALL, 0, "a mean and a longest time are of all requests that there should be", burst),
    Rule("search", ALL, 0, "a highest rate is one that was answered well", answered_well),
    Rule("memory", ALL, 0, "a figure needs a reading", memory),
    Rule("window", ALL, 0.98, "the load ended before its time; 2 % for timers", window),
    Rule("together", ALL, 0.75,
         "cells at once are held against each other because the machine was the same for all: most of the time, as one"
         " load begins a moment after the other (proposal)", together),
    Rule("sampling", ALL, 0.05,
         "CPU time is interpolated between readings; a steady load within 5 % of the window errs by less than 1 % "
         "(proposal)", sampling),
    Rule("pinning", ALL, 0, "a role that ran elsewhere took someone else's CPU", pinning),
    Rule("company", RATE, SATURATED, "who shares a core shares its rate; CPU time is counted for each alone", company),
    Rule("overlap", RATE, 0, "who shares a core shares its rate; CPU time is counted for each alone", overlap),
    Rule("bottleneck", RATE, SATURATED,
         "a rate is the subject's capacity only when its cores had nothing left; 5 % for scheduling and for work of "
         "the kernel that is not charged to it (proposal)", bottleneck),
    Rule("steady", RATE, 0.03, "testers of network equipment call a rate stable when it stays within 3 %", steady),
    Rule("steal", RATE, 0.01, "time that was not there cannot be used; CPU clocks do not count it", stolen),
    Rule("listen queue", RATE, 0,
         "a connection that does not fit waits a second for its next try; the counter is the machine's, so others may "
         "be to blame", listen_queue),
    Rule("retransmits", RATE, 0.001,
         "on loopback nothing is lost unless a queue is full, and each loss waits 200 ms and more; the counter is the "
         "machine's, so others may be to blame (proposal)",
         retransmits),
)


def judge(evidence: Evidence) -> Verdict:
    # Connections that rest have no rate to spoil, and neither has a burst, or a window in which a host dies. Of several
    # cells at once nothing else needs to be said about it.
    rules = [rule for rule in RULES if rule.spoils == ALL or evidence.cell.has_pace
             and (rule.name == "company" or not evidence.placement.company)]
    broken = [(rule, reason) for rule in rules if (reason := rule.broken(evidence, rule.threshold))]
    reason = "; ".join(text for _, text in broken)
    if not broken:
        return Verdict("ok", "all", bound(evidence), "")
    spoilt = any(rule.spoils == ALL for rule, _ in broken)
    return Verdict("invalid", "" if spoilt else "cost", bound(evidence) if evidence.load.duration_s > 0 else "", reason)
