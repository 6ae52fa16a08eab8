"""What `ab` compares: builds of the proxy, or one build with two configurations or two TLS libraries."""
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from .machine import sha256
from .programs import built
from .refusal import Refused
from .subjects import Driver, Task

TEST_LIMIT_S = 30.0  # for `proxy --test`, which reads its files and ends


@dataclass(frozen=True)
class Build:
    path: Path                      # as it was given
    kind: str                       # build, configuration, OpenSSL
    program: Path
    launcher: tuple[str, ...] = ()  # words before the program
    options: tuple[str, ...] = ()   # words after it

    @property
    def described(self) -> dict[str, str | None]:
        return {"path": str(self.path), "kind": self.kind, "program_sha256": sha256(self.program),
                "version": self.version()}

    def version(self) -> str:
        try:
            printed = subprocess.run([*self.launcher, str(self.program), "--version"], capture_output=True, text=True,
                                     stdin=subprocess.DEVNULL, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
        return (printed.stdout.split() or ["unknown"])[-1]

    def command(self, words: list[str]) -> list[str]:
        """The driver's command line with this build in the place of its program."""
        return [*self.launcher, str(self.program), *self.options, *words[1:]]

    def driver(self, driver: Driver) -> Driver:
        def command(task: Task) -> list[str]:
            return self.command(driver.command(task))

        return replace(driver, command=command)

    def copy(self, directory: Path) -> "Build":
        """The same from a file of its own, so that several can be run from paths of one length: the length of a path
        moves the stack, which is worth a per cent now and then."""
        directory.mkdir()
        copied = directory / "proxy"
        shutil.copy(self.program, copied)
        if not os.access(copied, os.X_OK):
            raise Refused(directory, "", "no program may be run from there: set TMPDIR")
        return replace(self, program=copied)


def library_directory(prefix: Path) -> Path | None:
    return next((each for each in (prefix / "lib64", prefix / "lib", prefix) if list(each.glob("libssl.so*"))), None)


def find(option: str, path: Path) -> Build:
    """A build directory or a proxy in it; a configuration file; the prefix of an OpenSSL."""
    path = path.absolute()
    try:
        path.stat()
    except OSError as error:
        raise Refused(option, str(path), error.strerror or str(error)) from error
    if path.is_dir():
        if os.access(path / "proxy", os.X_OK) and not (path / "proxy").is_dir():
            return Build(path, "build", path / "proxy")
        libraries = library_directory(path)
        if libraries is None:
            raise Refused(option, str(path), "holds no program `proxy` (run `make` there) and no libssl.so")
        # LD_LIBRARY_PATH, for the proxy was built for another place; it is looked at before the program's own path.
        return Build(path, "OpenSSL", built("proxy"), ("env", f"LD_LIBRARY_PATH={libraries}"))
    if os.access(path, os.X_OK):
        return Build(path, "build", path)
    return Build(path, "configuration", built("proxy"), (), ("--config", str(path)))


def check(option: str, build: Build, driver: Driver, task: Task) -> None:
    """Refuses what would not even start. The proxy says itself what is wrong, in one line."""
    words = [*build.command(driver.command(task)), "--test"]
    try:
        tried = subprocess.Popen(words, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, start_new_session=True)
    except OSError as error:
        raise Refused(option, str(build.path), f"cannot be run: {error.strerror or error}") from error
    try:
        _, errors = tried.communicate(timeout=TEST_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        os.killpg(tried.pid, signal.SIGKILL)  # with what it has started
        tried.communicate()
        raise Refused(option, str(build.path), f"has not answered --test within {TEST_LIMIT_S:g} s") from error
    if tried.returncode != 0:
        said = (errors.strip().splitlines() or [f"ended with status {tried.returncode}"])[-1]
        raise Refused(option, str(build.path), said)
