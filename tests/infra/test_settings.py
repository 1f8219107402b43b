"""The bridges themselves read what the chart gives them.

Needs the built binaries: BRIDGES_FOLDER says where they are (cargo's test gives it). One setting is
made wrong on purpose: a bridge names every wrong setting at once and ends before it does anything, so
when it names that one only, it takes all the others.
"""

import os
import re
import unittest
from pathlib import Path

import yaml
from chart import CHART, DEPLOY, container, environment, flags, merged, one, pod, render
from kit import BRIDGES, ROOT, run, scratch

# Every value that becomes a flag, for the flags that all bridges have and for each one's own.
SECRETS = {
    "webhook": {
        "url": "https://receiver.example.com/",
        "timeout": "5s",
        "ca": {"secretName": "webhook-ca"},
        "token": {"secretName": "webhook-token"},
        "clientCertificate": {"secretName": "webhook-client"},
    },
    "settings": {"batch-wait-max": "2s", "annotate": "cluster=production", "start": "-1h", "in-flight-batches-max": 2},
}
CASES = {
    "eks": [
        {"replicas": 2},
        {"eks": {"clusterNames": ["a", "b"], "logGroups": ["/a", "/b"]}, "settings": {"annotate-cluster": True}},
        {"replicas": 2, "eks": {"clusterNames": [], "stream": "audit"}},
        {"replicas": 3, "eks": {"clusterNames": ["111122223333/a"], "stream": "audit", "sharePartitions": True}},
    ],
    "gke": [
        {"replicas": 2, "gke": {"projectId": "my-project", "clusterName": "*", "location": "europe-west3"}},
        {
            "gke": {"projectId": "*", "resourceNames": ["folders/42/locations/global/buckets/b/views/v", "projects/p"]},
            "settings": {"annotate-cluster": True},
        },
        {"replicas": 2, "gke": {"resourceNames": [], "subscription": "projects/my-project/subscriptions/audit"}},
        {"gke": {"includeDataAccess": True, "resourceNames": []}, "settings": {"requests-per-minute": 20, "poll-interval": "10s"}},
    ],
    "aks": [
        {"replicas": 2, "aks": {"clusterNames": ["a", "b"], "categories": ["kube-audit"]}},
        {"replicas": 3, "aks": {"sharePartitions": True}},
        {"aks": {"clientId": "", "connectionString": {"secretName": "s"}}},
    ],
}
# As `az` prints it for a rule of the hub.
CONNECTION = (
    "Endpoint=sb://my-namespace.servicebus.windows.net/;SharedAccessKeyName=audit-bridge;"
    "SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=;EntityPath=insights-logs-kube-audit"
)


def binaries():
    folder = os.environ.get("BRIDGES_FOLDER")
    if not folder:
        raise unittest.SkipTest("BRIDGES_FOLDER does not say where the binaries are")
    return Path(folder).resolve()


def problems(bridge, objects, command="run"):
    """The settings that the bridge finds wrong, as its flags; its files are there, in a folder of ours."""
    given = {**environment(objects), "AUDIT_BRIDGE_WEBHOOK_URL": "ftp://a"}
    (check,) = one(objects, "Pod")["spec"]["containers"]
    args = (container(objects) if command == "run" else check)["args"]
    with scratch() as folder:
        for mount in container(objects)["volumeMounts"]:
            (volume,) = [v for v in pod(objects)["spec"]["volumes"] if v["name"] == mount["name"]]
            for item in volume.get("secret", {}).get("items", []):
                path = folder / mount["mountPath"].strip("/") / item["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_content(item["path"]))
        given = {key: str(folder) + value if value.startswith("/etc/") else value for key, value in given.items()}
        run_it = ["env", "-i", *[f"{key}={value}" for key, value in given.items()]]
        ran = run(*run_it, binaries() / f"{bridge}-audit-bridge", *args, check=False, timeout=60)
    if ran.returncode != 2:
        raise AssertionError(f"{bridge} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    return sorted(word for line in ran.stderr.splitlines() for word in line.split()[:1] if word.startswith("--"))


def _content(name):
    if name == "connection-string":
        return CONNECTION
    if name == "token":
        return "token"
    kind = "PRIVATE KEY" if name.endswith(".key") else "CERTIFICATE"
    return f"-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n"


class Settings(unittest.TestCase):
    def test_the_examples_are_accepted(self):
        for bridge in BRIDGES:
            for command in ["run", "check"]:
                with self.subTest(bridge=bridge, command=command):
                    self.assertEqual(problems(bridge, render(bridge), command), ["--webhook-url"])

    def test_every_value_becomes_a_flag_that_is_accepted(self):
        for bridge in BRIDGES:
            for changes in [SECRETS, *CASES[bridge]]:
                with self.subTest(bridge=bridge, changes=changes):
                    self.assertEqual(problems(bridge, render(bridge, changes)), ["--webhook-url"])

    def test_every_flag_that_the_chart_sets_exists(self):
        """A variable that no flag reads would be ignored in silence."""
        for bridge in BRIDGES:
            known = {f"AUDIT_BRIDGE_{flag.upper().replace('-', '_')}" for flag in self._flags(bridge)}
            for changes in [SECRETS, *[merged(SECRETS, case) for case in CASES[bridge]]]:
                names = {name for name in environment(render(bridge, changes)) if name.startswith("AUDIT_BRIDGE_")}
                self.assertEqual(names - known, set(), bridge)

    def test_the_job_replays_every_file_once(self):
        """Its arguments, run by the real binary for every index."""
        job = yaml.safe_load((DEPLOY / "examples/replay-job.yaml").read_text())["spec"]
        (only,) = job["template"]["spec"]["containers"]
        dump = (ROOT / "bridges/eks/fixtures/filter-log-events.json").read_text()
        whole = run(binaries() / "eks-audit-bridge", "replay", "-", "--format", "events", stdin=dump).stdout
        with scratch() as folder:
            for path in ["dumps", "state"]:
                (folder / path).mkdir()
            for number in range(20):
                (folder / f"dumps/{number:02}.json").write_text(dump)
            events = ""
            for index in range(job["completions"]):
                args = [arg.replace("$(JOB_COMPLETION_INDEX)", str(index)) for arg in only["args"]]
                args = [re.sub(r"(?<![\w/])/(dumps|state)", rf"{folder}/\1", arg) for arg in args]
                args = ["--output=-" if arg.startswith("--webhook-url=") else arg for arg in args] + ["--format=events"]
                env = {"JOB_COMPLETION_INDEX": str(index)}
                events += run(binaries() / "eks-audit-bridge", *args, env=env).stdout
                # A pod that is made anew has nothing left to do.
                self.assertEqual(run(binaries() / "eks-audit-bridge", *args, env=env).stdout, "")
            self.assertEqual(sorted(events.splitlines()), sorted(whole.splitlines() * 20))

    def _flags(self, bridge):
        said = run(binaries() / f"{bridge}-audit-bridge", "run", "--help").stdout
        return [word.removeprefix("--") for word in said.split() if word.startswith("--")]

    def test_the_chart_knows_every_flag(self):
        text = (CHART / "files/flags.yaml").read_text()
        say = "run: BRIDGES_FOLDER=target/debug python3 tests/infra/chart.py"
        self.assertEqual(text, flags(binaries()), say)


if __name__ == "__main__":
    unittest.main()
