"""Tables: what enters a figure and what may not, and that they need nothing but the CSV."""
import csv

import pytest
from tlsdyno_suite import cli, record, table
from tlsdyno_suite.refusal import Refused

BASE = {
    "run_id": "r", "scenario": "some", "case": "work=full", "repeat": 1, "subject": "reference", "subject_version": "1",
    "cert_key": "rsa:2048", "tls_version": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "group": "X25519",
    "reuse": "never", "resume_with": "any", "requests_per_connection": 1, "request_bytes": 0, "response_bytes": 1024,
    "connections": 50, "cores": 1, "backend": "tcp", "loop": "closed",
    "floor_kind": "library", "handshakes_full_per_s": 1000.0, "handshakes_resumed_per_s": 0.0,
    "transactions_per_s": 1000.0, "subject_cpu_us_per_op": 990.0, "capacity_per_core_per_s": 1010.0,
    "floor_cpu_us_per_op": 495.0, "efficiency": 0.5, "status": "ok", "stands": "all", "bound": "subject", "reason": "",
}
CLIENT_BOUND = {"status": "invalid", "stands": "cost", "bound": "client"}


@pytest.fixture
def written(tmp_path):
    def write(*changes):
        path = tmp_path / "results.csv"
        path.unlink(missing_ok=True)
        recorder = record.Recorder(path)
        for change in changes:
            recorder.write({**BASE, **change})
        recorder.close()
        return path
    return write


def line_of(text: str, subject: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(subject))


def test_the_columns_are_those_of_the_contract_in_their_order(written):
    with written({}).open(newline="") as file:
        header = next(csv.reader(file))
    assert tuple(header) == record.COLUMNS and len(set(header)) == len(header)
    assert header[:5] == ["run_id", "scenario", "table", "case", "repeat"]
    assert header[header.index("status"):][:4] == ["status", "stands", "bound", "reason"]
    assert record.read(written({}))[0]["target_rate_per_s"] == ""


def test_a_row_that_does_not_stand_is_in_no_average(written):
    rows = record.read(written(
        {"transactions_per_s": 1000.0}, {"repeat": 2, "transactions_per_s": 1020.0},
        {"repeat": 3, "transactions_per_s": 77.0, "subject_cpu_us_per_op": 1010.0, **CLIENT_BOUND,
         "reason": "load generator was the bottleneck (97 % of its core)"},
        {"repeat": 4, "transactions_per_s": 55.0, "subject_cpu_us_per_op": 5.0, "status": "invalid", "stands": "",
         "reason": "errors: reset 1"}))
    for show in table.FORMATS.values():
        text = show(rows)
        assert "1 010 ±1%" in line_of(text, "reference" if show is table.render_text else "| reference")
        assert "990 ±1%" in text
        assert "load generator was the bottleneck (97 % of its core)" in text and "errors: reset 1" in text
    assert "2 of 4 rows stand in full, 1 in their CPU cost only, 1 not at all." in table.render_text(rows)


def test_a_client_bound_row_shows_its_cost_and_no_rate(written):
    text = table.render_text(record.read(written({**CLIENT_BOUND, "reason": "load generator was the bottleneck"})))
    assert line_of(text, "reference").split() == "reference 1 - - 990 1 010 50 % client [1]".split()
    assert "[1] Rate left out: load generator was the bottleneck. full: reference." in text


def test_reasons_alike_but_for_their_figures_share_a_footnote(written):
    text = table.render_text(record.read(written(
        {"subject": "hitch", **CLIENT_BOUND, "reason": "load generator was the bottleneck (97 % of its core)"},
        {"subject": "nginx", **CLIENT_BOUND, "reason": "load generator was the bottleneck (99 % of its core)"})))
    assert "the bottleneck (97-99 % of its core). full: hitch, nginx." in text and "[2]" not in text


def test_only_numbers_that_stand_alone_become_ranges():
    names = "TLS_AES_128_GCM_SHA256 with P-256 over TLSv1.2, not rsa:2048"
    merged = table.merge_numbers([f"{names} (97 % of CPU 1, 3 errors)", f"{names} (99.5 % of CPU 1, 7 errors)"])
    assert merged == f"{names} (97-99.5 % of CPU 1, 3-7 errors)"


