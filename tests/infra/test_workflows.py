"""What the hosting service runs: the workflows, and what they do that can be done here."""

import json
import re
import sys
import tomllib
import unittest

import yaml
from chart import CHART, VERSIONS, example, merged
from kit import BRIDGES, ROOT, need, run, scratch
from tools import PROGRAMS, go_tool

FOLDER = ROOT / ".github/workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
REGISTRY = "registry.example.com/audit-bridges"
SOURCE = "https://code.example.com/audit-bridges/blob/v1.2.3"


def steps(workflow):
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        for step in job["steps"]:
            yield job, step


class Workflows(unittest.TestCase):
    def test_actionlint(self):
        path = {"PATH": f"{FOLDER}:/usr/bin:/bin"}
        # shellcheck for the scripts in them: the one of this virtual environment.
        shellcheck = f"{sys.executable.rpartition('/')[0]}/shellcheck"
        run(go_tool("actionlint"), "-shellcheck", shellcheck, "-pyflakes", "", *WORKFLOWS, env=path)

    def test_actions_are_pinned_by_commit(self):
        pinned = {}
        for workflow in WORKFLOWS:
            for line in re.findall(r"uses: (.+)", workflow.read_text()):
                found = re.fullmatch(r"([\w.-]+/[\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
                self.assertIsNotNone(found, f"{workflow.name}: {line}")
                pinned.setdefault(found[1], set()).add(found.groups()[1:])
        self.assertGreater(len(pinned), 5)
        for action, pins in pinned.items():
            self.assertEqual(len(pins), 1, f"{action} is pinned to several commits")

    def test_permissions_are_the_least(self):
        """None for the workflow; each job has what its steps need, and keeps no token in the checkout."""
        for workflow in WORKFLOWS:
            document = yaml.safe_load(workflow.read_text())
            self.assertEqual(document["permissions"], {}, workflow.name)
            for name, job in document["jobs"].items():
                with self.subTest(workflow=workflow.name, job=name):
                    text = yaml.safe_dump(job)
                    allowed = {"contents": "read"}
                    if "docker login" in text:
                        allowed["packages"] = "write"
                    if "actions/attest" in text:
                        allowed |= {"id-token": "write", "attestations": "write"}
                    if "gh release" in text:
                        allowed["contents"] = "write"
                    self.assertEqual(job["permissions"], allowed)
                    self.assertIn("timeout-minutes", job)
                    for step in job["steps"]:
                        if step.get("uses", "").startswith("actions/checkout@"):
                            self.assertEqual(step["with"]["persist-credentials"], False)

    def test_nothing_of_an_event_gets_into_a_script(self):
        """A branch's or a tag's name may hold anything: it comes by the environment."""
        for workflow in WORKFLOWS:
            for _, step in steps(workflow):
                self.assertNotIn("${{", step.get("run", ""), step.get("name"))

    def test_the_compiler_is_the_projects(self):
        compiler = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
        self.assertRegex(compiler, r"^\d+\.\d+\.\d+$")
        for workflow in WORKFLOWS:
            self.assertNotRegex(workflow.read_text(), r"rustup (toolchain install|default) \S")

    def test_files_that_are_named_exist(self):
        for workflow in WORKFLOWS:
            for path in re.findall(r"(?:bash|python3|-f|go-version-file:) ([\w./-]*/[\w./-]+)", workflow.read_text()):
                self.assertTrue((ROOT / path).exists(), f"{workflow.name} names {path}")

    def test_every_bridge_is_released(self):
        release = yaml.safe_load((FOLDER / "release.yml").read_text())["jobs"]
        for job in ["images", "publish"]:
            self.assertEqual(release[job]["strategy"]["matrix"]["bridge"], list(BRIDGES))
        (build,) = [step["run"] for step in release["binaries"]["steps"] if "cargo build" in step.get("run", "")]
        self.assertIn(f"for bridge in {' '.join(BRIDGES)};", build)

    def test_updates_know_every_ecosystem(self):
        updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
        for update in updates:
            for folder in update.get("directories", [update.get("directory")]):
                self.assertTrue((ROOT / folder.strip("/")).is_dir(), folder)


class Plan(unittest.TestCase):
    """The first step of a release, which stops what should not be one."""

    def plan(self, **env):
        (step,) = [step for _, step in steps(FOLDER / "release.yml") if step.get("id") == "version"]
        with scratch() as folder:
            env = {"GITHUB_OUTPUT": str(folder / "output"), "REGISTRY": REGISTRY, **env}
            ran = run("bash", "-e", "-c", step["run"], env=env, check=False)
            output = folder / "output"
            return ran, output.read_text() if output.exists() else ""

    def test_a_tag_of_this_version_goes_on(self):
        version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
        ran, output = self.plan(TAG=f"v{version}")
        self.assertEqual((ran.returncode, output), (0, f"version={version}\n"), ran.stdout)

    def test_another_tag_or_no_registry_stops(self):
        for env, word in [({"TAG": "v99.0.0"}, "Cargo.toml says"), ({"TAG": "v0.1.0", "REGISTRY": ""}, "REGISTRY")]:
            ran, output = self.plan(**env)
            self.assertEqual((ran.returncode, output), (1, ""))
            self.assertIn(word, ran.stdout)


class Released(unittest.TestCase):
    def test_the_chart_has_the_releases_registry(self):
        with scratch() as folder:
            run("python3", ROOT / ".github/chart.py", REGISTRY, folder, SOURCE)
            made = folder / "audit-bridge"
            run(go_tool("helm"), "lint", made, "--strict", "--values", "-", stdin=json.dumps(self._values()))
            run(go_tool("helm"), "package", made, "--destination", folder)
            command = [go_tool("helm"), "template", "x", made, "--kube-version", VERSIONS[1], "--values", "-"]
            printed = run(*command, stdin=json.dumps(self._values())).stdout
            version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
            self.assertIn(f"image: {REGISTRY}/audit-bridge/eks-audit-bridge:{version}\n", printed)
            about = yaml.safe_load((made / "Chart.yaml").read_text())
            images = yaml.safe_load(about["annotations"]["artifacthub.io/images"])
            pushed = (FOLDER / "release.yml").read_text()
            self.assertIn("image=$REGISTRY/audit-bridge/$BRIDGE-audit-bridge\n", pushed)
            self.assertEqual(
                [image["image"] for image in images],
                [f"{REGISTRY}/audit-bridge/{bridge}-audit-bridge:{version}" for bridge in BRIDGES],
            )
            self.assertEqual(about["annotations"]["artifacthub.io/license"], "Apache-2.0")
            # A package stands alone: what its page leads to is in the release's sources.
            self.assertEqual(about["home"], f"{SOURCE}/README.md")
            links = re.findall(r"\]\(([^)]+)\)", (made / "README.md").read_text())
            self.assertGreater(len(links), 3)
            for link in links:
                self.assertTrue((ROOT / link.removeprefix(f"{SOURCE}/")).exists(), link)
            for page in ["values.yaml", "README.md"]:
                text = (made / page).read_text()
                self.assertNotIn("no image is published", text)
                self.assertIn(REGISTRY, text)

    @staticmethod
    def _values():
        values = merged(example("eks"), {})
        del values["image"]
        return values

    def test_the_bill_of_materials(self):
        host = re.search(r"^host: (.+)$", run(need("rustc"), "-vV").stdout, re.M)[1]
        for bridge in BRIDGES:
            name = f"{bridge}-audit-bridge"
            text = run("python3", ROOT / ".github/sbom.py", name, host).stdout
            self.assertEqual(text, run("python3", ROOT / ".github/sbom.py", name, host).stdout, "not the same twice")
            document = json.loads(text)
            packages = {package["name"]: package for package in document["packages"]}
            self.assertEqual(document["packages"][0]["name"], name)
            self.assertLessEqual({"audit-bridge-core", "tokio", "rustls", "aws-lc-rs"}, set(packages))
            # What only tests or builds, and what the other clouds need, is not in it.
            other = {"eks": "google-cloud-pubsub", "gke": "aws-sdk-cloudwatchlogs", "aks": "google-cloud-pubsub"}
            for absent in ["audit-bridge-testkit", "criterion", "insta", other[bridge]]:
                self.assertNotIn(absent, packages)
            ids = [package["SPDXID"] for package in document["packages"]]
            self.assertEqual(len(ids), len(set(ids)))
            self.assertEqual(len(document["relationships"]), len(ids))
            for package in document["packages"]:
                ours = package["name"].startswith("audit-bridge-") or package["name"] == name
                self.assertEqual("checksums" in package, not ours, package["name"])
                self.assertNotEqual(package["licenseDeclared"], "NOASSERTION", package["name"])

    def test_the_release_says_where_its_chart_and_images_are(self):
        (step,) = [step for _, step in steps(FOLDER / "release.yml") if "gh release create" in step.get("run", "")]
        with scratch() as folder:
            (folder / "gh").write_text('#!/bin/sh\necho "$*"\n')
            (folder / "gh").chmod(0o755)
            env = {"PATH": f"{folder}:/usr/bin:/bin", "REGISTRY": REGISTRY, "VERSION": "1.2.3", "TAG": "v1.2.3"}
            said = run("bash", "-c", step["run"], cwd=folder, env=env).stdout
            self.assertRegex(said, r"^release create v1\.2\.3 .*--notes-file notes\.md")
            notes = (folder / "notes.md").read_text()
        self.assertIn(f"oci://{REGISTRY}/charts/audit-bridge`, version `1.2.3`", notes)
        for bridge in BRIDGES:
            self.assertIn(f"{REGISTRY}/audit-bridge/{bridge}-audit-bridge:1.2.3", notes)

    def test_the_tools_are_pinned(self):
        for module, version, *_ in PROGRAMS.values():
            self.assertRegex(version, r"^v\d+\.\d+\.\d+$", module)


if __name__ == "__main__":
    unittest.main()
