"""What all functional tests need to be found: the runner's package, with its byte code kept below build/."""
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.pycache_prefix = str(Path(os.environ.get("TLSDYNO_BUILD_DIR", ROOT / "build")) / "pycache")
sys.path.insert(0, str(ROOT / "scripts"))


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
