"""The validity rules, each provoked: what breaks one spoils exactly what it should, with the right reason."""
from dataclasses import replace

import pytest
from suite_fakes import SCENARIO
from tlsdyno_suite import scenario
from tlsdyno_suite.loads.loadgen import Result
from tlsdyno_suite.placement import Placement
from tlsdyno_suite.sampler import TCP_COUNTERS
from tlsdyno_suite.subjects import DRIVERS
from tlsdyno_suite.verdict import RULES, Evidence, judge


@pytest.fixture
def sound(tmp_path) -> Evidence:
    """A row of a subject that was the bottleneck, in which everything is as asked."""
    path = tmp_path / "some.toml"
    path.write_text(SCENARIO.replace('"400ms"', '"2s"'))
    cell = scenario.expand(scenario.load(path, tuple(DRIVERS)))[0]
    totals = {"handshakes_full": 4000, "handshakes_resumed": 0, "connections_opened": 4000, "errors": {"reset": 0}}
    load = Result(
        engine="openssl", started_ns=0, duration_s=2.0, transactions=3000, handshakes_full=3000, handshakes_resumed=0,
        resume_offered=0, resume_refused=0, bytes_received=10**7, bytes_sent=10**6, rates={}, latency_us={},
        negotiated=[{"tls_version": cell.tls_version, "cipher": cell.cipher, "group": cell.group, "count": 3000}],
        certificates=[{"key": cell.cert_key, "chain_bytes": 500, "count": 4000}], errors={"reset": 0}, totals=totals,
        half_rates=(1500, 1500),
        body_bytes=(0, 0))
    return Evidence(
        cell=cell, placement=Placement((0,), (1,), (1,)), asked_s=2.0, load=load,
        cpu_s={"subject": 1.98, "client": 1.2, "backend": 0.3}, sample_gap_s=0.02, busy={0: 0.99, 1: 0.8}, steal=0.0,
        tcp=dict.fromkeys(TCP_COUNTERS, 0), unpinned=(), counted=counted_like(totals))


def counted_like(totals: dict) -> dict[str, int]:
    """A subject that agrees with the client."""
    return {"handshakes_full": totals["handshakes_full"], "handshakes_resumed": totals["handshakes_resumed"],
            "connections_accepted": totals["connections_opened"], "handshakes_failed": 0}


def with_totals(evidence: Evidence, full: int, resumed: int, **changes) -> Evidence:
    """Both sides count these handshakes in the whole life of the load."""
    totals = {**evidence.load.totals, "handshakes_full": full, "handshakes_resumed": resumed,
              "connections_opened": full + resumed}
    seen = [{"key": evidence.cell.cert_key, "chain_bytes": 500, "count": full}] if full else []
    return replace(with_load(evidence, totals=totals, certificates=seen, **changes), counted=counted_like(totals))


def with_load(evidence: Evidence, **changes) -> Evidence:
    return replace(evidence, load=replace(evidence.load, **changes))


def test_a_sound_row_stands_in_full(sound):
    assert (judge(sound).status, judge(sound).stands, judge(sound).bound) == ("ok", "all", "subject")


def test_every_rule_says_why_its_threshold_is_what_it_is():
    assert all(rule.because and rule.spoils in ("rate", "all") for rule in RULES)
    assert len({rule.name for rule in RULES}) == len(RULES)


def spoils(evidence: Evidence, stands: str, reason: str) -> None:
    verdict = judge(evidence)
    assert verdict.status == "invalid" and verdict.stands == stands
    assert verdict.reason == reason


def test_errors_of_any_class_spoil_all(sound):
    spoils(with_load(sound, errors={"reset": 1, "io_timeout": 0, "tls_alert": 2}), "", "errors: reset 1, tls_alert 2")


def test_one_resumed_session_spoils_a_cell_of_full_handshakes(sound):
    spoils(with_totals(sound, 3999, 1), "",
           "1 handshakes were resumed and none should be")


@pytest.mark.parametrize("reuse, full, stands", [
    ("always", 0, "all"), ("always", 3, "all"), ("always", 4, ""), ("every:100", 30, "all"), ("every:100", 35, "all"),
    ("every:100", 36, ""), ("every:100", 24, ""), ("every:2", 1500, "all")])
