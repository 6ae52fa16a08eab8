"""The highest rate that is answered well: found where it is, and said when there is none."""
from dataclasses import dataclass

import pytest
from tlsdyno_suite import search

CRITERION = search.criterion("search:100ms,0.1")


@dataclass
class Load:
    """What a criterion looks at."""

    open_loop: dict
    latency_us: dict
    errors: dict


def load(mean_ms: float = 5, never_begun: int = 0, failed: int = 0) -> Load:
    return Load({"due": 10000, "never_begun": never_begun}, {"transaction": {"mean": 1000 * mean_ms}},
                {"reset": failed})


@pytest.mark.parametrize("seen, met", [
    (load(), True), (load(mean_ms=99.9), True), (load(mean_ms=100), False), (load(never_begun=9), True),
    (load(never_begun=10), False), (load(failed=9), True), (load(never_begun=5, failed=5), False),
    (Load({}, {"transaction": {"mean": 1}}, {}), False), (Load({"due": 100}, {}, {}), False)])
def test_a_rate_is_answered_well_when_it_is_soon_enough_and_hardly_any_is_lost(seen, met):
    assert CRITERION.met(seen) is met


@pytest.mark.parametrize("capacity", [300, 1000, 1100, 1500])
def test_the_rate_is_found_to_a_few_percent(capacity):
    """Seen by a closed loop as 1000 a second, whatever it was."""
    tried = []

    def probe(rate: int) -> tuple[int, bool]:
        tried.append(rate)
        return rate, rate <= capacity

    found = search.search(1000, probe)
    assert len(tried) < search.PROBES and found.best is not None and found.beyond is not None
    assert capacity / 1.1 < found.best <= capacity < found.beyond < capacity * 1.1


def test_a_subject_that_answers_no_rate_well_has_none():
    found = search.search(1000, lambda rate: (rate, False))
    assert found.best is None and found.beyond is not None and found.beyond < 20


def test_a_rate_that_was_never_too_high_is_said_to_be_so():
    found = search.search(1000, lambda rate: (rate, True))
    assert found.beyond is None and found.best is not None and found.best > 2000
