"""The steps of the clouds' pages, run as they stand there, with stand-ins for the clouds' programs."""

import contextlib
import os
import unittest

import pages
from kit import ROOT, run, scratch


def block(bridge, part):
    """The block of a cloud's page in which this stands."""
    (found,) = [text for text in pages.blocks(ROOT / f"deploy/{bridge}/README.md") if part in text]
    return found


@contextlib.contextmanager
def steps(**programs):
    """Runs blocks with these programs, and tells with what each was called."""
    with scratch() as folder:
        calls = folder / "calls"
        calls.touch()
        (folder / "bin").mkdir()
        for name, body in programs.items():
            path = folder / "bin" / name
            path.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {calls}\n{body}\n')
            path.chmod(0o755)

        def go(text, check=True):
            calls.write_text("")
            env = {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
            run("bash", "-c", text, cwd=folder, env=env, check=check)
            return calls.read_text().splitlines()

        yield go


class Eks(unittest.TestCase):
    ISSUER = "https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"

    def test_the_log_is_switched_on_only_where_it_is_off(self):
        """EKS answers with an error where it is on already."""
        on, off = ["api\\taudit", "audit"], ["None", "api\\tauthenticator"]
        for types, switched in [*((types, False) for types in on), *((types, True) for types in off)]:
            with steps(aws=f'case "$*" in *describe-cluster*) printf "{types}\\n" ;; esac') as go:
                calls = go(block("eks", "describe-log-streams"))
                updates = [call for call in calls if "update-cluster-config" in call]
                self.assertEqual(len(updates), int(switched), types)
                for call in updates:
                    self.assertIn("--name production", call)

    def test_the_stack_has_a_name_and_registers_the_issuer_once(self):
        for there, create in [("", "true"), ("arn:aws:iam::111122223333:oidc-provider/" + self.ISSUER[8:], "false")]:
            answers = f'case "$*" in *identity.oidc*) echo {self.ISSUER} ;; *list-open-id*) echo "{there}" ;; esac'
            with steps(aws=answers) as go:
                calls = go("CLUSTER=my_cluster\n" + block("eks", "aws cloudformation deploy"))
                (deploy,) = [call for call in calls if "cloudformation deploy" in call]
                self.assertIn("--stack-name eks-audit-reader-my-cluster ", deploy)
                self.assertIn(f"ClusterName=my_cluster OidcIssuerUrl={self.ISSUER} CreateOidcProvider={create}", deploy)
                (shown,) = [call for call in calls if "describe-stacks" in call]
                self.assertIn("--stack-name eks-audit-reader-my-cluster ", shown)

    def test_uninstalling_leaves_the_clusters_audit_log_alone(self):
        with steps(aws="", helm="", kubectl="") as go:
            calls = go(block("eks", "helm uninstall"))
            self.assertTrue(any("delete-stack" in call for call in calls))
            self.assertFalse(any("update-cluster-config" in call for call in calls))


class Aks(unittest.TestCase):
    GIVEN = "GROUP=g NAMESPACE=n HUB=h\n"
    KEY = "Endpoint=sb://n.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=AAAA=;EntityPath=h"

    def test_no_secret_without_a_connection_string(self):
        """The first version of this left an empty one, and a bridge that waited for ever."""
        for answer in ["exit 1", "echo", "echo ERROR"]:
            with steps(az=f'case "$*" in *"keys list"*) {answer} ;; esac', kubectl="") as go:
                calls = go(self.GIVEN + block("aks", "keys list"), check=False)
                self.assertFalse(any(call.startswith("kubectl") for call in calls), answer)

    def test_the_secret_is_the_connection_string_and_no_file_stays(self):
        kept = "cp connection-string kept"
        with steps(az=f'case "$*" in *"keys list"*) echo "{self.KEY}" ;; esac', kubectl=kept) as go:
            look = '\nprintf "%s" "$(cat kept)" | grep -qx ".*EntityPath=h" && [ ! -e connection-string ]'
            calls = go(self.GIVEN + block("aks", "keys list") + look)
            self.assertEqual(len([call for call in calls if call.startswith("kubectl create secret")]), 1)

    def test_everything_is_made_in_the_same_place(self):
        given = "GROUP=g CLUSTER=c\n"
        with steps(az='case "$*" in *"--query location"*) echo westeurope ;; *--query*) echo x ;; esac') as go:
            calls = go(given + block("aks", "az eventhubs namespace create"))
            made = [call for call in calls if " create " in call]
            self.assertEqual(len(made), 7)
            for call in made:
                self.assertNotRegex(call, r"-(?:n|g|l|name) (?:-|$)", "a variable is empty")


class Gke(unittest.TestCase):
    def test_every_step_has_its_project(self):
        for part in ["gcloud services enable", "gcloud iam service-accounts create"]:
            with steps(gcloud="") as go:
                calls = go("PROJECT=p CLUSTER=c LOCATION=l\n" + block("gke", part))
                self.assertGreaterEqual(len(calls), 3)
                for call in calls:
                    self.assertRegex(call, r"--project (my-project|p)\b|iam-policy-binding p ", call)


if __name__ == "__main__":
    unittest.main()