def test_the_resumed_share_is_what_was_asked_to_a_tenth_of_a_percent(sound, reuse, full, stands):
    evidence = replace(with_totals(sound, full, 3000 - full, handshakes_full=full, handshakes_resumed=3000 - full),
                       cell=replace(sound.cell, reuse=reuse))
    assert judge(evidence).stands == stands
    assert stands or "of the handshakes were resumed, not" in judge(evidence).reason


def test_of_an_open_loop_each_connection_may_have_one_more_or_less(sound):
    cell = replace(sound.cell, reuse="every:100", loop="rate:1500", connections=20)
    for full, stands in ((53, "all"), (54, "")):
        evidence = with_totals(replace(sound, cell=cell), full, 3000 - full, handshakes_full=full,
                               handshakes_resumed=3000 - full)
        assert judge(evidence).stands == stands


def test_a_server_that_counts_otherwise_spoils_all(sound):
    assert sound.counted
    for name, value, client in (("handshakes_full", 3999, 4000), ("handshakes_resumed", 1, 0),
                                ("connections_accepted", 4001, 4000), ("handshakes_failed", 1, 0)):
        spoils(replace(sound, counted={**sound.counted, name: value}), "",
               f"the subject counted otherwise than the client: {name} {value}, not {client}")


def test_a_handshake_that_failed_on_both_sides_is_no_difference(sound):
    errors = {"tls_alert": 1, "connect_refused": 5}
    failing = with_load(sound, errors=errors, totals={**sound.load.totals, "errors": errors})
    spoils(replace(failing, counted={**sound.counted, "handshakes_failed": 1}), "",
           "errors: tls_alert 1, connect_refused 5")
    assert "handshakes_failed 2, not 1" in judge(
        replace(failing, counted={**sound.counted, "handshakes_failed": 2})).reason


def test_a_subject_without_counters_is_believed_by_the_client_alone(sound):
    assert judge(replace(sound, counted=None)).status == "ok"


@pytest.mark.parametrize("name, value", [
    ("tls_version", "TLSv1.2"), ("cipher", "TLS_AES_256_GCM_SHA384"), ("group", "P-256")])
def test_one_connection_with_other_parameters_spoils_all(sound, name, value):
    other = {**sound.load.negotiated[0], name: value, "count": 1}
    spoils(with_load(sound, negotiated=[*sound.load.negotiated, other]), "",
           f"negotiated {name} {value}, not {sound.load.negotiated[0][name]}")


def test_another_key_spoils_all(sound):
    mine = {"key": sound.cell.cert_key, "chain_bytes": 500, "count": 3999}
    for seen in ([mine, {"key": "rsa:2048", "count": 1}], [{"key": "rsa:2048", "count": 1}, mine]):
        spoils(with_load(sound, certificates=seen), "", "the certificate's key was rsa:2048, not ecdsa:P-256")


@pytest.mark.parametrize("seen", [
    [], [{"key": "ecdsa:P-256", "count": 3999}], [{"key": "ecdsa:P-256", "count": 3999}, {"key": "", "count": 1}]])
def test_a_handshake_with_a_certificate_that_nobody_saw_spoils_all(sound, seen):
    spoils(with_load(sound, certificates=seen), "", "the load generator does not say whose certificate it saw")


def test_where_all_was_resumed_there_is_no_certificate(sound):
    evidence = with_totals(sound, 0, 4000, handshakes_full=0, handshakes_resumed=3000)
    evidence = replace(evidence, cell=replace(sound.cell, reuse="always"))
    assert evidence.load.certificates == [] and judge(evidence).status == "ok"


def test_a_resumed_session_before_tls_1_3_needs_no_group(sound):
    cell = replace(sound.cell, tls_version="TLSv1.2", cipher="ECDHE-ECDSA-AES128-GCM-SHA256", reuse="always")
    agreed = [{"tls_version": cell.tls_version, "cipher": cell.cipher, "group": "", "count": 3000}]
    evidence = replace(with_totals(sound, 0, 3000, negotiated=agreed, handshakes_full=0, handshakes_resumed=3000),
                       cell=cell)
    assert judge(evidence).status == "ok"
    assert judge(replace(evidence, cell=replace(cell, reuse="never"))).stands == ""


