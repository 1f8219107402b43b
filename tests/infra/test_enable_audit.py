"""The script that switches the audit webhook on by ssh, with stand-ins for ssh, sudo, kubectl and minikube."""

import contextlib
import os
import re
import unittest
from pathlib import Path

import kubernetes_validate
import yaml
from kit import ROOT, run, scratch

KIT = ROOT / "deploy/control-plane"
ENABLE = KIT / "enable-audit.sh"

# As kubeadm writes it (minikube), shortened.
KUBEADM = """\
apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: 192.168.49.2:8443
  labels:
    component: kube-apiserver
    tier: control-plane
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=192.168.49.2
    - --allow-privileged=true
    image: kube-apiserver:v1.33.0
    imagePullPolicy: IfNotPresent
    name: kube-apiserver
    volumeMounts:
    - mountPath: /etc/ssl/certs
      name: ca-certs
      readOnly: true
  hostNetwork: true
  priorityClassName: system-node-critical
  volumes:
  - hostPath:
      path: /etc/ssl/certs
      type: DirectoryOrCreate
    name: ca-certs
status: {}
"""
# As kops writes it, shortened: another container has flags and mounts too, and comes first here.
KOPS = """\
apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: null
  labels:
    k8s-app: kube-apiserver
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - args:
    - --ca-cert=/secrets/ca.crt
    command:
    - /kube-apiserver-healthcheck
    image: kube-apiserver-healthcheck:1.33.0
    name: healthcheck
    volumeMounts:
    - mountPath: /secrets
      name: healthcheck-secrets
      readOnly: true
  - args:
    - --allow-privileged=true
    - --anonymous-auth=false
    command:
    - /usr/local/bin/kube-apiserver
    image: kube-apiserver:v1.33.0
    name: kube-apiserver
    ports:
    - containerPort: 443
      hostPort: 443
      name: https
    volumeMounts:
    - mountPath: /srv/kubernetes/kube-apiserver
      name: srvkube
      readOnly: true
  hostNetwork: true
  volumes:
  - hostPath:
      path: /srv/kubernetes/kube-apiserver
    name: srvkube
  - hostPath:
      path: /srv/kubernetes/kube-apiserver/healthcheck-secrets
    name: healthcheck-secrets
status: {}
"""


class Machine:
    """A machine with an API server, and the programs that reach it."""

    def __init__(self, folder, manifest):
        self.folder = folder
        self.manifest = folder / "manifests/kube-apiserver.yaml"
        self.manifest.parent.mkdir()
        self.manifest.write_text(manifest)
        self.state = folder / "state"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.calls = folder / "ssh-calls"
        # Its last argument is the script; what comes before it is kept.
        self.program("ssh", f'for a in "$@"; do last=$a; done\nprintf "%s\\n" "$*" >> {self.calls}\nexec sh -c "$last"')
        self.program("sudo", 'exec "$@"')
        self.answer(True)
        self.program("minikube", 'case $1 in ip) echo 192.168.49.2 ;; ssh-key) echo /keys/minikube ;; esac')
        run(
            "bash", KIT / "audit-webhook.sh", "render", "--platform", "kops", "--output", folder / "files",
            "--service", "falco/web:9765/k8s-audit", "--cluster-ip", "10.0.0.1",
        )  # fmt: skip

    def program(self, name, body):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def answer(self, well):
        """Whether the API server answers."""
        self.program("kubectl", f'[ "$1" = config ] && echo k8s.example.com && exit\nexit {0 if well else 1}')

    def run(self, action, *args, check=True, platform="kops", env=None):
        command = ["bash", ENABLE, action, "--platform", platform, "--wait", "1"]
        command += ["--manifest", self.manifest, "--folder", self.state, *args]
        if action == "enable":
            command += ["--files", self.folder / "files"]
        env = {"PATH": f"{self.bin}:{os.environ['PATH']}", "APISERVER_HOST": "", **(env or {})}
        return run(*command, check=check, env=env)

    def pod(self):
        pod = yaml.safe_load(self.manifest.read_text())
        pod.pop("status")
        kubernetes_validate.validate(pod, "1.33", strict=True)
        return pod

    def hosts(self):
        return re.findall(r"(\S+@\S+)", self.calls.read_text())


@contextlib.contextmanager
def machine(manifest=KOPS):
    with scratch() as folder:
        yield Machine(folder, manifest)


def server(pod):
    (only,) = [item for item in pod["spec"]["containers"] if item["name"] == "kube-apiserver"]
    return only


