"""trials.csv of `ab`: a row for each trial, so that everything the verdict was made of can be looked at again."""
import csv
from pathlib import Path

from .block import Block
from .cell import Cell
from .refusal import Refused

COLUMNS = ("block", "cell", "arm", "cpu_us_per_op", "transactions_per_s", "portion_ops", "portions_cpu_us_per_op",
           "foreign", "steal", "reason")


class Recorder:
    """Appends the trials of a block, or the reason why it has none, and brings them to the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("x", newline="", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise Refused(path, "", error.strerror or str(error)) from error
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._write(COLUMNS)

    def _write(self, *rows: tuple[object, ...]) -> None:
        try:
            self._rows.writerows(rows)
            self._file.flush()
        except OSError as error:
            raise Refused(self._path, "", error.strerror or str(error)) from error

    def write(self, number: int, cell: Cell, block: Block | None, reason: str) -> None:
        if block is None:
            self._write((number, cell.label, *[""] * (len(COLUMNS) - 3), reason))
            return
        self._write(*((
            number, cell.label, trial.arm, f"{trial.cost_us:.7g}", f"{trial.rate_per_s:.7g}", block.portion_ops,
            " ".join(f"{cost:.7g}" for cost in trial.costs_us), f"{block.foreign:.4f}", f"{block.steal:.4f}", "")
            for trial in block.trials.values()))

    def close(self) -> None:
        self._file.close()