@pytest.mark.parametrize("seen, text", [
    ((1024, 1024), "1024"), ((0, 1024), "0 to 1024"), (None, "an unknown number of")])
def test_one_answer_of_another_length_spoils_all(sound, seen, text):
    spoils(with_load(sound, body_bytes=seen), "", f"responses had {text} bytes, not 0")


ARRIVALS = {"due": 1000, "never_begun": 0, "unfinished_at_end": 0}


@pytest.mark.parametrize("counts, reason", [
    ({"never_begun": 1, "unfinished_at_end": 1}, "1 of 1000 that were due never began"),
    ({"unfinished_at_end": 11}, "11 of 1000 that were due were unfinished when the time was over"),
    ({"due": 20, "unfinished_at_end": 2}, "2 of 20 that were due were unfinished when the time was over"),
])
def test_what_was_due_and_did_not_happen_spoils_all(sound, counts, reason):
    spoils(with_load(sound, open_loop={**ARRIVALS, **counts}), "", reason)


@pytest.mark.parametrize("counts", [{}, {"unfinished_at_end": 10}, {"due": 20, "unfinished_at_end": 1}])
def test_what_is_under_way_when_the_time_is_over_spoils_nothing(sound, counts):
    assert judge(with_load(sound, open_loop={**ARRIVALS, **counts})).status == "ok"


@pytest.fixture
def holding(sound) -> Evidence:
    """Connections that rest: hardly any work, and the subject's memory read."""
    cell = replace(sound.cell, loop="hold", requests_per_connection="inf")
    load = with_load(sound, handshakes_full=0, transactions=3, held=cell.connections, open_loop=ARRIVALS).load
    return replace(sound, cell=cell, load=load, memory_kib=(1000.0, 1100.0),
                   cpu_s={"subject": 0.01, "client": 0.01, "backend": 0.0}, busy={0: 0.01, 1: 0.01}, steal=0.5)


def test_connections_that_rest_have_no_rate_to_spoil(holding):
    assert (judge(holding).status, judge(holding).stands) == ("ok", "all")


@pytest.mark.parametrize("open_at_end, stands", [(4, "all"), (3, ""), (5, ""), (None, "")])
def test_memory_is_of_all_connections_or_of_none(holding, open_at_end, stands):
    verdict = judge(with_load(holding, held=open_at_end))
    assert verdict.stands == stands
    assert stands or f"{open_at_end} of 4 connections were open at the end" in verdict.reason


def test_memory_that_was_not_read_spoils_all(holding):
    spoils(replace(holding, memory_kib=None), "", "the subject's memory was not read in the window")


def test_an_error_spoils_held_connections_too(holding):
    spoils(with_load(holding, errors={"reset": 1}), "", "errors: reset 1")


def test_a_window_cut_short_spoils_all(sound):
    evidence = with_load(sound, duration_s=1.9)
    spoils(replace(evidence, cpu_s={**sound.cpu_s, "subject": 1.88}), "", "the window was 1.90 s, not 2 s")


def test_clocks_that_were_not_read_spoil_all(sound):
    spoils(replace(sound, sample_gap_s=0.5), "", "the CPU clocks were not read for 500 ms at an end of the window")


def test_a_role_off_its_cpus_spoils_all(sound):
    spoils(replace(sound, unpinned=("client",)), "", "not on its CPUs: client")


def test_no_work_at_all_spoils_all(sound):
    assert "only 0 ops in the window" in judge(with_load(sound, handshakes_full=0, transactions=0)).reason


def test_a_busy_client_spoils_the_rate_and_leaves_the_cost(sound):
    evidence = replace(sound, cpu_s={"subject": 1.0, "client": 1.94, "backend": 0.05}, busy={0: 0.5, 1: 0.995})
    spoils(evidence, "cost", "load generator was the bottleneck (97 % of its core, which was 100 % busy, subject 50 %)")
    assert judge(evidence).bound == "client"


