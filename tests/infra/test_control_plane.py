"""The kit for API servers that one configures oneself: the script, and what it renders."""

import base64
import json
import os
import re
import unittest
from pathlib import Path

import audit_policy
import kubernetes_validate
import yaml
from audit_policy import policy
from kit import ROOT, need, run, scratch, tool

KIT = ROOT / "deploy/control-plane"
SCRIPT = KIT / "audit-webhook.sh"
PLATFORMS = ["kops", "kubeadm", "minikube", "rke2", "k3s", "iks", "openshift", "auditsink"]
WITH_FILES = ["kops", "kubeadm", "minikube", "rke2", "k3s"]
SERVICE = ["--service", "falco/falco-k8saudit-webhook:9765/k8s-audit"]
IP = [*SERVICE, "--cluster-ip", "10.0.0.1"]
URL = "http://10.0.0.1:9765/k8s-audit"
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def script(*args, check=True, env=None):
    return run("bash", SCRIPT, *args, check=check, env=env)


def render(folder, platform, *args, **more):
    return script("render", "--platform", platform, "--output", folder, *(args or IP), **more)


def server(kubeconfig):
    """What kubectl, and so the API server's own code, reads of a kubeconfig."""
    view = run(need("kubectl"), "config", "view", "--raw", "--output=json", f"--kubeconfig={kubeconfig}")
    config = json.loads(view.stdout)
    (context,) = [item["context"] for item in config["contexts"] if item["name"] == config["current-context"]]
    (cluster,) = [item["cluster"] for item in config["clusters"] if item["name"] == context["cluster"]]
    (user,) = [item["user"] for item in config["users"] if item["name"] == context["user"]]
    return cluster, user


def snapshot(folder):
    return {path.name: path.read_text() for path in Path(folder).iterdir() if path.is_file()}


