"""The pages for people: their links, the files, settings and messages that they name."""

import json
import os
import re
import unittest
from pathlib import Path

import options
import yaml
from chart import CHART, example, merged
from chart import text as rendered
from kit import BRIDGES, ROOT, run
from pages import FOLDERS, blocks, commands, name, pages

# What a new user needs on the one page of his cloud, and what Falco and Sysdig Shield are called by.
PARTS = [
    "## Troubleshooting",
    "../README.md#troubleshooting",
    "../README.md#see-an-event-arrive",
    "## Uninstall",
    "9765/k8s-audit",
    "6443/k8s_audit",
    "webhook-ca",
]
# What stands in the table of errors and is said by others, and by whom.
SAID_BY_OTHERS = {
    "values don't meet the specifications of the schema": "Helm",
    "invalid ownership metadata": "Helm",
    "no matches for kind": "Helm",
    "unbound immediate PersistentVolumeClaims": "Kubernetes",
    "FailedMount": "Kubernetes",
    'namespaces "audit-bridge" not found': "Kubernetes",
    "ImagePullBackOff": "Kubernetes",
    "Not authorized to perform sts:AssumeRoleWithWebIdentity": "AWS",
    "No OpenIDConnect provider found in your account": "AWS",
    "AccessDeniedException: …": "AWS, by its code and message",
    "Permission 'iam.serviceAccounts.getAccessToken' denied": "Google",
    "AADSTS70021": "Microsoft Entra",
    "AADSTS700213": "Microsoft Entra",
    "AADSTS700016": "Microsoft Entra",
    "connection refused": "the system",
    "invalid peer certificate": "rustls",
}


def anchors(page):
    """How headings are addressed."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.M):
        text = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(text.replace(" ", "-"))
    return found


def sources():
    """What the bridges and the chart may say, with the breaks of Rust's long strings taken out."""
    files = [*ROOT.glob("crates/*/src/**/*.rs"), *(ROOT / "bridges").rglob("src/**/*.rs")]
    files += [CHART / "templates/validate.yaml"]
    return re.sub(r"\\\n\s*", "", "\n".join(path.read_text() for path in files))


def section(page, heading):
    """A part of a page, from its heading to the next of the same level."""
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page.read_text(), re.M | re.S)[1]