class Enable(unittest.TestCase):
    def test_flags_files_and_mount(self):
        for manifest in [KOPS, KUBEADM]:
            with machine(manifest) as it:
                before = it.pod()
                it.run("enable")
                after = it.pod()
                command = [*server(after).get("args", []), *server(after).get("command", [])]
                flags = dict(flag[2:].split("=", 1) for flag in command if flag.startswith("--audit-"))
                for flag, name in [
                    ("audit-policy-file", "audit-policy.yaml"),
                    ("audit-webhook-config-file", "webhook.kubeconfig"),
                ]:
                    path = flags[flag]
                    self.assertEqual((it.folder / "files" / name).read_text(), Path(path).read_text())
                    self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
                (mount,) = [item for item in server(after)["volumeMounts"] if item["name"] == "audit-webhook"]
                (volume,) = [item for item in after["spec"]["volumes"] if item["name"] == "audit-webhook"]
                self.assertEqual(mount, {"mountPath": str(it.state), "name": "audit-webhook", "readOnly": True})
                self.assertEqual(volume["hostPath"], {"path": str(it.state), "type": "Directory"})
                self.assertLess(int(flags["audit-webhook-truncate-max-event-size"]), 262144)
                # Nothing else has changed, also not in the container beside.
                it.run("restore")
                self.assertEqual(it.manifest.read_text(), manifest)
                self.assertEqual(it.pod(), before)

    def test_nothing_lies_beside_the_manifest(self):
        """The kubelet would run it."""
        with machine() as it:
            it.run("enable")
            self.assertEqual([path.name for path in it.manifest.parent.iterdir()], [it.manifest.name])
            (backup,) = (it.state / "backup").iterdir()
            self.assertEqual(backup.read_text(), KOPS)

    def test_twice_is_as_once(self):
        with machine() as it:
            it.run("enable")
            text, inode = it.manifest.read_text(), it.manifest.stat().st_ino
            said = it.run("enable").stdout
            self.assertIn("unchanged", said)
            self.assertNotIn("written", said)
            self.assertEqual((it.manifest.read_text(), it.manifest.stat().st_ino), (text, inode))
            self.assertEqual(len(list((it.state / "backup").iterdir())), 1)

    def test_another_policy_changes_the_manifest(self):
        """Else the API server would go on with the old one."""
        with machine() as it:
            it.run("enable")
            before = it.manifest.read_text()
            policy = it.folder / "files/audit-policy.yaml"
            policy.write_text(policy.read_text() + "# more\n")
            it.run("enable")
            self.assertNotEqual(it.manifest.read_text(), before)
            self.assertEqual(it.manifest.read_text().count("--audit-policy-file"), 1)

    def test_a_dry_run_shows_and_changes_nothing(self):
        with machine() as it:
            said = it.run("enable", "--dry-run").stdout
            self.assertIn("+    - --audit-policy-file=", said)
            self.assertIn("dry run: nothing was changed", said)
            self.assertEqual(it.manifest.read_text(), KOPS)
            self.assertFalse(it.state.exists())
            it.run("enable")
            text = it.manifest.read_text()
            self.assertIn("-    - --audit-policy-file=", it.run("restore", "--dry-run").stdout)
            self.assertEqual(it.manifest.read_text(), text)

    def test_an_api_server_that_does_not_come_back_gets_its_manifest_back(self):
        with machine() as it:
            it.answer(False)
            ran = it.run("enable", check=False)
            self.assertEqual(ran.returncode, 1)
            self.assertIn("did not answer", ran.stderr)
            self.assertEqual(it.manifest.read_text(), KOPS)
            # Not to nothing, but to what worked before.
            it.answer(True)
            it.run("enable")
            worked = it.manifest.read_text()
            (it.folder / "files/audit-policy.yaml").write_text("broken: true\n")
            it.answer(False)
            self.assertEqual(it.run("enable", check=False).returncode, 1)
            self.assertEqual(it.manifest.read_text(), worked)

    def test_what_others_wrote_is_not_touched(self):
        mine = KOPS.replace("    - --anonymous-auth=false\n", "    - --audit-policy-file=/mine.yaml\n")
        other = KOPS.replace("    name: kube-apiserver\n", "    name: something-else\n")
        for manifest, word in [(mine, "merge them by hand"), (other, "no container kube-apiserver")]:
            with machine(manifest) as it:
                ran = it.run("enable", check=False)
                self.assertNotEqual(ran.returncode, 0)
                self.assertIn(word, ran.stderr)
                self.assertEqual(it.manifest.read_text(), manifest)
        with machine() as it:
            it.run("enable")
            # A later kops adds a flag; restore leaves it.
            before = "    - --allow-privileged"
            it.manifest.write_text(it.manifest.read_text().replace(before, f"    - --new=1\n{before}"))
            it.run("restore")
            self.assertIn("--new=1", it.manifest.read_text())
            self.assertNotIn("audit", it.manifest.read_text().replace("healthcheck", ""))


class Host(unittest.TestCase):
    def test_where_the_machine_is_known_from(self):
        with machine() as it:
            it.run("enable")
            it.run("enable", env={"APISERVER_HOST": "a.example.com b.example.com"})
            it.run("enable", "--host", "c.example.com", "--ssh-user", "admin", env={"APISERVER_HOST": "d"})
            want = ["ubuntu@api.k8s.example.com", "ubuntu@a.example.com", "ubuntu@b.example.com", "admin@c.example.com"]
            self.assertEqual(it.hosts(), want)
        with machine(KUBEADM) as it:
            it.run("enable", platform="minikube")
            self.assertEqual(it.hosts(), ["docker@192.168.49.2"])
            self.assertIn("-i /keys/minikube", it.calls.read_text())

    def test_what_cannot_be_is_refused_with_what_to_write(self):
        for args, word in [
            (["--host", "-oProxyCommand=x"], "no host name"),
            (["--host", "a;b"], "no host name"),
            (["--folder", "relative"], "no absolute path"),
            (["--folder", "/a b"], "no absolute path"),
            (["--wait", "long"], "seconds"),
            (["--what", "ever"], "--help"),
            (["--what"], "--help"),
        ]:
            with self.subTest(args=args), machine() as it:
                ran = it.run("enable", *args, check=False)
                self.assertEqual(ran.returncode, 2, ran.stderr)
                self.assertIn(word, ran.stderr)
                self.assertFalse(it.calls.exists())
        with machine() as it:
            self.assertIn("write kops or minikube", it.run("enable", platform="rke2", check=False).stderr)
            (it.folder / "files/webhook.kubeconfig").unlink()
            self.assertIn("audit-webhook.sh render", it.run("enable", check=False).stderr)

    def test_help(self):
        self.assertIn("APISERVER_HOST", run("bash", ENABLE, "--help").stdout)
        self.assertEqual(run("bash", ENABLE, check=False).returncode, 2)


if __name__ == "__main__":
    unittest.main()
