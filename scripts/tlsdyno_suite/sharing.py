"""What hosts told each other while a load was there, by their own counters."""
from dataclasses import dataclass
from typing import Any

# Reasons to reject a datagram that no host of the same farm gives another one.
STRANGE = ("oversized", "truncated", "not_ours", "wrong_version", "forged", "malformed")


@dataclass(frozen=True)
class Told:
    """What a host counted while the load was there."""

    connections: int
    handshakes_full: int
    peers: int            # others that were there at the end
    announced: int        # new sessions that it told others of
    datagrams: int
    bytes: int
    lag_us: int           # of all datagrams that brought sessions, added up
    lags: int
    strange: dict[str, int]  # datagrams of others than hosts of this farm, by reason


def told(before: dict[str, Any], after: dict[str, Any]) -> Told:
    """Of one host, by what it showed before and after."""
    then, now = before.get("shared_cache", {}), after.get("shared_cache", {})

    def grown(name: str) -> int:
        return int(now.get(name, 0)) - int(then.get(name, 0))

    strange = {reason: count for reason in STRANGE if (count := int(now.get("rejected", {}).get(reason, 0)))}
    return Told(
        connections=after["connections_accepted"] - before["connections_accepted"],
        handshakes_full=after["handshakes_full"] - before["handshakes_full"], peers=int(now.get("peers", 0)),
        announced=grown("sessions_announced"), datagrams=grown("datagrams_sent"), bytes=grown("bytes_sent"),
        lag_us=grown("lag_us_sum"), lags=grown("lag_count"), strange=strange)


@dataclass(frozen=True)
class Traffic:
    """What sharing took; None where there was nothing of the kind."""

    datagrams_per_session: float | None
    bytes_per_session: float | None
    lag_us: float | None


def traffic(hosts: tuple[Told, ...]) -> Traffic:
    """For each session that was announced. Where only keys are, no session is; but each full handshake began one."""
    sessions = sum(host.announced for host in hosts) or sum(host.handshakes_full for host in hosts)
    sent, lags = sum(host.datagrams for host in hosts), sum(host.lags for host in hosts)
    if not sent or not sessions:
        return Traffic(None, None, None)
    return Traffic(sent / sessions, sum(host.bytes for host in hosts) / sessions,
                   sum(host.lag_us for host in hosts) / lags if lags else None)