def test_a_busy_backend_is_told_from_a_busy_client(sound):
    evidence = replace(sound, cpu_s={"subject": 1.0, "client": 0.7, "backend": 1.25}, busy={0: 0.5, 1: 0.98})
    assert judge(evidence).bound == "backend" and judge(evidence).stands == "cost"


def used(evidence: Evidence, placement: Placement, busy: dict[int, float], **shares: float) -> Evidence:
    """Each role with this share of one CPU."""
    cpu_s = {role: evidence.load.duration_s * share for role, share in shares.items()}
    return replace(evidence, placement=placement, cpu_s=cpu_s, busy=busy)


APART, BESIDE, ONE = Placement((0,), (1,), (1,)), Placement((0,), (1,), (0,)), Placement((0,), (0,), (0,))
OVERLAPPED = Placement((0, 1), (1,), (1,))


@pytest.mark.parametrize("placement, busy, shares, bound, reason", [
    # The client had half of a CPU that something else filled: nobody of this cell is to blame.
    (APART, {0: .7, 1: .96}, {"subject": .66, "client": .52, "backend": .04}, "none",
     "something else used CPU 1 (40 % beside load generator 52 %, backend 4 %, subject 66 % of its cores)"),
    (APART, {0: 1.0, 1: .8}, {"subject": .6, "client": .5, "backend": .1}, "none",
     "something else used CPU 0 (40 % beside subject 60 %)"),
    # Two roles fill their CPU together: the larger is named, with the other.
    (APART, {0: .5, 1: .99}, {"subject": .5, "client": .6, "backend": .36}, "client",
     "load generator was the bottleneck (60 % of its core, which was 99 % busy, backend 36 %, subject 50 %)"),
    (APART, {0: .5, 1: .99}, {"subject": .5, "client": .36, "backend": .6}, "backend",
     "backend was the bottleneck (60 % of its core, which was 99 % busy, load generator 36 %, subject 50 %)"),
    # The subject ran out of CPU at what the backend left it.
    (BESIDE, {0: 1.0, 1: .8}, {"subject": .7, "client": .8, "backend": .3}, "none",
     "no role alone was the bottleneck: several filled CPU 0 (subject 70 %, backend 30 %)"),
    (BESIDE, {0: 1.0, 1: .8}, {"subject": .03, "client": .8, "backend": .96}, "backend",
     "backend was the bottleneck (96 % of its core, which was 100 % busy, subject 3 %)"),
    (BESIDE, {0: 1.0, 1: .99}, {"subject": .7, "client": .97, "backend": .3}, "client",
     "load generator was the bottleneck (97 % of its core, which was 99 % busy, subject 70 %)"),
    (ONE, {0: 1.0}, {"subject": .5, "client": .4, "backend": .1}, "none",
     "no role alone was the bottleneck: several filled CPU 0 (subject 50 %, load generator 40 %, backend 10 %)"),
    # The few per cent that others always take keep nobody from filling a CPU, but they are missing in a subject's rate.
    (APART, {0: .1, 1: .98}, {"subject": .1, "client": .93, "backend": .01}, "client",
     "load generator was the bottleneck (93 % of its core, which was 98 % busy, backend 1 %, subject 10 %)"),
    (APART, {0: .98, 1: .5}, {"subject": .94, "client": .4, "backend": .01}, "none",
     "something else used CPU 0 (4 % beside subject 94 %)"),
    (BESIDE, {0: .97, 1: .5}, {"subject": .7, "client": .4, "backend": .23}, "none",
     "no role alone was the bottleneck: several filled CPU 0 (subject 70 %, backend 23 %)"),
    # How a subject's time is spread over its CPUs is not known, so nothing else is suspected of what it may have used.
    (OVERLAPPED, {0: .99, 1: .99}, {"subject": 1.3, "client": .5, "backend": .15}, "none",
     "no role alone was the bottleneck: several filled CPU 0-1 (subject 65 %, load generator 25 %, backend 8 %)"),
    (OVERLAPPED, {0: .4, 1: .99}, {"subject": .8, "client": .5, "backend": .05}, "none",
     "nobody was the bottleneck (subject 40 % of its cores)"),
    (OVERLAPPED, {0: .4, 1: .99}, {"subject": .4, "client": .9, "backend": .06}, "client",
     "load generator was the bottleneck (90 % of its core, which was 99 % busy, backend 6 %, subject 20 %)"),
])
def test_only_who_filled_a_cpu_is_blamed(sound, placement, busy, shares, bound, reason):
    verdict = judge(used(sound, placement, busy, **shares))
    assert (verdict.status, verdict.stands, verdict.bound) == ("invalid", "cost", bound)
    assert reason in verdict.reason.split("; ")


