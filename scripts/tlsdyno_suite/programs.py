"""Where the programs are: those that `make` builds, and those that a package installed."""
import os
import shutil
from pathlib import Path

from .refusal import Refused

ROOT = Path(__file__).resolve().parent.parent.parent
SCENARIOS = ROOT / "scenarios"
RESULTS = ROOT / "results"

# Debian keeps servers in sbin, which is not in the PATH of an ordinary user.
SERVER_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def build_directory() -> Path:
    return Path(os.environ.get("TLSDYNO_BUILD_DIR", ROOT / "build")).absolute()


def built(name: str) -> Path:
    return build_directory() / name


def require_built(names: list[str]) -> None:
    for name in names:
        if not os.access(built(name), os.X_OK):
            raise Refused(built(name), "", "is not there or not executable: run `make` first")


def installed(name: str) -> str | None:
    """Absolute path of an installed product, or None."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *SERVER_PATH)))
