"""Every command in a page is one that its program takes, as far as this can be asked without a cloud."""

import re
import unittest

import botocore.session
import cloud_cli_options
import pages
from botocore import xform_name
from chart import VERSIONS
from kit import BRIDGES, ROOT, need, run
from tools import go_tool

# Options that the AWS CLI has for every command, and the commands that are its own and no call of an API.
AWS_EVERYWHERE = {"--region", "--output", "--query", "--profile", "--max-items", "--page-size", "--no-paginate"}
AWS_OWN = {
    ("cloudformation", "deploy"): {"--template-file", "--stack-name", "--capabilities", "--parameter-overrides"},
    ("ecr", "get-login-password"): set(),
    ("s3", "cp"): set(),
    ("logs", "tail"): {"--follow", "--since"},
}
# What cannot be asked here, and why.
UNASKED = {
    "docker": "needs an engine, or its plugin buildx",
    "eksctl": "not at hand",
    "kops": "not at hand",
    "cosign": "not at hand",
    "gh": "not at hand",
    "just": "not at hand",
    # Of every system.
    **dict.fromkeys(["base64", "cp", "curl", "echo", "grep", "rm", "tr", "cat", "git", "cd"], "of the system"),
}


def bridges_options():
    """The options of every command of every bridge, as the pages' tables have them."""
    found = {}
    shared = _table(ROOT / "bridges/README.md")
    for bridge in BRIDGES:
        rows = [*shared, *_table(ROOT / f"bridges/{bridge}/README.md")]
        for command in ["run", "replay"]:
            found[bridge, command] = {option for option, commands in rows if command in commands}
        found[bridge, "check"] = found[bridge, "run"] | {"--json", "--canary"}
        found[bridge, "version"] = {"--json"}
    return found


def _table(page):
    text = page.read_text()
    return re.findall(r"^\| `(--[a-z-]+)[^`]*` \| ([a-z, ]*) \|", text, re.M)


def _cargo_of_pages():
    for page in pages.pages():
        for words in pages.commands(page):
            if words[0] == "cargo":
                yield page, words


