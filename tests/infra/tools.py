"""Programs that are built from their Go modules: pinned, once, into target/tools.

Go's checksum database says whether a module is the one that everybody gets. Without Go, or without a
way to the modules, the test that needs the program is skipped and says so.
"""

import fcntl
import functools
import os
import sys
import tempfile
import unittest
from pathlib import Path

from kit import ROOT, need, run

# What each is built from, its version, and what else the build is told. helm takes about 80 s on two
# cores, promtool 100 s (without the service discoveries of the clouds), the others 10 to 20 s.
PROGRAMS = {
    "helm": ("helm.sh/helm/v3/cmd/helm", "v3.22.0"),
    "actionlint": ("github.com/rhysd/actionlint/cmd/actionlint", "v1.7.12"),
    "crane": ("github.com/google/go-containerregistry/cmd/crane", "v0.22.1"),
    "helm-docs": ("github.com/norwoodj/helm-docs/cmd/helm-docs", "v1.14.2"),
    "promtool": ("github.com/prometheus/prometheus/cmd/promtool", "v0.316.0", "-tags=remove_all_sd"),
}


@functools.cache
def go_tool(name) -> Path:
    """The program's path; built now if it is not there."""
    module, version, *how = PROGRAMS[name]
    folder = ROOT / "target/tools"
    program = folder / f"{name}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if program.exists():
            return program
        go = need("go")
        with tempfile.TemporaryDirectory(dir=folder) as made:
            install = [go, "install", "-trimpath", "-ldflags=-s -w", *how, f"{module}@{version}"]
            # Behind the tests that run beside it: they have time limits, this has not.
            ran = run("nice", "-n", "15", *install, env={"GOBIN": made}, check=False, timeout=3600)
            if ran.returncode != 0:
                raise unittest.SkipTest(f"{name} cannot be built: {' '.join(ran.stderr.split())[-300:]}")
            # Whole or not at all.
            os.replace(Path(made) / name, program)
    return program


if __name__ == "__main__":
    for each in sys.argv[1:] or PROGRAMS:
        print(go_tool(each))
