"""The pages for people who deploy: their links, the files and settings that they name."""

import re
import unittest

from kit import BRIDGES, ROOT

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
            self.assertIn(f"exec -n audit-bridge deploy/{bridge}-audit-bridge -- {bridge}-audit-bridge check", text)
            self.assertIn(f"kubectl apply -k deploy/examples/{bridge}", text)
            self.assertIn(f"kubectl delete -k deploy/examples/{bridge}", text)

    def test_settings_that_are_named_exist(self):
        sources = [*(ROOT / "crates/core/src").rglob("*.rs"), *(ROOT / "bridges").rglob("src/**/*.rs")]
        known = set(re.findall(r'"(AUDIT_BRIDGE_[A-Z_]+)"', "\n".join(path.read_text() for path in sources)))
        for page in pages():
            named = set(re.findall(r"AUDIT_BRIDGE_[A-Z_]*[A-Z]", page.read_text()))
            self.assertEqual(named - known, set(), page.relative_to(ROOT))

    def test_files_that_are_named_exist(self):
        for page in pages():
            for name in re.findall(
                r"(?:-f|-k|bash|custom=|template-file) ?((?:deploy|cloudformation|terraform)/[\w./-]+)",
                page.read_text(),
            ):
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
