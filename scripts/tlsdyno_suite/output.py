"""Standard output and standard error, which may be closed, full, or of an encoding that has not every character."""
import contextlib
import os
import sys

from .refusal import Refused

# What tables use beyond ASCII, for terminals and pipes that have no more.
PLAIN = str.maketrans({"─": "-", "±": "+-"})


def prepare() -> None:
    """To be called first. Whatever is closed of the three standard descriptors is opened on nothing: the first file
    that is opened would get its number, and whoever prints would print there."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:
        raise Refused("standard output", "", "is closed")


def say(text: str) -> None:
    """To standard output, at once. BrokenPipeError when the reader has gone; that is no fault."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(PLAIN).encode(encoding, errors="replace").decode(encoding)
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        discard()
        raise
    except OSError as error:
        discard()
        raise Refused("standard output", "", error.strerror or str(error)) from error


def discard() -> None:
    """Sends what is left to nothing: Python must not try again at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def mention(text: str, end: str = "\n") -> None:
    """To standard error. What nobody can read is no reason to stop a measurement."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