NAMED = [
    ("negotiated tls_version TLSv1.2, not TLSv1.3", "negotiated tls_version TLSv1.3, not TLSv1.2"),
    ("negotiated cipher TLS_AES_128_GCM_SHA256, not X", "negotiated cipher TLS_AES_256_GCM_SHA384, not X"),
    ("something else used CPU 0 (40 %)", "something else used CPU 1 (40 %)"),
]


@pytest.mark.parametrize("one, other", NAMED)
def test_reasons_that_name_other_things_have_footnotes_of_their_own(written, one, other):
    text = table.render_text(record.read(written(
        {"subject": "hitch", **CLIENT_BOUND, "reason": one}, {"subject": "nginx", **CLIENT_BOUND, "reason": other})))
    assert f"[1] Rate left out: {one}. full: hitch." in text and f"[2] Rate left out: {other}. full: nginx." in text


def test_the_figures_of_a_failure_are_never_merged(written):
    """They are dates and process numbers."""
    nothing = {"efficiency": "", "stands": "", "bound": "", "status": "failed"}
    reasons = [f"subject died (last log line: 2026-01-0{day} 10:00:00 worker {day} gone)" for day in (1, 2)]
    text = " ".join(table.render_text(record.read(written(
        {"subject": "hitch", **nothing, "reason": reasons[0]}, {"subject": "nginx", **nothing, "reason": reasons[1]},
        {"subject": "stunnel", **nothing, "reason": reasons[1]}))).split())
    assert f"[1] FAILED: {reasons[0]}. full: hitch." in text
    assert f"[2] FAILED: {reasons[1]}. full: nginx, stunnel." in text


@pytest.mark.parametrize("show", table.FORMATS.values(), ids=list(table.FORMATS))
def test_a_mark_stays_in_its_section(written, show):
    """A bundle and a plain axis: two sections have the same title."""
    text = show(record.read(written(
        {"connections": 10}, {"connections": 50, **CLIENT_BOUND, "reason": "load generator was the bottleneck"},
        {"connections": 10, "case": "work=resumed"})))
    lines = [line for line in text.splitlines() if "reference 1" in line]
    assert ["[1]" in line for line in lines] == [False, True, False]
    assert "Rate left out: load generator was the bottleneck. full (50 connections): reference." in text


def test_a_missing_floor_has_a_footnote_and_spoils_nothing(written):
    text = table.render_text(record.read(written(
        {"floor_cpu_us_per_op": "", "efficiency": "", "floor_reason": "tls-floor ended with status 1"})))
    assert line_of(text, "reference").split() == "reference 1 1 000 1 000 990 1 010 - subject [1]".split()
    assert "[1] No floor: tls-floor ended with status 1. full: reference." in text
    assert "1 of 1 rows stand in full." in text


def test_the_reference_is_held_against_the_best_of_the_others(written):
    path = written({}, {"subject": "hitch", "subject_cpu_us_per_op": 1200.0},
                   {"subject": "nginx", "subject_cpu_us_per_op": 900.0, "status": "invalid", "stands": ""},
                   {"subject": "haproxy", "subject_cpu_us_per_op": 1100.0, **CLIENT_BOUND, "reason": "x"})
    line = line_of(table.render_text(record.read(path)), "(reference")
    assert line.split() == ["(reference", "/", "haproxy)", "0.90"]
    assert "| *reference / haproxy* |" in table.render_markdown(record.read(path))
    assert "(reference /" not in table.render_text(record.read(written({})))


@pytest.mark.parametrize("kind, text", [
    ("library", "(TLS library alone)"), ("relay", "(bare relay)"), ("library+relay", "(TLS library, relay)")])
def test_the_floor_says_what_it_is(written, kind, text):
    line = line_of(table.render_text(record.read(written({"floor_kind": kind}))), text)
    assert line.removeprefix(f"  {text}").split() == ["495", "2", "020", "100", "%"]


def test_memory_has_a_table_of_its_own_kind(written):
    held = {"case": "work=idle", "loop": "hold", "subject_cpu_us_per_op": "", "transactions_per_s": "",
            "floor_cpu_us_per_op": "", "floor_kind": "", "bound": "", "subject_rss_kib": 30000}
    rows = record.read(written({}, {**held, "subject_idle_kib_per_connection": 15.0},
                               {**held, "subject": "hitch", "subject_idle_kib_per_connection": 30.0}))
    text = table.render_text(rows)
    section = text[text.index("idle"):]
    assert "CPU us/op" in text and "KiB/connection" in section and "held at rest" in section
    assert line_of(section, "reference 1").split() == ["reference", "1", "15.0", "30", "000"]
    assert line_of(section, "(reference").split() == ["(reference", "/", "hitch)", "0.50"]
    assert max(map(len, text.splitlines())) <= 120
    assert "| KiB/connection | resident KiB |" in table.render_markdown(rows)