def test_a_cpu_that_the_hypervisor_took_is_not_blamed_on_others(sound):
    evidence = used(sound, APART, {0: .6, 1: 1.0}, subject=.6, client=.5, backend=.1)
    verdict = judge(replace(evidence, steal=.38))
    assert verdict.reason == (
        "nobody was the bottleneck (subject 60 % of its cores); the hypervisor took 38.0 % of the CPU")


def test_a_subject_that_fills_its_core_beside_a_backend_is_the_bottleneck(sound):
    assert judge(used(sound, BESIDE, {0: 1.0, 1: .8}, subject=.96, client=.8, backend=.03)).bound == "subject"


def test_a_rate_that_nobody_limited_is_no_capacity(sound):
    evidence = replace(sound, cpu_s={"subject": 1.0, "client": 0.7, "backend": 0.2}, busy={0: 0.5, 1: 0.45})
    spoils(evidence, "cost", "nobody was the bottleneck (subject 50 % of its cores)")
    assert judge(evidence).bound == "none"


def test_a_shared_cpu_spoils_the_rate(sound):
    spoils(replace(sound, placement=Placement((0, 1), (1,), (1,)), cpu_s={**sound.cpu_s, "subject": 3.9}), "cost",
           "subject and load generator shared CPU 1")


def test_company_spoils_the_rate_and_nothing_else_of_it_is_told(sound):
    shared = replace(sound, placement=replace(sound.placement, company=4),
                     cpu_s={"subject": 0.4, "client": 0.2, "backend": 0.1})
    for evidence in (shared, replace(with_load(shared, half_rates=(1520, 1400)), steal=0.02)):
        spoils(evidence, "cost", "measured at once with 4 more")
        assert judge(evidence).bound == "subject"
    idle = replace(shared, busy={0: 0.7, 1: 0.8})
    spoils(idle, "cost", "measured at once with 4 more, and all together left their CPU idle (70 % busy)")
    assert judge(idle).bound == "none"
    spoils(with_load(shared, errors={"reset": 1}), "", "errors: reset 1; measured at once with 4 more")


def test_windows_that_are_apart_spoil_all(sound):
    shared = replace(sound, placement=replace(sound.placement, company=1), together=0.75)
    spoils(shared, "cost", "measured at once with 1 more")
    spoils(replace(shared, together=0.74), "", "only 74 % of the window was that of the others who were to be measured "
           "at once; measured at once with 1 more")


def test_an_unsteady_window_spoils_the_rate(sound):
    spoils(with_load(sound, half_rates=(1520, 1470)), "cost",
           "not steady: the halves of the window differ by 3.3 %")


def test_stolen_time_spoils_the_rate(sound):
    spoils(replace(sound, steal=0.02), "cost", "the hypervisor took 2.0 % of the CPU")


def test_lost_connections_and_segments_spoil_the_rate(sound):
    spoils(replace(sound, tcp={**sound.tcp, "ListenOverflows": 2, "ListenDrops": 3}), "cost",
           "3 connections did not fit in a listen queue (counted for the whole machine)")
    spoils(replace(sound, tcp={**sound.tcp, "RetransSegs": 104, "TCPLossProbes": 100}), "cost",
           "4 segments were lost and sent again (counted for the whole machine)")
    assert judge(replace(sound, tcp={**sound.tcp, "RetransSegs": 100, "TCPLossProbes": 100})).status == "ok"


