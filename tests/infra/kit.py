"""What the infrastructure tests share: the repository, commands, Terraform, a moto server."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BRIDGES = ("eks", "gke", "aks")

# Nothing here may find an account of the person who runs the tests.
os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_EC2_METADATA_DISABLED="true",
    AWS_DEFAULT_REGION="eu-central-1",
)
os.environ.pop("AWS_PROFILE", None)


def run(*command, cwd=ROOT, env=None, check=True, timeout=300, stdin=None):
    """Runs a command; its failure shows everything that it said."""
    ran = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        input=stdin,
    )
    if check and ran.returncode != 0:
        raise AssertionError(f"{command} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    return ran


def need(program):
    """The program's path, or a skip that says what was not tested."""
    path = shutil.which(program)
    if path is None:
        raise unittest.SkipTest(f"{program} is not installed")
    return path


def tool(name):
    """A program of the virtual environment that runs these tests."""
    return Path(sys.executable).parent / name


@contextlib.contextmanager
def scratch():
    """A folder under target/, gone afterwards."""
    parent = ROOT / "target" / "infra"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


def provider_mirrors():
    """Where Terraform providers may lie on this machine, beside what its own settings say."""
    standard = ["/usr/share/terraform/providers", "/usr/local/share/terraform/plugins"]
    found = [Path(path) for path in standard]
    found += [path.parent for path in sorted(Path("/opt").glob("*/registry.*"))]
    return [path for path in found if path.is_dir()]


class Terraform:
    """One module, copied out of the repository, so that nothing is left in it."""

    def __init__(self, module: Path, folder: Path):
        self.program = need("terraform")
        shutil.copytree(module, folder, ignore=shutil.ignore_patterns(".terraform*"))
        self.folder = folder
        settings = os.environ.get("TF_CLI_CONFIG_FILE")
        self.env = {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
        if settings and not Path(settings).exists():
            self.env["TF_CLI_CONFIG_FILE"] = ""

    def run(self, *args, check=True, env=None):
        return run(
            self.program, *args, "-no-color", cwd=self.folder, env={**self.env, **(env or {})}, check=check, timeout=500
        )

    def init(self):
        """Gets the providers: from a mirror on this machine, or as Terraform is configured to."""
        said = ""
        for mirror in provider_mirrors():
            ran = self.run("init", "-backend=false", "-input=false", f"-plugin-dir={mirror}", check=False)
            if ran.returncode == 0:
                return
            said = ran.stderr
        ran = self.run("init", "-backend=false", "-input=false", check=False)
        if ran.returncode != 0:
            lines = (said or ran.stderr).replace("│", " ").split()
            raise unittest.SkipTest("terraform has no way to this module's provider: " + " ".join(lines)[:300])


@contextlib.contextmanager
def moto(recording=None):
    """A moto server of its own, and its URL; `recording` is the file in which it notes each request."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    recorder = {"MOTO_ENABLE_RECORDING": "true", "MOTO_RECORDER_FILEPATH": str(recording)} if recording else {}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [tool("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **recorder},
        )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(1200):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=1).close()
                    break
                if server.poll() is not None:
                    log.seek(0)
                    raise AssertionError(f"moto did not start: {log.read().decode(errors='replace')}")
                time.sleep(0.1)
            else:
                raise AssertionError("moto does not answer")
            yield url
        finally:
            server.terminate()
            server.wait()
