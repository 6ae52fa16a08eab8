"""Plots: every repeat that stands is a dot, of its subject's colour, and nothing but the results is needed."""
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from suite_fakes import SCENARIO, TLSDYNO
from test_suite_published import FIGURES, TABLE, write

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def place(tmp_path):
    (tmp_path / "figures.csv").write_text(FIGURES)
    (tmp_path / "scenario.toml").write_text(SCENARIO.replace('["reference"]', '["reference", "nginx"]') + TABLE)
    write(tmp_path, {}, {"repeat": 2, "connections_per_s": 1020.0},
          {"repeat": 3, "subject": "nginx", "status": "invalid", "stands": "cost"},
          {"repeat": 4, "subject": "nginx", "status": "failed", "stands": "", "capacity_per_core_per_s": ""})
    return tmp_path


def plot(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(TLSDYNO), "plot", *arguments], capture_output=True, text=True)


def dots(path: Path) -> dict[str, int]:
    """By what they are of. A dot is a use of a path that was defined, or, where it is the only one, a path itself."""
    groups = ElementTree.parse(path).iter(f"{SVG}g")
    return {group.get("id", ""): len(list(group.iter(f"{SVG}use"))) or len(group.findall(f"{SVG}path"))
            for group in groups}


def texts(path: Path) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.parse(path).iter(f"{SVG}text")]


def test_each_repeat_is_a_dot_and_the_published_figure_stands_beside(place):
    result = plot(str(place))
    assert result.returncode == 0, result.stderr
    path = Path(result.stdout.strip())
    found = dots(path)
    assert path.parent == place / "plots"
    # Two kinds of sessions, two repeats each; of nginx a third one of which the cost stands.
    assert (found["reference"], found["nginx"], found["nginx, estimated"]) == (4, 4, 2)
    assert (found["reference, published"], found["hitch-0.1, published"]) == (1, 1)
    said = " ".join(texts(path))
    assert all(words in said for words in ("some", "connections/s", "new session each time", "session always resumed"))


def test_the_same_results_make_the_same_file(place):
    first = Path(plot(str(place)).stdout.strip()).read_bytes()
    assert Path(plot(str(place), "--out", str(place / "again")).stdout.strip()).read_bytes() == first


def test_a_results_csv_by_itself_is_drawn_by_its_costs(place):
    write_costs = (place / "results.csv")
    write_costs.unlink()
    write(place, {"subject_cpu_us_per_op": 50.0}, {"repeat": 2, "subject_cpu_us_per_op": 60.0})
    (place / "scenario.toml").unlink()
    path = Path(plot(str(place / "results.csv")).stdout.strip())
    assert dots(path)["reference"] == 4 and "CPU us/op" in texts(path)
    assert "new session each time" in " ".join(texts(path))


def test_a_run_without_figures_is_no_plot(place):
    (place / "results.csv").unlink()
    write(place, {"status": "failed", "stands": "", "capacity_per_core_per_s": ""})
    result = plot(str(place))
    assert result.returncode == 2 and "no row of this run has a figure that stands" in result.stderr
    assert not (place / "plots").exists()


def test_a_place_that_cannot_be_written_is_named(place):
    (place / "file").touch()
    result = plot(str(place), "--out", str(place / "file"))
    assert result.returncode == 2 and f"{place / 'file'}: File exists" in result.stderr
