"""The short form of `make check-gate`: one small run of each kind of demand, interrupted and taken up again."""
import check_gate
import pytest
from check_gate import Kind
from test_gate_ab import SLOWDOWN, place, slower  # noqa: F401  (fixtures)

ONLY = ("--only", "work=full")
KINDS = (
    Kind("slower", f"slow-{SLOWDOWN}", ONLY, least=1.0),
    Kind("the same, disturbed", ".", (*ONLY, "--threshold", "30"), most=0.0, disturbed=True),
)


def test_it_shows_what_the_gate_finds_and_goes_on_where_it_was_interrupted(  # noqa: F811
        place, slower, monkeypatch, capsys):  # noqa: F811
    path, said = place / "runs.csv", []

    def interrupt(line: str) -> None:
        said.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_gate.measure(KINDS, 1, path, str(place / "gate.toml"), interrupt)
    assert len(check_gate.finished(path)) == 1
    with path.open("a") as file:
        file.write("slower,2,1,9")  # what a run that is killed in mid-row leaves
    check_gate.measure(KINDS, 1, path, str(place / "gate.toml"), said.append)
    rows = check_gate.finished(path)
    text, met = check_gate.table(KINDS, rows)
    assert sorted(row["kind"] for row in rows) == ["slower", "the same, disturbed"] and len(said) == 2
    assert met, text
    # The table can say no as well.
    assert not check_gate.table((Kind("slower", "", (), most=0.0),), rows)[1]
    assert not check_gate.table((Kind("slower", "", (), limit_s=0.1),), rows)[1]