def test_sizes_in_names_are_in_the_order_of_their_values(written):
    rows = record.read(written(*({"case": f"work=object-{size}k"} for size in (1024, 16, 1, 0))))
    text = table.render_text(rows)
    places = [text.index(f"object-{size}k") for size in (0, 1, 16, 1024)]
    assert places == sorted(places)


def test_a_run_made_before_a_column_came_is_read(written):
    path = written({"floor_kind": ""})
    lines = [line.split(",") for line in path.read_text().splitlines()]
    keep = [number for number, name in enumerate(lines[0]) if name not in record.LATER]
    path.write_text("".join(",".join(line[number] for number in keep) + "\n" for line in lines))
    row = record.read(path)[0]
    assert (row["loop"], row["floor_kind"], row["subject_idle_kib_per_connection"]) == ("closed", "library", "")
    assert "(TLS library alone)" in table.render_text([row])


def test_skipped_and_failed_rows_are_seen_with_their_reasons(written):
    nothing = {name: "" for name in BASE if name.endswith(("_per_s", "_us_per_op"))}
    nothing |= {"efficiency": "", "stands": "", "bound": ""}
    text = table.render_text(record.read(written(
        {}, {**nothing, "subject": "hitch", "status": "skipped", "reason": "hitch is not installed"},
        {**nothing, "subject": "nginx", "status": "failed", "reason": "subject died"})))
    assert "Skipped: hitch is not installed. full: hitch." in text and "FAILED: subject died. full: nginx." in text
    assert line_of(text, "hitch").endswith("[1]") and line_of(text, "nginx").endswith("[2]")


def test_sections_follow_what_varies_and_fit_a_terminal(written):
    text = table.render_text(record.read(written(
        {"case": ""},
        {"case": "", "reuse": "always", "handshakes_full_per_s": 0.0, "handshakes_resumed_per_s": 5000.0})))
    assert text.index("new session each time") < text.index("session always resumed")
    assert "5 000" in text
    assert max(map(len, text.splitlines())) <= 120


BROKEN = {
    "empty": ("", "the file is empty"),
    "other": ("a,b\n1,2\n", "no such column"),
    "cut": (",".join(record.COLUMNS) + "\nx,y\n", "row 2: has not as many fields"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_csv_is_refused_with_its_row(tmp_path, name):
    text, reason = BROKEN[name]
    path = tmp_path / "results.csv"
    path.write_text(text)
    with pytest.raises(Refused, match=reason):
        record.read(path)
    with pytest.raises(Refused, match="No such file"):
        record.read(tmp_path / "nowhere.csv")


IMPOSSIBLE = {
    "subject_cpu_us_per_op": "12a", "efficiency": "nan", "floor_cpu_us_per_op": "1,5", "floor_kind": "ceiling",
    "case": "full", "cores": "two", "requests_per_connection": "many", "survivor_cpu_us_per_op_by_second": "1 x -",
    "connections_per_s": "-5", "repeat": "first", "status": "fine",
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_figure_that_is_none_is_refused_with_its_row(written, capsys, name):
    path = written({}, {name: IMPOSSIBLE[name]})
    for command in ("table", "plot"):
        assert cli.main([command, str(path)]) == 2
        said, complained = capsys.readouterr()
        kind = "no such figure" if name in record.FIGURES else "none"
        assert said == "" and complained == f"tlsdyno: {path}: row 3: {name}: '{IMPOSSIBLE[name]}' is {kind}\n"


def test_every_figure_that_is_written_is_read(written):
    row = {"transactions_per_s": 1e6 / 3, "received_bytes_per_s": 1.25e9, "subject_idle_kib_per_connection": -1e-7,
           "survivor_resumed_share_by_second": "0.98 - 1e-05", "requests_per_connection": "inf"}
    read, = record.read(written(row))
    assert {name: read[name] for name in row} == {name: record.field(value) for name, value in row.items()}
