"""The bridges themselves read the settings of the manifests.

Needs the built binaries: BRIDGES_FOLDER says where they are (cargo's test gives it). One setting is
made wrong on purpose: a bridge names every wrong setting at once and ends before it does anything, so
when it names that one only, it takes all the others.
"""

import os
import unittest
from pathlib import Path

from kit import BRIDGES, run, scratch
from manifests import DEPLOY, build, container, environment, one, overlay

COMPONENTS = {
    "eks": ("high-availability",),
    "gke": ("high-availability",),
    "aks": ("share-partitions", "connection-string"),
}
# As `az` prints it for a rule of the hub.
CONNECTION = (
    "Endpoint=sb://{AUDIT_BRIDGE_EVENT_HUB_NAMESPACE}/;SharedAccessKeyName=audit-bridge;"
    "SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=;EntityPath={AUDIT_BRIDGE_EVENT_HUB}"
)


def settings(objects):
    (source,) = container(objects)["envFrom"]
    return {**one(objects, "ConfigMap", source["configMapRef"]["name"])["data"], **environment(objects)}


def problems(bridge, objects, **more):
    """The settings that `run` finds wrong, as its flags."""
    folder = os.environ.get("BRIDGES_FOLDER")
    if not folder:
        raise unittest.SkipTest("BRIDGES_FOLDER does not say where the binaries are")
    given = {**settings(objects), **more}
    command = [Path(folder) / f"{bridge}-audit-bridge", *container(objects)["args"]]
    ran = run("env", "-i", *[f"{key}={value}" for key, value in given.items()], *command, check=False, timeout=60)
    if ran.returncode != 2:
        raise AssertionError(f"{bridge} ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    return sorted(word for line in ran.stderr.splitlines() for word in line.split()[:1] if word.startswith("--"))


class Settings(unittest.TestCase):
    def test_the_examples_are_accepted(self):
        for bridge in BRIDGES:
            with self.subTest(bridge=bridge):
                objects = build(DEPLOY / "examples" / bridge)
                self.assertEqual(problems(bridge, objects, AUDIT_BRIDGE_WEBHOOK_URL="ftp://a"), ["--webhook-url"])

    def test_the_components_are_accepted(self):
        for bridge in BRIDGES:
            with self.subTest(bridge=bridge):
                objects = overlay(bridge, COMPONENTS[bridge])
                example = settings(build(DEPLOY / "examples" / bridge))
                given = {**example, **environment(objects), "AUDIT_BRIDGE_WEBHOOK_URL": "ftp://a"}
                with scratch() as folder:
                    if "AUDIT_BRIDGE_CONNECTION_STRING_FILE" in given:
                        mounted = folder / "connection-string"
                        mounted.write_text(CONNECTION.format(**example))
                        given["AUDIT_BRIDGE_CONNECTION_STRING_FILE"] = str(mounted)
                    self.assertEqual(problems(bridge, objects, **given), ["--webhook-url"])

    def test_an_unfilled_base_says_what_is_missing(self):
        missing = {"eks": ["--cluster-name"], "gke": [], "aks": ["--event-hub-namespace"]}
        for bridge in BRIDGES:
            with self.subTest(bridge=bridge):
                found = problems(bridge, build(DEPLOY / bridge))
                for flag in [*missing[bridge], "--webhook-url"]:
                    self.assertIn(flag, found)


if __name__ == "__main__":
    unittest.main()
