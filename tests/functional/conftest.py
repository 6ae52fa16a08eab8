"""What all functional tests need to be found: the runner's package, with its byte code kept below build/."""
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.pycache_prefix = str(Path(os.environ.get("TLSDYNO_BUILD_DIR", ROOT / "build")) / "pycache")
sys.path.insert(0, str(ROOT / "scripts"))
