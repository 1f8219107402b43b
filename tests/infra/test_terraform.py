"""The Terraform modules: format, validity, their own tests, and the EKS module applied."""

import json
import re
import unittest

import boto3
from kit import BRIDGES, ROOT, Terraform, moto, need, run, scratch
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


class Modules(unittest.TestCase):
    def test_format(self):
        run(need("terraform"), "fmt", "-check", "-recursive", "-diff", ROOT / "terraform")

    def test_every_variable_and_output_says_what_it_is(self):
        for bridge in BRIDGES:
            for name in ["variables.tf", "outputs.tf"]:
                text = (ROOT / "terraform" / bridge / name).read_text()
                blocks = text.count('\nvariable "') + text.count('\noutput "') + text.startswith(("variable", "output"))
                self.assertEqual(text.count("\n  description = "), blocks, f"{bridge}/{name}")

    def test_every_variable_is_in_the_readme(self):
        for bridge in BRIDGES:
            folder = ROOT / "terraform" / bridge
            readme = (folder / "README.md").read_text()
            for line in (folder / "variables.tf").read_text().splitlines():
                if line.startswith("variable "):
                    name = line.split('"')[1]
                    self.assertIn(f"`{name}`", readme)

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
            self.assertRegex(module.run("test").stdout, r"Success! [1-9]\d+ passed, 0 failed")
            example = Terraform(module.folder / "examples/complete", module.folder / "examples/copy")
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
        with scratch() as folder:
            Terraform(ROOT / "terraform" / bridge, folder / "module")
            example = Terraform(folder / "module/examples/complete", folder / "module/examples/copy")
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
