"""The sampler: CPU time of a whole session, read from outside, over any window."""
import os
import signal
import subprocess
import sys
import time

from tlsdyno_suite.sampler import TCP_COUNTERS, Sampler, Series, read_machine, read_tcp_counters

# Parent and child each burn 0.3 s of CPU, then stay.
BURNER = """
import os, time
def burn(seconds):
    while time.process_time() < seconds:
        pass
if os.fork() == 0:
    burn(0.3)
    time.sleep(60)
burn(0.3)
print("burnt", flush=True)
time.sleep(60)
"""


def test_growth_is_interpolated_between_readings():
    series = Series()
    start = 1_700_000_000_000_000_000
    for second in range(5):
        series.add(start + second * 10**9, second * 0.5)
    assert abs(series.growth(start + 500_000_000, start + 3_500_000_000) - 1.5) < 1e-9
    assert abs(series.gap_s(start + 500_000_000) - 1.0) < 1e-9
    assert series.gap_s(start - 1) == float("inf") == series.gap_s(start + 10 * 10**9)


def test_the_cpu_time_of_parent_and_child_is_counted():
    burner = subprocess.Popen([sys.executable, "-c", BURNER], stdout=subprocess.PIPE, start_new_session=True)
    try:
        sampler = Sampler()
        sampler.add({"subject": burner.pid}, ["subject"])
        sampler.start()
        assert burner.stdout is not None and burner.stdout.readline() == b"burnt\n"
        while sum(sampler._clocks["subject"].values()) < 0.6:
            time.sleep(0.05)
            sampler._find_members()
        sampler.stop()
        series = sampler.cpu_s["subject"]
        assert series.values == sorted(series.values)
        assert 0.6 <= series.growth(0, time.time_ns()) + series.values[0] < 5
        assert sampler.resident_kib["subject"] > sampler.own_kib["subject"].values[-1] > 500
    finally:
        os.killpg(burner.pid, signal.SIGKILL)
        burner.wait()
        burner.stdout.close()


def test_a_program_that_begins_before_anybody_looks_is_known_to_have_used_nothing_before():
    before_ns = time.time_ns()
    sampler = Sampler()
    sampler.add({"subject": os.getpid()}, [])
    sampler.add_new("client", os.getpid(), before_ns)
    assert sampler.cpu_s["client"].values == [0.0] and sampler.cpu_s["client"].times_ns == [before_ns]
    sampler.start()
    sampler.stop()
    begun_ns = before_ns + 1
    assert sampler.cpu_s["client"].gap_s(begun_ns) < float("inf")
    assert sampler.cpu_s["subject"].gap_s(begun_ns) == float("inf")  # nobody knows what it had used by then


def test_the_machine_and_its_tcp_counters_are_readable():
    assert read_machine() and set(read_tcp_counters()) == set(TCP_COUNTERS)
    assert all(count >= 0 for count in read_tcp_counters().values())
