"""Refusals: what the user gave cannot be used. Always one line, exit status 2, and nothing was started."""


class Refused(Exception):
    """`what` is the file or option, `key` the place in it (may be empty), `reason` why."""

    def __init__(self, what: object, key: str, reason: str) -> None:
        parts = [str(part) for part in (what, key, reason) if str(part)]
        super().__init__(": ".join(parts).replace("\n", " "))
