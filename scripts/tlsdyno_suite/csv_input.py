"""A CSV file that a user gave: what is wrong with it is a refusal that names it."""
import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .refusal import Refused


@contextlib.contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """For the time in which it is read, by a reader of the csv module. Refused: that cannot be read, or is no text."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise Refused(path, "", error.strerror or str(error)) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise Refused(path, "", f"not a CSV file: {error}") from error
