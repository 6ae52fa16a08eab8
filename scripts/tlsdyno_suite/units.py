"""Times as the C programs spell them (`500ms`, `5s`, `2m`, `1h`; a bare number is seconds), and how a person reads them
and other numbers."""
import re

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
LONGEST_S = 86400.0  # nobody measures a cell for a day; a longer time is a slip of the pen


def parse_time(text: str | int | float) -> float:
    """Seconds; ValueError with a reason when it is no time."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", str(text))
    if not found:
        raise ValueError(f"'{text}' is not a time such as 500ms, 5s or 1h")
    seconds = float(found[1]) * SECONDS[found[2]]
    if seconds > LONGEST_S:
        raise ValueError(f"'{text}' is longer than a day")
    return seconds


def parse_length(text: str | int | float) -> float:
    """A time that something lasts: at least the millisecond that the C programs can tell from nothing."""
    seconds = parse_time(text)
    if seconds < 0.001:
        raise ValueError("must be longer than nothing (1ms or more)")
    return seconds


def format_time(seconds: float) -> str:
    """The spelling that the C programs take, without loss down to a millisecond."""
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def significant(value: float) -> str:
    """Three or four significant digits, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def about(seconds: float) -> str:
    """For people: `45 s`, `3 min 20 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s"
