"""Figures of a field of results.csv: most often one; of hosts of which one died, the time before and each second
after."""
import math
from collections.abc import Callable


def figures(text: str) -> list[float]:
    """Those of a field, also where one was not measured."""
    return [math.nan if word == "-" else float(word) for word in text.split()]


def known(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def only(values: list[float]) -> float | None:
    return values[0] if values else None


def before(values: list[float]) -> float | None:
    """Of the time before."""
    return next(iter(known(values[:1])), None)


def second(number: int) -> Callable[[list[float]], float | None]:
    """Of that second after."""
    return lambda values: next(iter(known(values[number:number + 1])), None)


def lowest(values: list[float]) -> float | None:
    """Of all seconds after."""
    return min(known(values[1:]), default=None)
