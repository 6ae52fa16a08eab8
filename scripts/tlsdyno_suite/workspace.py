"""The directory for temporary files of a run: configurations, sockets, results of programs. A runner that is killed
cannot remove its own, so each run first sweeps what dead ones left."""
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import strays

PREFIX = "tlsdyno-"
OWNER = "pid"  # the file that says whose it is


def claim(directory: Path) -> int:
    """Records who works here: the number of the process, for people, in a file that it keeps locked, for other runs.
    The kernel drops the lock with the process, also where the number has gone to another or is another container's.
    Returns the descriptor that holds the lock; programs that are started do not inherit it."""
    new = directory / "new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    new.rename(directory / OWNER)  # under this name it is never seen unlocked while its run lives
    return descriptor


def is_stale(directory: Path) -> bool:
    """Whether its run is dead. What has no record is somebody else's, or was made this very moment."""
    if directory.is_symlink() or not directory.is_dir() or directory.lstat().st_uid != os.geteuid():
        return False
    try:
        descriptor = os.open(directory / OWNER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def sweep() -> None:
    """Ends and removes what runs of this user that were killed left behind."""
    for directory in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if is_stale(directory):
                strays.end(directory)
                shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    sweep()
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        descriptor = claim(Path(name))
        strays.open_register(Path(name))
        try:
            yield Path(name)
        finally:
            strays.open_register(None)
            os.close(descriptor)
