"""Few numbers for many: what tables show of repeated measurements."""
import numpy


def median(values: list[float]) -> float:
    return float(numpy.median(values))


def middle_half(values: list[float]) -> tuple[float, float]:
    """The quartiles: of many repeats, some of which others disturbed."""
    low, high = numpy.percentile(values, (25, 75))
    return float(low), float(high)


def spread(values: list[float]) -> float | None:
    """Half the range as a share of the median; None when there is nothing to compare. Honest for the two to five
    repeats of a table, for which an interval from a distribution would only pretend to know more."""
    if len(values) < 2 or not median(values):
        return None
    return float((max(values) - min(values)) / 2 / abs(median(values)))
