"""The Dockerfile, as far as it can be read without a container engine.

What it builds is shown by tests/infra/static.sh; where an engine runs, `docker buildx build` as the
file's head says.
"""

import re
import unittest

from chart import DEPLOY, container, pod, render
from kit import BRIDGES, ROOT, run, tool


def instructions():
    """(stage, instruction, rest), with continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    stage = 0
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            stage += word == "FROM"
            yield stage, word, " ".join(rest.split())


class Dockerfile(unittest.TestCase):
    def rest(self, stage, word):
        return [rest for at, found, rest in instructions() if (at, found) == (stage, word)]

    def test_two_stages_that_end_in_nothing(self):
        self.assertEqual(self.rest(2, "FROM"), ["scratch"])
        self.assertEqual(max(stage for stage, _, _ in instructions()), 2)
        self.assertFalse(self.rest(2, "RUN"), "scratch has no shell")

    def test_the_toolchain_is_the_projects(self):
        rust = re.search(r'^rust-version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertEqual(self.rest(0, "ARG"), [f"RUST_VERSION={rust}"])
        # The host of the platform, never another one.
        self.assertEqual(self.rest(1, "FROM"), ["rust:${RUST_VERSION}-slim-bookworm AS build"])
        command = " ".join(self.rest(1, "RUN"))
        for part in ["+crt-static", "--release", "--locked", '--target "${host}"']:
            self.assertIn(part, command)

    def test_what_runs_is_there_and_runs_as_in_the_chart(self):
        (entry,) = self.rest(2, "ENTRYPOINT")
        self.assertEqual(entry, '["/usr/local/bin/audit-bridge"]')
        self.assertIn('ln -s "${BRIDGE}-audit-bridge" /out/usr/local/bin/audit-bridge', " ".join(self.rest(1, "RUN")))
        self.assertIn("--from=build --chown=0:0 /out/usr /usr", self.rest(2, "COPY"))
        for bridge in BRIDGES:
            objects = render(bridge)
            context = pod(objects)["spec"]["securityContext"]
            self.assertEqual(self.rest(2, "USER"), [f"{context['runAsUser']}:{context['runAsGroup']}"])
            self.assertEqual(self.rest(2, "EXPOSE"), [str(container(objects)["ports"][0]["containerPort"])])
            self.assertNotIn("command", container(objects))

    def test_certificates(self):
        self.assertIn("SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", " ".join(self.rest(2, "ENV")))
        self.assertIn("cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/", " ".join(self.rest(1, "RUN")))
        self.assertIn("--from=build --chown=0:0 /out/etc /etc", self.rest(2, "COPY"))

    def test_an_unknown_bridge_is_refused(self):
        check = self.rest(1, "RUN")[0]
        for bridge in [*BRIDGES, "", "oke"]:
            ran = run("sh", "-c", check, env={"BRIDGE": bridge}, check=False)
            self.assertEqual(ran.returncode == 0, bridge in BRIDGES, bridge)
            if bridge not in BRIDGES:
                self.assertIn("--build-arg BRIDGE=eks", ran.stderr)

    def test_the_version_is_the_workspaces(self):
        version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertIn(f"VERSION={version}", self.rest(2, "ARG"))


class Scripts(unittest.TestCase):
    def test_shellcheck(self):
        scripts = run("git", "ls-files", "*.sh", ".ci/run").stdout.split()
        self.assertIn("deploy/control-plane/audit-webhook.sh", scripts)
        run(tool("shellcheck"), *[ROOT / script for script in scripts])


if __name__ == "__main__":
    unittest.main()