def test_several_faults_are_all_named_and_the_worst_decides(sound):
    verdict = judge(replace(with_load(sound, errors={"reset": 1}), steal=0.02))
    assert verdict.stands == "" and verdict.reason == "errors: reset 1; the hypervisor took 2.0 % of the CPU"


def test_a_subject_that_never_resumes_is_judged_as_one(sound):
    asked = replace(sound, cell=replace(sound.cell, reuse="always"))
    assert "were resumed, not 100.0 %" in judge(asked).reason
    assert judge(replace(asked, resumes=False)).stands == "all"
    leaked = replace(with_totals(asked, 3999, 1), resumes=False)
    assert "1 handshakes were resumed and none should be" in judge(leaked).reason


def test_keys_that_the_client_sends_need_no_group(sound):
    seen = [{"tls_version": "TLSv1", "cipher": "AES256-SHA", "count": 3000}]
    cell = replace(sound.cell, tls_version="TLSv1", cipher="AES256-SHA")
    assert judge(with_load(replace(sound, cell=cell), negotiated=seen)).stands == "all"


@pytest.mark.parametrize("share, busy, stands, bound, reason", [
    (0.5, 0.6, "all", "none", ""),
    (0.9, 0.95, "cost", "client", "load generator was the bottleneck (90 % of its cores)"),
    (0.4, 0.99, "cost", "none", "something else used CPU 1 (59 % beside load generator 40 %)")])
def test_a_rate_of_a_subject_elsewhere_stands_while_the_load_generator_has_headroom(sound, share, busy, stands, bound,
                                                                                    reason):
    elsewhere = replace(sound, external=True, placement=Placement((), (1,), ()), cpu_s={"client": 2.0 * share},
                        busy={0: 0.1, 1: busy}, counted=None)
    verdict = judge(elsewhere)
    assert (verdict.stands, verdict.bound, verdict.reason) == (stands, bound, reason)
    lossy = replace(elsewhere, tcp={**elsewhere.tcp, "RetransSegs": 1000})
    assert judge(lossy).reason == reason  # a network may lose some


def test_what_wrk_does_not_say_is_not_judged(sound):
    silent = with_load(sound, negotiated=[], certificates=[], body_bytes=None, half_rates=None, tells=False)
    assert judge(silent).stands == "all"
    assert judge(with_load(silent, tells=True)).stands == ""
    assert "errors: reset 1" in judge(with_load(silent, errors={"reset": 1})).reason


def test_a_subject_without_tls_has_nothing_negotiated(sound):
    bare = with_load(sound, negotiated=[], certificates=[])
    assert judge(replace(bare, plain=True)).stands == "all" and judge(bare).stands == ""


def test_of_a_burst_every_request_must_be_answered(sound):
    cell = replace(sound.cell, loop="burst", connections=3000)
    short = with_load(replace(sound, cell=cell, sample_gap_s=1.0), duration_s=0.3, half_rates=None)
    assert judge(short).stands == "all"
    assert "2999 of 3000 requests were answered" in judge(with_load(short, transactions=2999)).reason
    assert judge(with_load(short, errors={"reset": 1})).stands == ""


def test_a_search_is_bound_by_who_was_at_the_rate_that_was_too_high(sound):
    found = replace(sound, cell=replace(sound.cell, loop="search:100ms,0.1"),
                    cpu_s={**sound.cpu_s, "subject": 1.6}, busy={0: 0.8, 1: 0.8})
    assert "no rate was too high" in judge(found).reason
    assert "no rate met search:100ms,0.1, down to " in judge(replace(found, beyond=sound, met=False)).reason
    assert judge(replace(found, beyond=sound, met=False)).stands == ""
    verdict = judge(replace(found, beyond=sound))
    assert (verdict.stands, verdict.bound) == ("all", "subject")
    client = replace(sound, cpu_s={"subject": 1.0, "client": 1.96, "backend": 0.02}, busy={0: 0.5, 1: 0.99})
    verdict = judge(replace(found, beyond=client))
    assert (verdict.stands, verdict.bound) == ("cost", "client")