class Rendered(unittest.TestCase):
    def test_every_platform(self):
        for platform in PLATFORMS:
            with self.subTest(platform=platform), scratch() as folder:
                render(folder, platform)
                files = snapshot(folder)
                self.assertNotIn("@", re.sub(r"[\w.]+@[\w.]+", "", "".join(files.values())), "a mark was left")
                self.assertIn(URL, "".join(files.values()))
                for name, text in files.items():
                    if name.endswith(".sh"):
                        run(tool("shellcheck"), folder / name)
                    else:
                        self.assertTrue(list(yaml.safe_load_all(text)))
                self.assertEqual("audit-policy.yaml" in files, platform in WITH_FILES)
                if platform in WITH_FILES:
                    self.assertEqual(yaml.safe_load(files["audit-policy.yaml"]), policy())
                    cluster, user = server(folder / "webhook.kubeconfig")
                    self.assertEqual((cluster, user), ({"server": URL}, {}))
                    self.assertEqual((folder / "webhook.kubeconfig").stat().st_mode & 0o777, 0o600)

    def test_the_files_are_where_the_flags_say(self):
        with scratch() as folder:
            for platform in PLATFORMS:
                render(folder / platform, platform)
            kops = yaml.safe_load((folder / "kops/kops.yaml").read_text())["spec"]
            assets = {asset["path"]: asset["content"] for asset in kops["fileAssets"]}
            self.assertEqual(yaml.safe_load(assets[kops["kubeAPIServer"]["auditPolicyFile"]]), policy())
            webhook = yaml.safe_load(assets[kops["kubeAPIServer"]["auditWebhookConfigFile"]])
            self.assertEqual(webhook, yaml.safe_load((folder / "kops/webhook.kubeconfig").read_text()))

            kubeadm = yaml.safe_load((folder / "kubeadm/kubeadm.yaml").read_text())["apiServer"]
            flags = {item["name"]: item["value"] for item in kubeadm["extraArgs"]}
            (volume,) = kubeadm["extraVolumes"]
            for flag, name in [
                ("audit-policy-file", "audit-policy.yaml"),
                ("audit-webhook-config-file", "webhook.kubeconfig"),
            ]:
                self.assertEqual(flags[flag], f"{volume['mountPath']}/{name}")
                self.assertTrue((folder / "kubeadm" / name).exists())
            self.assertTrue(all(isinstance(value, str) for value in flags.values()))

            rke2 = yaml.safe_load((folder / "rke2/rke2.yaml").read_text())
            (mount,) = rke2["kube-apiserver-extra-mount+"]
            inside = mount.split(":")[1]
            self.assertTrue(rke2["audit-policy-file"].startswith(f"{inside}/"))
            self.assertIn(f"audit-webhook-config-file={inside}/webhook.kubeconfig", rke2["kube-apiserver-arg+"])

            k3s = yaml.safe_load((folder / "k3s/k3s.yaml").read_text())["kube-apiserver-arg+"]
            self.assertIn("audit-policy-file=/etc/rancher/k3s/audit/audit-policy.yaml", k3s)

    def test_truncation_stays_below_falcos_limit(self):
        """Falco drops a larger event after it answered 200."""
        for name in ["kubeadm.yaml", "rke2.yaml", "k3s.yaml", "minikube.sh"]:
            text = (KIT / "templates" / name).read_text()
            (size,) = re.findall(r'truncate-max-event-size(?:=|\n +value: ")(\d+)', text)
            self.assertLess(int(size), 262144)
            self.assertRegex(text, r'truncate-enabled(=true|\n +value: "true")')

    def test_minikube_starts_with_the_files(self):
        with scratch() as folder:
            render(folder / "kit", "minikube")
            (folder / "bin").mkdir()
            (folder / "bin/minikube").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
            (folder / "bin/minikube").chmod(0o755)
            env = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "MINIKUBE_HOME": str(folder / "home")}
            said = run("sh", "minikube.sh", cwd=folder / "kit", env=env).stdout
            certs = folder / "home/files/etc/ssl/certs"
            for flag, name in [
                ("audit-policy-file", "audit-policy.yaml"),
                ("audit-webhook-config-file", "webhook.kubeconfig"),
            ]:
                self.assertIn(f"--extra-config=apiserver.{flag}=/etc/ssl/certs/{name}", said)
                self.assertTrue((certs / name).exists())

    def test_iks_sets_gets_and_refreshes(self):
        with scratch() as folder:
            render(folder / "kit", "iks")
            (folder / "bin").mkdir()
            (folder / "bin/ibmcloud").write_text('#!/bin/sh\necho "$*"\n')
            (folder / "bin/ibmcloud").chmod(0o755)
            env = {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
            said = run("sh", folder / "kit/iks.sh", "mine", env=env).stdout.splitlines()
            self.assertEqual(
                said,
                [
                    f"ks cluster master audit-webhook set --cluster mine --remote-server {URL}",
                    "ks cluster master audit-webhook get --cluster mine",
                    "ks cluster master refresh --cluster mine",
                ],
            )
            self.assertIn("say which cluster", run("sh", folder / "kit/iks.sh", check=False).stderr)

    def test_openshift(self):
        with scratch() as folder:
            (folder / "ca.crt").write_text(PEM)
            render(folder / "kit", "openshift", *SERVICE, "--https", "--ca-file", folder / "ca.crt")
            account, binding, forwarder = yaml.safe_load_all((folder / "kit/openshift.yaml").read_text())
            for item in [account, binding]:
                kubernetes_validate.validate(item, "1.31", strict=True)
            spec = forwarder["spec"]
            (pipeline,) = spec["pipelines"]
            self.assertEqual(pipeline["inputRefs"], [entry["name"] for entry in spec["inputs"]])
            self.assertEqual(pipeline["outputRefs"], [entry["name"] for entry in spec["outputs"]])
            self.assertEqual(spec["serviceAccount"]["name"], account["metadata"]["name"])
            self.assertEqual(binding["subjects"][0]["name"], account["metadata"]["name"])
            self.assertEqual(spec["outputs"][0]["tls"]["ca"], {"key": "ca.crt", "secretName": "audit-webhook"})
            self.assertEqual(
                spec["outputs"][0]["http"]["url"], "https://falco-k8saudit-webhook.falco.svc:9765/k8s-audit"
            )
            # The operator is installed where it looks for forwarders.
            operator = list(yaml.safe_load_all((KIT / "templates/openshift-operator.yaml").read_text()))
            self.assertEqual([item["kind"] for item in operator], ["Namespace", "OperatorGroup", "Subscription"])
            namespaces = {operator[0]["metadata"]["name"], *(item["metadata"]["namespace"] for item in operator[1:])}
            self.assertEqual(namespaces, {forwarder["metadata"]["namespace"]})

    def test_auditsink(self):
        with scratch() as folder:
            render(folder, "auditsink")
            sink = yaml.safe_load((folder / "auditsink.yaml").read_text())
            self.assertEqual(sink["spec"]["policy"]["level"], "Metadata")
            render(folder, "auditsink", *IP, "--level", "Request")
            sink = yaml.safe_load((folder / "auditsink.yaml").read_text())
            self.assertEqual(sink["spec"]["policy"]["level"], "Request")
            self.assertEqual(sink["spec"]["webhook"]["clientConfig"], {"url": URL})
            self.assertLessEqual(set(sink["spec"]["policy"]["stages"]), audit_policy.STAGES)


class Target(unittest.TestCase):
    def rendered(self, *args, **more):
        with scratch() as folder:
            render(folder / "kit", "kubeadm", *args, **more)
            return server(folder / "kit/webhook.kubeconfig")

    def test_by_name_and_by_url(self):
        cluster, _ = self.rendered(*SERVICE, "--dns")
        self.assertEqual(cluster["server"], "http://falco-k8saudit-webhook.falco.svc:9765/k8s-audit")
        cluster, _ = self.rendered("--webhook-url", "https://audit.example.com/k8s_audit?cluster=a&b=c")
        self.assertEqual(cluster["server"], "https://audit.example.com/k8s_audit?cluster=a&b=c")
        cluster, _ = self.rendered(*SERVICE, "--cluster-ip", "fd00::1")
        self.assertEqual(cluster["server"], "http://[fd00::1]:9765/k8s-audit")

    def test_the_cluster_is_asked_for_the_address(self):
        with scratch() as folder:
            (folder / "kubectl").write_text(
                '#!/bin/sh\n[ "$*" = "get service --namespace falco falco-k8saudit-webhook '
                '--output jsonpath={.spec.clusterIP}" ] && printf 10.9.8.7\n'
            )
            (folder / "kubectl").chmod(0o755)
            path = f"{folder}:{os.environ['PATH']}"
            said = render(folder / "kit", "iks", *SERVICE, env={"PATH": path})
            self.assertIn("http://10.9.8.7:9765/k8s-audit", (folder / "kit/iks.sh").read_text(), said)

    def test_tls_and_token(self):
        with scratch() as folder:
            (folder / "ca.crt").write_text(PEM)
            (folder / "token").write_text("s3cr3t-t0ken\n")
            args = [*IP, "--https", "--ca-file", folder / "ca.crt", "--token-file", folder / "token"]
            cluster, user = self.rendered(*args)
            self.assertEqual(cluster["server"], "https://10.0.0.1:9765/k8s-audit")
            # The certificate is for the name, not for the address.
            self.assertEqual(cluster["tls-server-name"], "falco-k8saudit-webhook.falco.svc")
            self.assertEqual(base64.b64decode(cluster["certificate-authority-data"]).decode(), PEM)
            self.assertEqual(user, {"token": "s3cr3t-t0ken"})
            said = render(folder / "kit", "kops", *args, "--dry-run").stdout
            self.assertIn("token: (hidden)", said)
            self.assertNotIn("s3cr3t", said)

    def test_a_certificate_has_a_name(self):
        cluster, _ = self.rendered("--webhook-url", "https://10.0.0.1/", "--tls-server-name", "falco.example.com")
        self.assertEqual(cluster, {"server": "https://10.0.0.1/", "tls-server-name": "falco.example.com"})
        cluster, _ = self.rendered(*IP, "--https", "--tls-server-name", "other.falco.svc")
        self.assertEqual(cluster["tls-server-name"], "other.falco.svc")
        for url in ["https://10.0.0.1/", "https://10.0.0.1:443/x", "https://[fd00::1]:9765/k8s-audit"]:
            for platform in PLATFORMS:
                with self.subTest(url=url, platform=platform), scratch() as folder:
                    ran = render(folder / "kit", platform, "--webhook-url", url, check=False)
                    self.assertEqual(ran.returncode, 2, ran.stdout)
                    self.assertIn("name", ran.stderr)

    def test_an_audit_log_file_on_request(self):
        """What replay brings gaps in from; without the option nothing writes one."""
        for platform in ["kops", "kubeadm", "minikube", "k3s"]:
            with self.subTest(platform=platform), scratch() as folder:
                render(folder, platform)
                without = "".join(snapshot(folder).values())
                self.assertNotRegex(without, "(?i)audit-?log-?(path|max)")
                render(folder, platform, *IP, "--audit-log")
                files = snapshot(folder)
                for name, text in files.items():
                    if name.endswith(".sh"):
                        run(tool("shellcheck"), folder / name)
                    else:
                        self.assertTrue(list(yaml.safe_load_all(text)))
                self.assertRegex("".join(files.values()), "(?i)audit-?log-?path")
        with scratch() as folder:
            render(folder, "kubeadm", *IP, "--audit-log")
            server = yaml.safe_load((folder / "kubeadm.yaml").read_text())["apiServer"]
            flags = {item["name"]: item["value"] for item in server["extraArgs"]}
            (volume,) = [item for item in server["extraVolumes"] if item["name"] == "audit-log"]
            self.assertTrue(flags["audit-log-path"].startswith(f"{volume['mountPath']}/"))
            self.assertNotIn("readOnly", volume)
        for platform in ["iks", "openshift", "auditsink", "rke2"]:
            ran = render("x", platform, *IP, "--audit-log", check=False)
            self.assertEqual(ran.returncode, 2)

    def test_what_would_silently_fail_is_refused_with_what_to_write(self):
        for args, word in [
            ([], "--webhook-url or --service"),
            (["--webhook-url", "falco:9765/k8s-audit"], "http:// or https://"),
            (["--webhook-url", "ftp://falco/"], "http:// or https://"),
            (["--webhook-url", "http://user:password@falco/"], "--token-file"),
            (["--webhook-url", 'http://falco/"\n  evil: yes'], "quotes"),
            (["--webhook-url", "http://falco/x|y"], "quotes"),
            (["--service", "falco:9765"], "NAMESPACE/NAME:PORT/PATH"),
            (["--service", "falco/web:9765"], "NAMESPACE/NAME:PORT/PATH"),
            ([*SERVICE, "--cluster-ip", "None"], "headless"),
            ([*SERVICE, "--cluster-ip", "falco"], "no address"),
            ([*IP, "--webhook-url", "http://a/"], "not both"),
            ([*IP, "--ca-file", "/nonexistent"], "cannot be read"),
            ([*IP, "--ca-file", KIT / "audit-policy.yaml"], "no PEM"),
            ([*IP, "--level", "All"], "Metadata, Request"),
            ([*IP, "--tls-server-name", "falco.svc"], "without https"),
            ([*IP, "--https", "--tls-server-name", "10.0.0.1"], "the name that the certificate has"),
            ([*IP, "--what"], "--help"),
            ([*IP, "--what", "ever"], "--help"),
        ]:
            with self.subTest(args=args), scratch() as folder:
                ran = script("render", "--platform", "kubeadm", "--output", folder / "kit", *args, check=False)
                self.assertEqual(ran.returncode, 2, ran.stdout)
                self.assertIn(word, ran.stderr)
                self.assertFalse((folder / "kit").exists())
        ran = script("render", "--platform", "gke", "--output", "x", *IP, check=False)
        self.assertIn("kops kubeadm", ran.stderr)


class Safety(unittest.TestCase):
    def test_twice_is_as_once(self):
        for platform in PLATFORMS:
            with self.subTest(platform=platform), scratch() as folder:
                render(folder, platform)
                before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
                said = render(folder, platform).stdout
                self.assertNotIn("written", said)
                self.assertEqual(before, {path: path.stat().st_mtime_ns for path in folder.iterdir()})
                self.assertEqual(len(list((folder / ".backup").iterdir())), 1)

    def test_a_dry_run_changes_nothing_and_tells_all(self):
        with scratch() as folder:
            said = render(folder / "kit", "kubeadm", *IP, "--dry-run").stdout
            self.assertFalse((folder / "kit").exists())
            self.assertIn(f'+      server: "{URL}"', said)
            self.assertIn("3 would be written", said)
            render(folder / "kit", "kubeadm")
            before = snapshot(folder / "kit")
            said = render(folder / "kit", "kubeadm", "--webhook-url", "http://other/", "--dry-run").stdout
            self.assertIn("1 would be written", said)
            self.assertIn(f'-      server: "{URL}"', said)
            self.assertEqual(snapshot(folder / "kit"), before)

    def test_restore_goes_back_step_by_step(self):
        with scratch() as folder:
            (folder / "kit").mkdir()
            (folder / "kit/audit-policy.yaml").write_text("mine\n")
            render(folder / "kit", "kubeadm")
            first = snapshot(folder / "kit")
            render(folder / "kit", "kubeadm", "--webhook-url", "http://other/")
            self.assertNotEqual(snapshot(folder / "kit"), first)
            script("restore", "--output", folder / "kit", "--dry-run")
            self.assertNotEqual(snapshot(folder / "kit"), first)
            script("restore", "--output", folder / "kit")
            self.assertEqual(snapshot(folder / "kit"), first)
            script("restore", "--output", folder / "kit")
            self.assertEqual(snapshot(folder / "kit"), {"audit-policy.yaml": "mine\n"})
            ran = script("restore", "--output", folder / "kit", check=False)
            self.assertEqual(ran.returncode, 2)
            self.assertIn("no backup", ran.stderr)
            ran = script("restore", "--output", folder / "nowhere", check=False)
            self.assertIn("no backup", ran.stderr)

    def test_help(self):
        self.assertIn("--dry-run", script("--help").stdout)
        self.assertEqual(script(check=False).returncode, 2)

    def test_the_readme_tells_of_every_platform(self):
        text = (KIT / "README.md").read_text()
        for platform in PLATFORMS:
            self.assertIn(f"--platform {platform}", text)


if __name__ == "__main__":
    unittest.main()
