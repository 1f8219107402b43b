#!/usr/bin/env python3
"""Prints the Python of a virtual environment that has exactly these requirements.

Usage: python3 tests/venv.py tests/requirements-infra.txt

The environment is made under target/venv on first use and shared: its folder is named by the
requirements' content, a lock keeps two tests from making it at once, and a marker that is written
last tells a finished environment from one whose making was interrupted. Only the standard library.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def provision(requirements: Path) -> Path:
    """The environment's python, made now if it is not there."""
    text = requirements.read_bytes() + sys.version.encode()
    name = f"{requirements.stem.removeprefix('requirements-')}-{hashlib.sha256(text).hexdigest()[:12]}"
    folder = ROOT / "target" / "venv" / name
    python, done = folder / "bin" / "python", folder / "finished"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making {folder.relative_to(ROOT)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, stdout=sys.stderr)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--requirement", requirements], check=True, stdout=sys.stderr)
        subprocess.run([python, "-m", "pip", "check"], check=True, stdout=sys.stderr)
        done.touch()
    return python


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(provision(Path(sys.argv[1]).resolve()))
