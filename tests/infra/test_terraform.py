"""The Terraform modules: format, validity, their own tests, and the EKS module applied."""

import json
import re
import unittest

import boto3
import yaml
from chart import one, render
from kit import BRIDGES, ROOT, Terraform, moto, need, run, scratch
from modules import TABLES, tables
from recorded import ISSUER
from stand_in_provider import stand_in
from test_eks_identity import of_the_module

# Beside the module, what points the provider at a local server.
PROVIDER = """
provider "aws" {{
  region                      = "eu-central-1"
  access_key                  = "testing"
  secret_key                  = "testing"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true

  endpoints {{
    iam = "{url}"
    sts = "{url}"
  }}
}}
"""


CLIENT = "00000000-0000-0000-0000-00000000000c"


def examples(bridge):
    return sorted(path.name for path in (ROOT / f"terraform/{bridge}/examples").iterdir() if path.is_dir())


def floor(path):
    return re.search(r'^ +version = "(>= [\d.]+)', path.read_text(), re.M)[1]


class Modules(unittest.TestCase):
    def test_format(self):
        run(need("terraform"), "fmt", "-check", "-recursive", "-diff", ROOT / "terraform")

    def test_every_variable_and_output_says_what_it_is(self):
        for bridge in BRIDGES:
            for name in ["variables.tf", "outputs.tf"]:
                text = (ROOT / "terraform" / bridge / name).read_text()
                blocks = text.count('\nvariable "') + text.count('\noutput "') + text.startswith(("variable", "output"))
                self.assertEqual(text.count("\n  description = "), blocks, f"{bridge}/{name}")

    def test_the_readme_has_every_variable_with_its_default_and_every_output(self):
        for bridge in BRIDGES:
            folder = ROOT / "terraform" / bridge
            text = (folder / "README.md").read_text()
            with self.subTest(bridge=bridge):
                kept = re.search(TABLES, text, re.S)[1]
                self.assertEqual(tables(folder), kept, "run: python3 tests/infra/modules.py")

    def test_the_floor_of_the_provider_is_the_same_everywhere(self):
        for bridge in BRIDGES:
            folder = ROOT / "terraform" / bridge
            want = floor(folder / "versions.tf")
            self.assertIn(f"`{want}", (folder / "README.md").read_text())
            for name in examples(bridge):
                self.assertEqual(floor(folder / f"examples/{name}/main.tf"), want, name)

    def test_sources_of_modules_exist(self):
        for bridge in BRIDGES:
            folder = ROOT / "terraform" / bridge
            for path in [*folder.rglob("*.tf"), folder / "README.md"]:
                for source in re.findall(r'^ +source += "([^"]+)"', path.read_text(), re.M):
                    if source.startswith("hashicorp/"):
                        continue
                    # Of a page: as seen from beside a clone of the repository.
                    start = ROOT if path.name == "README.md" else path.parent
                    source = source.removeprefix("./audit-bridges/") if path.name == "README.md" else source
                    self.assertEqual((start / source).resolve(), folder, f"{path.name}: {source}")

    def test_the_values_are_the_charts(self):
        """What a module prints is taken by the chart, beside the example of the cloud."""
        for bridge, given in {
            "eks": {"region": "eu-central-1", "clusterNames": ["a"], "roleArn": "arn:aws:iam::111122223333:role/r"},
            "gke": {
                "projectId": "*",
                "clusterName": "*",
                "resourceNames": ["folders/42/locations/global/buckets/audit/views/gke"],
                "serviceAccount": "a@p.iam.gserviceaccount.com",
            },
            "aks": {"eventHubNamespace": "n.servicebus.windows.net", "categories": ["kube-audit"], "clientId": CLIENT},
        }.items():
            printed = (ROOT / f"terraform/{bridge}/outputs.tf").read_text()
            for key in given:
                self.assertRegex(printed, rf"\b{key}\b")
            render(bridge, {"serviceAccount": {"name": f"{bridge}-audit-bridge"}, bridge: given})

    def _is_taken_by_the_chart(self, bridge, runs):
        """What each of the module's tests prints goes over the cloud's example, of which nothing stays that it decides."""
        made = {"eks": "role_arn", "gke": "member", "aks": "client_id"}[bridge]
        runs = [outputs for outputs in runs if outputs.get(made, {}).get("value")]
        self.assertGreater(len(runs), 5)
        for outputs in runs:
            printed = yaml.safe_load(outputs["helm_values"]["value"])
            with self.subTest(bridge=bridge, printed=printed):
                account = one(render(bridge, printed), "ServiceAccount")["metadata"]
                self.assertEqual(account.get("annotations", {}), outputs["service_account_annotations"]["value"])
                self.assertEqual(account["name"], printed["serviceAccount"]["name"])

    def _own_tests(self, bridge):
        with scratch() as folder:
            module = Terraform(ROOT / "terraform" / bridge, folder / "module")
            module.init()
            module.run("validate")
            said = module.run("test").stdout
            self.assertRegex(said, r"Success! [1-9]\d+ passed, 0 failed")

    def _own_tests_without_the_provider(self, bridge):
        with scratch() as folder, stand_in(bridge) as env:
            module = Terraform(ROOT / "terraform" / bridge, folder / "module")
            module.env |= env
            module.run("init", "-backend=false", "-input=false")
            module.run("validate")
            said = [json.loads(line) for line in module.run("test", "-json", "-verbose").stdout.splitlines()]
            (summary,) = [each["test_summary"] for each in said if "test_summary" in each]
            self.assertEqual((summary["status"], summary["passed"] > 9), ("pass", True), summary)
            self._is_taken_by_the_chart(bridge, [each["test_state"]["outputs"] for each in said if "test_state" in each])
            for name in examples(bridge):
                example = Terraform(module.folder / "examples" / name, module.folder / f"examples/{name}-copy")
                example.env |= env
                example.run("init", "-backend=false", "-input=false")
                example.run("validate")

    def test_eks_without_its_provider(self):
        self._own_tests_without_the_provider("eks")

    def test_gke_without_its_provider(self):
        self._own_tests_without_the_provider("gke")

    def test_aks_without_its_provider(self):
        self._own_tests_without_the_provider("aks")

    def test_the_stand_in_would_find_a_slip(self):
        with scratch() as folder, stand_in("gke") as env:
            module = Terraform(ROOT / "terraform/gke", folder / "module")
            module.env |= env
            main = module.folder / "main.tf"
            main.write_text(main.read_text().replace("account_id   =", "acount_id   ="))
            module.run("init", "-backend=false", "-input=false")
            ran = module.run("validate", check=False)
            self.assertEqual(ran.returncode, 1)
            self.assertIn("acount_id", ran.stderr)

    def test_eks(self):
        self._own_tests("eks")

    def test_gke(self):
        self._own_tests("gke")

    def test_aks(self):
        self._own_tests("aks")

    def _example(self, bridge):
        self.assertGreaterEqual(len(examples(bridge)), 2)
        for name in examples(bridge):
            with scratch() as folder:
                Terraform(ROOT / "terraform" / bridge, folder / "module")
                example = Terraform(folder / f"module/examples/{name}", folder / "module/examples/copy")
                example.init()
                example.run("validate")

    def test_eks_example(self):
        self._example("eks")

    def test_gke_example(self):
        self._example("gke")

    def test_aks_example(self):
        self._example("aks")

    def test_every_rule_of_a_variable_has_a_case(self):
        for bridge in BRIDGES:
            module = ROOT / "terraform" / bridge
            refused = (module / "tests/refused.tftest.hcl").read_text()
            for name in re.findall(r'^variable "(\w+)"', (module / "variables.tf").read_text(), re.M):
                with self.subTest(bridge=bridge, name=name):
                    block = self._block(module, name)
                    self.assertEqual("validation" in block, f"expect_failures = [var.{name}]" in refused)
                    self.assertTrue("validation" in block or "= bool" in block, "it takes anything")

    @staticmethod
    def _block(module, name):
        text = (module / "variables.tf").read_text()
        return text[text.index(f'variable "{name}"') :].split("\n}\n")[0]


