"""Placement: nobody is put on a CPU that is not there, and who shares one is said."""
from dataclasses import replace

import pytest
from suite_fakes import SCENARIO
from tlsdyno_suite import scenario
from tlsdyno_suite.placement import Placement, cpu_list, place, usable
from tlsdyno_suite.refusal import Refused
from tlsdyno_suite.subjects import DRIVERS


@pytest.fixture
def loaded(tmp_path):
    path = tmp_path / "some.toml"
    path.write_text(SCENARIO)
    return scenario.load(path, tuple(DRIVERS))


def test_subject_first_client_last_backend_beside_the_client(loaded):
    cell = scenario.expand(loaded)[0]
    assert place(cell, (0, 1), "client") == Placement((0,), (1,), (1,))
    assert place(replace(cell, cores=2), (2, 3, 5, 7), "client") == Placement((2, 3), (7,), (7,))
    assert place(replace(cell, cores=2), (2, 3, 5, 7), "subject") == Placement((2, 3), (7,), (3,))


def test_a_cell_that_needs_the_clients_cpu_says_so(loaded):
    cell = scenario.expand(loaded)[0]
    assert place(cell, (0, 1), "client").overlapped == ()
    both = place(replace(cell, cores=2), (0, 1), "client")
    assert both.overlapped == (1,) and str(both).endswith("; overlapped")
    assert str(place(cell, (3,), "client")) == "subject 3; client 3; backend 3; overlapped"


def test_more_cores_than_there_are_cannot_be_placed(loaded):
    assert place(replace(scenario.expand(loaded)[0], cores=3), (0, 1), "client") is None


def test_a_cpu_that_is_not_there_is_refused(loaded):
    assert usable(loaded, {4, 2}) == (2, 4)
    assert usable(replace(loaded, cpus=(4, 2)), {2, 3, 4}) == (4, 2)
    with pytest.raises(Refused, match=r"placement\.cpus: there is no CPU 7 for this process \(it has 0-1\)"):
        usable(replace(loaded, cpus=(0, 7)), {0, 1})


def test_cpu_lists_are_spelt_as_taskset_takes_them():
    assert cpu_list((0,)) == "0" and cpu_list((3, 0, 1, 2, 7)) == "0-3,7" and cpu_list((5, 7)) == "5,7"