class Pages(unittest.TestCase):
    def test_links(self):
        self.assertGreater(len(pages()), 15)
        for page in pages():
            for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
                with self.subTest(page=name(page), target=target):
                    self.assertNotIn("://", target, "pages stand by themselves")
                    file, _, anchor = target.partition("#")
                    path = (page.parent / file).resolve() if file else page
                    self.assertTrue(path.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(path))

    def test_the_first_page_is_short(self):
        self.assertLessEqual(len((ROOT / "README.md").read_text().split()), 900)

    def test_options_are_what_the_bridges_say(self):
        folder = os.environ.get("BRIDGES_FOLDER")
        if not folder:
            raise unittest.SkipTest("BRIDGES_FOLDER does not say where the binaries are")
        for page, text in options.pages(folder).items():
            say = "run: BRIDGES_FOLDER=target/debug python3 tests/infra/options.py"
            self.assertEqual((ROOT / page).read_text(), text, say)

    def test_a_saved_dump_shows_events(self):
        folder = os.environ.get("BRIDGES_FOLDER")
        if not folder:
            raise unittest.SkipTest("BRIDGES_FOLDER does not say where the binaries are")
        words = next(words for words in commands(ROOT / "README.md") if words[:3] == ["cargo", "run", "-p"])
        package, arguments = words[words.index("-p") + 1], words[words.index("--") + 1 :]
        shown = run(Path(folder).resolve() / package, *arguments).stdout
        lists = [json.loads(line) for line in shown.splitlines()]
        self.assertTrue(lists)
        for each in lists:
            self.assertEqual((each["kind"], each["apiVersion"]), ("EventList", "audit.k8s.io/v1"))
            self.assertTrue(each["items"])

    def test_every_option_is_in_a_page(self):
        known = yaml.safe_load((CHART / "files/flags.yaml").read_text())
        for bridge in BRIDGES:
            text = (ROOT / "bridges/README.md").read_text() + (ROOT / f"bridges/{bridge}/README.md").read_text()
            for flag in set(known[bridge]) - {"help"}:
                self.assertTrue(re.search(rf"(?m)^\| `--{flag}[ `]", text), f"--{flag} is in no page of {bridge}")

    def test_every_metric_is_in_the_page(self):
        text = (ROOT / "bridges/README.md").read_text()
        declared = (ROOT / "crates/app/src/telemetry/metrics.rs").read_text()
        found = re.findall(r'(?m)^    \w+: \w+ = "(\w+)", \[([^\]]*)\]', declared)
        self.assertGreater(len(found), 15)
        for metric, labels in found:
            labels = ",".join(re.findall(r'"(\w+)"', labels))
            metric = f"`{metric}{{{labels}}}`" if labels else f"`{metric}`"
            self.assertTrue(metric in text, f"{metric} is not in bridges/README.md")

    def test_every_field_of_falco_is_in_gkes_table(self):
        """A rule on a field that GKE hides finds nothing, so the table must tell of each."""
        source = (ROOT / "tests/conformance/judge/fields.go").read_text()
        known = set(re.findall(r'^\t"(ka\.[\w.]+)"', source, re.M))
        self.assertGreater(len(known), 45)
        table = re.findall(r"^\| (`ka\..*?) \| .* \|$", (ROOT / "bridges/gke/README.md").read_text(), re.M)
        patterns, before = [], ""
        for row in table:
            for pattern in re.findall(r"`([^`]+)`", row):
                # `.namespace` goes on from the name before it.
                before = before.rpartition(".")[0] + pattern if pattern.startswith(".") else pattern
                patterns.append(re.escape(before.partition("[")[0]).replace(r"\*", ".*"))
        for field in known:
            self.assertTrue(any(re.fullmatch(pattern, field) for pattern in patterns), f"{field} is not in the table")

    def test_errors_are_said_so(self):
        """Verbatim: who searches a page for what a log says must find it."""
        said = sources()
        checked = 0
        for row in re.findall(r"^\|.*", section(ROOT / "deploy/README.md", "Troubleshooting"), re.M):
            for message in re.findall(r"`([^`]+)`", row.partition(" | ")[0]):
                plain = re.sub(r"^(audit_bridge_|aks\.|/readyz|\d+$).*", "", message)
                if not plain or message in SAID_BY_OTHERS:
                    continue
                for part in filter(None, re.split(r"…|\b(?:40\d|10s)\b", plain)):
                    with self.subTest(message=message, part=part):
                        self.assertTrue(part.strip() in said, f"nothing says {part.strip()!r}")
                        checked += 1
        self.assertGreater(checked, 30)

    def test_one_page_per_cloud(self):
        for bridge in BRIDGES:
            text = (ROOT / f"deploy/{bridge}/README.md").read_text()
            for part in PARTS:
                self.assertIn(part, text, bridge)
            steps = re.findall(r"^\*\*(\d)\. (\w+)", text, re.M)
            self.assertEqual([number for number, _ in steps], list("12345")[: len(steps)])
            self.assertEqual(steps[-1][1], "Check")
            install = f"helm install {bridge}-audit-bridge deploy/helm/audit-bridge --namespace audit-bridge"
            self.assertIn(f"cp deploy/examples/{bridge}-values.yaml {bridge}-values.yaml", text)
            self.assertIn(f"{install} --values {bridge}-values.yaml", text)
            self.assertIn(f"helm test {bridge}-audit-bridge --namespace audit-bridge --logs", text)
            self.assertIn(f"helm uninstall {bridge}-audit-bridge --namespace audit-bridge", text)

    def test_the_namespace_comes_before_what_is_in_it(self):
        for page in (ROOT / "deploy").rglob("README.md"):
            made = False
            for command in map(" ".join, commands(page)):
                made = made or "apply -f deploy/namespace.yaml" in command
                if re.search(r"helm install [a-z-]+ deploy/|kubectl create secret .*-n audit-bridge", command):
                    self.assertTrue(made, f"{name(page)}: {command}")

    def test_no_example_is_installed_as_it_is(self):
        """It names nobody's registry, role and project: who pastes the command installs something dead."""
        checked = 0
        for page in pages():
            for command in map(" ".join, commands(page)):
                if re.match(r"helm (install|upgrade) [a-z-]+ deploy/", command):
                    self.assertNotIn("--values deploy/examples/", command, name(page))
                    checked += 1
        self.assertGreater(checked, 3)

    def test_values_that_are_shown_are_the_charts(self):
        checked = 0
        for bridge in BRIDGES:
            for page in [ROOT / "deploy/README.md", ROOT / f"deploy/{bridge}/README.md"]:
                for shown in blocks(page, "yaml"):
                    with self.subTest(page=name(page), shown=shown):
                        rendered(merged(example(bridge), yaml.safe_load(shown)), f"{bridge}-audit-bridge")
                        checked += 1
        self.assertGreaterEqual(checked, 5)

    def test_values_that_are_named_exist(self):
        schema = json.loads((ROOT / "deploy/helm/audit-bridge/values.schema.json").read_text())
        groups = [key for key, value in schema["properties"].items() if "properties" in value]
        checked = 0
        for page in (ROOT / "deploy").rglob("*.md"):
            for value in re.findall(rf"`((?:{'|'.join(groups)})(?:\.[a-zA-Z]+)+)(?!\.?/)\b", page.read_text()):
                at = schema
                with self.subTest(page=name(page), value=value):
                    for part in value.split("."):
                        self.assertIn(part, at["properties"])
                        at = at["properties"][part]
                    checked += 1
        self.assertGreater(checked, 20)

    def test_settings_that_are_named_exist(self):
        sources = [*ROOT.glob("crates/*/src/**/*.rs"), *(ROOT / "bridges").rglob("src/**/*.rs")]
        # A variable's name is made of its flag's, which is the field's.
        option = r"(?s)#\[arg\(\s*long\b.*?\)\]\s*(?:pub(?:\([a-z]+\))? )?(\w+): (?:Option|Vec)<"
        flags = re.findall(option, "\n".join(path.read_text() for path in sources))
        self.assertGreater(len(flags), 50)
        known = {f"AUDIT_BRIDGE_{flag.upper()}" for flag in flags}
        for page in pages():
            named = set(re.findall(r"AUDIT_BRIDGE_[A-Z_]*[A-Z]", page.read_text()))
            self.assertEqual(named - known, set(), name(page))

    def test_files_that_are_named_exist(self):
        for page in pages():
            before = "-f|--values|bash|custom=|template-file|install [a-z-]+"
            folders = "|".join(FOLDERS)
            for file in re.findall(rf"(?:{before}) ?((?:{folders})/[\w./-]+)", page.read_text()):
                self.assertTrue((ROOT / file).exists(), f"{name(page)} names {file}")

    def test_nothing_is_of_one_machine_or_registry(self):
        bad = re.compile(r"/tmp/|/root/(?!kube)|pypi\.org|registry\.terraform|docker\.io|ghcr\.io|quay\.io|gcr\.io")
        written = [path for folder in ["deploy", "terraform", "cloudformation"] for path in (ROOT / folder).rglob("*")]
        for path in {*written, *pages()}:
            # What terraform init leaves in a module is not the repository's.
            if path.is_file() and ".terraform" not in str(path.relative_to(ROOT)):
                self.assertIsNone(bad.search(path.read_text()), path.relative_to(ROOT))


if __name__ == "__main__":
    unittest.main()
