"""What all functional tests need to be found: the runner's package, with its byte code kept below build/."""
from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from echo_backends import Backend

ROOT = Path(__file__).resolve().parent.parent.parent
sys.pycache_prefix = str(Path(os.environ.get("TLSDYNO_BUILD_DIR", ROOT / "build")) / "pycache")
sys.path.insert(0, str(ROOT / "scripts"))
# A shell has what it starts in the background ignore Ctrl-C, and what that starts, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from programs import make_certificate

    folder = tmp_path_factory.mktemp("certificates")
    make_certificate(folder, "ecdsa:P-256")
    make_certificate(folder, "rsa:2048")
    return folder


@pytest.fixture(scope="session")
def ecdsa(certificates: Path) -> str:
    return str(certificates / "ecdsa-P-256-localhost.pem")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Certificate, key, and both in one file."""
    from programs import make_certificate

    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def backend() -> Iterator[Backend]:
    """An echo-backend in the clear, with one worker."""
    from echo_backends import Backend

    with Backend("http") as running:
        yield running