class EksApplied(unittest.TestCase):
    def test_against_moto(self):
        with scratch() as folder, moto() as url:
            module = Terraform(ROOT / "terraform/eks", folder / "module")
            (module.folder / "provider.tf").write_text(PROVIDER.format(url=url))
            module.init()
            env = {
                "TF_VAR_cluster_name": "production",
                "TF_VAR_oidc_issuer_url": ISSUER.removeprefix("https://") + "/",
                "TF_VAR_create_oidc_provider": "true",
                "TF_VAR_tags": '{"team":"security"}',
            }
            module.run("apply", "-auto-approve", "-input=false", env=env)
            outputs = json.loads(module.run("output", "-json").stdout)
            iam = boto3.client("iam", endpoint_url=url)
            name = outputs["role_name"]["value"]
            role = iam.get_role(RoleName=name)["Role"]
            read = iam.get_role_policy(RoleName=name, PolicyName="read-audit-log")["PolicyDocument"]
            # What AWS got is what the templates say without Terraform.
            self.assertEqual((read, role["AssumeRolePolicyDocument"]), of_the_module("aws", "eu-central-1", "com"))
            self.assertEqual(outputs["role_arn"]["value"], role["Arn"])
            self.assertEqual(role["Tags"], [{"Key": "team", "Value": "security"}])
            self.assertEqual(len(iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]), 1)
            again = module.run("plan", "-detailed-exitcode", "-input=false", check=False, env=env)
            self.assertEqual(again.returncode, 0, f"a second plan changes something\n{again.stdout}{again.stderr}")
            module.run("destroy", "-auto-approve", "-input=false", env=env)
            self.assertEqual(iam.list_roles()["Roles"], [])


if __name__ == "__main__":
    unittest.main()
