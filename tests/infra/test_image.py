"""The Dockerfile, without a container engine: read, and what it makes of a binary built and unpacked again.

That the binary is static, and runs in this image, tests/infra/static.sh shows; where an engine runs,
`docker buildx build` as the file's head says.
"""

import re
import unittest

import yaml
from chart import container, example, pod, render
from image import build, instructions, registry, unpack
from kit import BRIDGES, ROOT, run, scratch, tool
from tools import go_tool


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


class Built(unittest.TestCase):
    def test_a_container_of_it_has_what_the_chart_relies_on(self):
        with registry() as address, scratch() as folder:
            binary = folder / "binary"
            binary.write_text("#!/bin/sh\necho started $*\n")
            binary.chmod(0o755)
            for bridge in BRIDGES:
                config, owners = unpack(build(bridge, binary, address), folder / bridge)
                config = config["config"]
                context = pod(render(bridge))["spec"]["securityContext"]
                self.assertEqual(config["User"], f"{context['runAsUser']}:{context['runAsGroup']}")
                self.assertEqual((config["Entrypoint"], config["Cmd"]), (["/usr/local/bin/audit-bridge"], ["run"]))
                self.assertEqual(config["Labels"]["org.opencontainers.image.title"], f"{bridge}-audit-bridge")
                variables = dict(pair.split("=", 1) for pair in config["Env"])
                # Both names of the program, and the certificates where the environment says.
                for name in ["audit-bridge", f"{bridge}-audit-bridge"]:
                    program = folder / bridge / variables["PATH"].strip("/") / name
                    self.assertEqual(program.resolve().read_bytes(), binary.read_bytes())
                self.assertIn(variables["SSL_CERT_FILE"], owners)
                # The one folder that may be written, where the chart mounts the state.
                (state,) = [m["mountPath"] for m in container(render(bridge))["volumeMounts"] if m["name"] == "state"]
                writable = [path for path, (user, _, _) in owners.items() if user == context["runAsUser"]]
                self.assertEqual(writable, [state])
                self.assertEqual(owners[f"/usr/local/bin/{bridge}-audit-bridge"], (0, 0, 0o555))

    def test_the_chart_goes_into_a_registry_and_comes_back(self):
        """As the release pushes it and a user installs it."""
        with registry() as address, scratch() as folder:
            run("python3", ROOT / ".github/chart.py", address, folder, "https://code.example.com/blob/v1.2.3")
            run(go_tool("helm"), "package", folder / "audit-bridge", "--destination", folder)
            (package,) = folder.glob("*.tgz")
            pushed = run(go_tool("helm"), "push", package, f"oci://{address}/charts", "--plain-http")
            # What the workflow signs.
            self.assertRegex(pushed.stdout + pushed.stderr, r"(?m)^Digest: sha256:[0-9a-f]{64}$")
            values = {key: value for key, value in example("eks").items() if key != "image"}
            command = ["template", "x", f"oci://{address}/charts/audit-bridge", "--plain-http", "--values", "-"]
            command += ["--kube-version", "1.37"]
            printed = run(go_tool("helm"), *command, stdin=yaml.safe_dump(values)).stdout
            self.assertIn(f"image: {address}/audit-bridge/eks-audit-bridge:", printed)


class Scripts(unittest.TestCase):
    def test_shellcheck(self):
        scripts = run("git", "ls-files", "*.sh", ".ci/run").stdout.split()
        self.assertIn("deploy/control-plane/audit-webhook.sh", scripts)
        run(tool("shellcheck"), *[ROOT / script for script in scripts])


if __name__ == "__main__":
    unittest.main()