class Commands(unittest.TestCase):
    def each(self, program, check):
        """Checks the words behind every command of a program; how many there were."""
        found = list(pages.of(program))
        for page, words in found:
            with self.subTest(page=pages.name(page), command=f"{program} {' '.join(words)}"):
                check(words)
        return len(found)

    def test_no_program_is_overlooked(self):
        asked = {"aws", "az", "gcloud", "kubeadm", "helm", "kubectl", "bash", "cargo", "bridge", "sh", "terraform"}
        asked |= {f"{bridge}-audit-bridge" for bridge in BRIDGES}
        for page in pages.pages():
            for words in pages.commands(page):
                self.assertIn(words[0], asked | set(UNASKED), f"{pages.name(page)}: {words}")

    def test_aws(self):
        session = botocore.session.get_session()

        def check(words):
            service, operation = words[:2]
            options = set(pages.options(words)) - AWS_EVERYWHERE
            if (service, operation) in AWS_OWN:
                self.assertEqual(options - AWS_OWN[service, operation], set())
                return
            model = session.get_service_model(service)
            (name,) = [name for name in model.operation_names if xform_name(name, "-") == operation]
            shape = model.operation_model(name).input_shape
            members = shape.members if shape else {}
            self.assertEqual(options - {f"--{xform_name(member, '-')}" for member in members}, set())
            required = {f"--{xform_name(member, '-')}" for member in (shape.required_members if shape else [])}
            self.assertEqual(required - options, set())

        self.assertGreater(self.each("aws", check), 8)

    def _recorded(self, program, least=10):
        record = cloud_cli_options.known()

        def check(words):
            found = cloud_cli_options.command(program, words, record)
            self.assertIsNotNone(found, "not recorded: see tests/infra/cloud_cli_options.py")
            self.assertEqual(set(pages.options(words)) - set(record[program][found]), set())

        self.assertGreater(self.each(program, check), least)

    def test_az(self):
        self._recorded("az")

    def test_gcloud(self):
        self._recorded("gcloud")

    def test_kubeadm(self):
        self._recorded("kubeadm", 2)

    def test_the_record_would_find_a_slip(self):
        record = cloud_cli_options.known()
        keys = "eventhubs eventhub authorization-rule keys list".split()
        self.assertEqual(cloud_cli_options.command("az", [*keys, "-n"], record), " ".join(keys))
        # It failed for whoever wrote -n, and left an empty Secret.
        self.assertNotIn("-n", record["az"][" ".join(keys)])
        self.assertIsNone(cloud_cli_options.command("az", ["eventhub", "create"], record))

    def test_helm(self):
        """Those of our chart render; of all others Helm's own parser takes the options."""
        ours = []
        # The copy of an example that a page tells to make.
        copies = {f"{bridge}-values.yaml": f"deploy/examples/{bridge}-values.yaml" for bridge in BRIDGES}

        def check(words):
            if words[0] in ["install", "upgrade"] and "deploy/helm/audit-bridge" in words:
                words = [copies.get(word, word) for word in words[1:]]
                run(go_tool("helm"), "template", *words, "--kube-version", VERSIONS[1])
                ours.append(words)
            else:
                run(go_tool("helm"), *words, "--help")

        self.each("helm", check)
        self.assertGreaterEqual(len(ours), len(BRIDGES))

    def test_kubectl(self):
        def check(words):
            before = words[: words.index("--")] if "--" in words else words
            run(need("kubectl"), *before, "--help", env={"KUBECONFIG": "/dev/null"})

        self.assertGreater(self.each("kubectl", check), 8)

    def test_scripts(self):
        """A script of ours reads the options before --help, and refuses what it does not know."""
        asked = []

        def check(words):
            script = ROOT / words[0]
            if words[0] == "audit-webhook.sh":
                script = ROOT / "deploy/control-plane" / words[0]
            self.assertTrue(script.exists(), words[0])
            if script.parent.name == "control-plane":
                run("bash", script, *words[1:], "--help")
                asked.append(words)

        self.each("bash", check)
        self.assertGreater(len(asked), 3)

    def test_cargo(self):
        """What it is asked to build, test or run is there; also what the justfile asks."""
        recipes = [line.split() for line in (ROOT / "justfile").read_text().splitlines() if line.startswith("    ")]
        asked = [words[1:] for _, words in _cargo_of_pages()] + [line for line in recipes if "cargo" in line]
        packages = {path.parent.name for path in ROOT.glob("crates/*/Cargo.toml")} | set(BRIDGES)
        names = {f"audit-bridge-{name}" for name in packages} | {f"{bridge}-audit-bridge" for bridge in BRIDGES}
        names.add("audit-bridge-tests")
        places = {
            "--test": [ROOT / "tests/tests"],
            "--bench": [ROOT / "tests/benches"],
            "--example": [ROOT / "tests/examples", ROOT / "crates/tail/examples"],
        }
        checked = 0
        for words in asked:
            for option, value in zip(words, words[1:], strict=False):
                with self.subTest(words=words):
                    if option == "-p":
                        self.assertIn(value, names)
                        checked += 1
                    if option in places:
                        pattern = value.strip("'*") + "*"
                        found = [path for place in places[option] for path in place.glob(pattern)]
                        self.assertTrue(found, f"{option} {value}: there is none")
                        checked += 1
        self.assertGreater(checked, 5)

    def test_bridges(self):
        known = bridges_options()
        for bridge in BRIDGES:

            def check(words, bridge=bridge):
                self.assertEqual(set(pages.options(words[1:])) - known[bridge, words[0]], set())

            self.assertGreater(self.each(f"{bridge}-audit-bridge", check), 1)

    def test_bridges_within_the_text(self):
        """Commands in a line of text, and in what the chart and the modules say."""
        known = bridges_options()
        checked = 0
        for page in pages.pages():
            text = " ".join(page.read_text().split())
            for bridge, command, rest in re.findall(r"`(eks|gke|aks)-audit-bridge (run|replay|check) ([^`]*)`", text):
                with self.subTest(page=pages.name(page), command=rest):
                    used = set(re.findall(r"(?<!\S)--[a-z-]+", rest))
                    self.assertEqual(used - known[bridge, command], set())
                    checked += 1
        self.assertGreater(checked, 3)


if __name__ == "__main__":
    unittest.main()
