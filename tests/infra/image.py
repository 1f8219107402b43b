"""Builds the image of deploy/Dockerfile without a container engine, and unpacks it again.

    python3 tests/infra/image.py eks BINARY FOLDER    # FOLDER is then what a container of it would see

The Dockerfile says what is done: the commands of its first stage that lay out /out are run as they stand, behind the
compilation, whose place the given binary takes; what its last stage copies and sets becomes a layer and a
configuration. It goes into a registry on the loopback, and comes back from there. Only the standard library.
"""

import contextlib
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

from kit import ROOT, run, scratch
from tools import go_tool

DOCKERFILE = ROOT / "deploy/Dockerfile"
# Where the certificates are on the machine that builds, if it has any.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def instructions():
    """(stage, instruction, rest), with continued lines joined."""
    text = "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#"))
    stage = 0
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            stage += word == "FROM"
            yield stage, word, " ".join(rest.split())


def of(stage, word):
    return [rest for at, found, rest in instructions() if (at, found) == (stage, word)]


@contextlib.contextmanager
def registry():
    """A registry on the loopback: its HOST:PORT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([go_tool("crane"), "registry", "serve", "--address", address], **quiet)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{address}/v2/", timeout=1).close()
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the registry does not answer")
        yield address
    finally:
        server.terminate()
        server.wait()


def lay_out(bridge, binary, out):
    """What the first stage leaves in /out."""
    (command,) = [rest for rest in of(1, "RUN") if "cargo build" in rest]
    before, found, commands = command.partition("&& mkdir ")
    if not found or "cargo build" not in before:
        raise AssertionError("the Dockerfile does not lay out /out behind its compilation")
    built = out.parent / "target/none/release" / f"{bridge}-audit-bridge"
    built.parent.mkdir(parents=True)
    shutil.copy(binary, built)
    commands = f"cd {shlex.quote(str(out.parent))}\nmkdir {commands}"
    commands = re.sub(r"(?<![\w}])/out\b", shlex.quote(str(out)), commands)
    if not CERTIFICATES.exists():
        none = out.parent / "certificates"
        none.write_text("")
        commands = commands.replace(f"cp {CERTIFICATES}", f"cp {shlex.quote(str(none))}")
    run("sh", "-euc", commands, env={"BRIDGE": bridge, "host": "none"})


def layer(out, path):
    """A tar of what the last stage copies, with the owners that it names."""
    with tarfile.open(path, "w") as tar:
        for copied in of(2, "COPY"):
            found = re.fullmatch(r"--from=build --chown=(\d+):(\d+) /out/(\S+) /(\S+)", copied)
            user, group, source, target = found.groups()

            def owned(info, user=int(user), group=int(group)):
                info.uid, info.gid, info.uname, info.gname, info.mtime = user, group, "", "", 0
                return info

            tar.add(out / source, arcname=target, filter=owned)


def settings(bridge):
    """The options of crane for what the last stage sets."""
    given = {"BRIDGE": bridge, **dict(argument.split("=") for argument in of(2, "ARG") if "=" in argument)}
    filled = lambda text: re.sub(r"\$\{(\w+)\}", lambda name: given[name[1]], text)  # noqa: E731
    options = ["--user", of(2, "USER")[0], "--exposed-ports", of(2, "EXPOSE")[0]]
    options += ["--entrypoint", ",".join(json.loads(of(2, "ENTRYPOINT")[0]))]
    options += ["--cmd", ",".join(json.loads(of(2, "CMD")[0]))]
    for pair in shlex.split(filled(of(2, "ENV")[0])):
        options += ["--env", pair]
    for pair in shlex.split(filled(of(2, "LABEL")[0])):
        options += ["--label", pair]
    return options


def build(bridge, binary, address):
    """The image in the registry: its name."""
    name = f"{address}/audit-bridge/{bridge}-audit-bridge:test"
    with scratch() as folder:
        out = folder / "out"
        lay_out(bridge, Path(binary).resolve(), out)
        layer(out, folder / "layer.tar")
        run(go_tool("crane"), "append", "--oci-empty-base", "--new_layer", folder / "layer.tar", "--new_tag", name)
        run(go_tool("crane"), "mutate", name, "--tag", name, *settings(bridge))
    return name


def unpack(name, folder):
    """What a container of it would see, and its configuration."""
    with scratch() as made:
        run(go_tool("crane"), "export", name, made / "all.tar")
        with tarfile.open(made / "all.tar") as tar:
            owners = {"/" + info.name.strip("./"): (info.uid, info.gid, info.mode) for info in tar}
            tar.extractall(folder, filter="fully_trusted")
    return json.loads(run(go_tool("crane"), "config", name).stdout), owners


if __name__ == "__main__":
    with registry() as here:
        unpack(build(sys.argv[1], sys.argv[2], here), Path(sys.argv[3]))
