"""The pages for people who deploy: their links, the files and settings that they name."""

import json
import re
import shlex
import unittest

import yaml
from chart import example, merged
from chart import text as rendered
from kit import BRIDGES, ROOT, need, run
from tools import go_tool

FOLDERS = ["deploy", "terraform", "cloudformation"]
# What a new user needs on the one page of his cloud, and what Falco and Sysdig Shield are called by.
PARTS = [
    "## Troubleshooting",
    "## Uninstall",
    "9765/k8s-audit",
    "6443/k8s_audit",
    "webhook-ca",
    "| symptom | cause | do |",
]


def pages():
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))


def anchors(page):
    """How headings are addressed."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.M):
        text = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(text.replace(" ", "-"))
    return found


def commands(page, program):
    """The commands of one program in the blocks of a page, continued lines joined."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(rf"^(?:.* && )?({program} .*)", line):
                yield found[1]


class Pages(unittest.TestCase):
    def test_links(self):
        self.assertGreater(len(pages()), 8)
        for page in pages():
            for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
                with self.subTest(page=page.relative_to(ROOT), target=target):
                    self.assertNotIn("://", target, "pages stand by themselves")
                    name, _, anchor = target.partition("#")
                    path = (page.parent / name).resolve() if name else page
                    self.assertTrue(path.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(path))

    def test_one_page_per_cloud(self):
        for bridge in BRIDGES:
            text = (ROOT / f"deploy/{bridge}/README.md").read_text()
            for part in PARTS:
                self.assertIn(part, text, bridge)
            steps = re.findall(r"^\*\*(\d)\. (\w+)", text, re.M)
            self.assertEqual([number for number, _ in steps], list("12345")[: len(steps)])
            self.assertEqual(steps[-1][1], "Check")
            install = f"helm install {bridge}-audit-bridge deploy/helm/audit-bridge --namespace audit-bridge"
            self.assertIn(f"{install} --values deploy/examples/{bridge}-values.yaml", text)
            self.assertIn(f"helm test {bridge}-audit-bridge --namespace audit-bridge --logs", text)
            self.assertIn(f"helm uninstall {bridge}-audit-bridge --namespace audit-bridge", text)

    def test_the_namespace_comes_before_what_is_in_it(self):
        for page in (ROOT / "deploy").rglob("README.md"):
            made = False
            for command in commands(page, "(?:kubectl|helm)"):
                made = made or "apply -f deploy/namespace.yaml" in command
                if re.search(r"helm install [a-z-]+ deploy/|kubectl create secret .*-n audit-bridge", command):
                    self.assertTrue(made, f"{page.relative_to(ROOT)}: {command}")

    def test_helm_commands_are_helms(self):
        """Those of our chart render; of all others Helm's own parser takes the options."""
        ours = 0
        for page in pages():
            for command in commands(page, "helm"):
                with self.subTest(page=page.relative_to(ROOT), command=command):
                    words = shlex.split(command, comments=True)[1:]
                    if words[:1] == ["install"] and "deploy/helm/audit-bridge" in words:
                        run(go_tool("helm"), "template", *words[1:], "--kube-version", "1.37")
                        ours += 1
                    else:
                        run(go_tool("helm"), *words, "--help")
        self.assertGreaterEqual(ours, len(BRIDGES))

    def test_kubectl_commands_are_kubectls(self):
        checked = 0
        for page in pages():
            for command in commands(page, "kubectl"):
                words = shlex.split(re.split(r"\s(?:\||&&|>|#|&|--)(?:\s|$)", command)[0])[1:]
                with self.subTest(page=page.relative_to(ROOT), command=command):
                    run(need("kubectl"), *words, "--help", env={"KUBECONFIG": "/dev/null"})
                    checked += 1
        self.assertGreater(checked, 8)

    def test_values_that_are_shown_are_the_charts(self):
        checked = 0
        for bridge in BRIDGES:
            for page in [ROOT / "deploy/README.md", ROOT / f"deploy/{bridge}/README.md"]:
                for shown in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S):
                    with self.subTest(page=page.relative_to(ROOT), shown=shown):
                        rendered(merged(example(bridge), yaml.safe_load(shown)), f"{bridge}-audit-bridge")
                        checked += 1
        self.assertGreaterEqual(checked, 5)

    def test_values_that_are_named_exist(self):
        schema = json.loads((ROOT / "deploy/helm/audit-bridge/values.schema.json").read_text())
        groups = [key for key, value in schema["properties"].items() if "properties" in value]
        checked = 0
        for page in (ROOT / "deploy").rglob("README.md"):
            for name in re.findall(rf"`((?:{'|'.join(groups)})(?:\.[a-zA-Z]+)+)(?!\.?/)\b", page.read_text()):
                at = schema
                with self.subTest(page=page.relative_to(ROOT), value=name):
                    for part in name.split("."):
                        self.assertIn(part, at["properties"])
                        at = at["properties"][part]
                    checked += 1
        self.assertGreater(checked, 20)

    def test_settings_that_are_named_exist(self):
        sources = [*(ROOT / "crates/core/src").rglob("*.rs"), *(ROOT / "bridges").rglob("src/**/*.rs")]
        known = set(re.findall(r'"(AUDIT_BRIDGE_[A-Z_]+)"', "\n".join(path.read_text() for path in sources)))
        for page in pages():
            named = set(re.findall(r"AUDIT_BRIDGE_[A-Z_]*[A-Z]", page.read_text()))
            self.assertEqual(named - known, set(), page.relative_to(ROOT))

    def test_files_that_are_named_exist(self):
        for page in pages():
            before = "-f|--values|bash|custom=|template-file|install [a-z-]+"
            folders = "|".join(FOLDERS)
            for name in re.findall(rf"(?:{before}) ?((?:{folders})/[\w./-]+)", page.read_text()):
                self.assertTrue((ROOT / name).exists(), f"{page.relative_to(ROOT)} names {name}")

    def test_nothing_is_of_one_machine_or_registry(self):
        bad = re.compile(r"/tmp/|/root/(?!kube)|pypi\.org|registry\.terraform|docker\.io|ghcr\.io|quay\.io|gcr\.io")
        for folder in FOLDERS:
            for path in (ROOT / folder).rglob("*"):
                # What terraform init leaves in a module is not the repository's.
                if path.is_file() and ".terraform" not in str(path.relative_to(ROOT)):
                    self.assertIsNone(bad.search(path.read_text()), path.relative_to(ROOT))


if __name__ == "__main__":
    unittest.main()
