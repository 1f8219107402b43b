"""Renders the Helm chart, and finds what is in it.

    python3 tests/infra/chart.py      # writes what is made from it: deploy/examples/*.yaml, its README,
                                      # and with BRIDGES_FOLDER=target/debug the list of flags
"""

import copy
import functools
import json
import os
import re
import shutil
from pathlib import Path

import yaml
from kit import BRIDGES, ROOT, run, scratch
from tools import go_tool

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm/audit-bridge"
NAMESPACE = "audit-bridge"
# The oldest version that the pages promise, and the newest known here.
VERSIONS = ("1.27", "1.37")


class Refused(Exception):
    """The chart does not take these values; the text is what Helm says."""


def example(bridge):
    """The values that the page of a cloud tells to copy."""
    return yaml.safe_load((DEPLOY / f"examples/{bridge}-values.yaml").read_text())


def merged(values, changes):
    """As Helm merges a second file with values: maps key by key, all else replaced."""
    result = copy.deepcopy(values)
    for key, value in changes.items():
        inside = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if inside else value
    return result


@functools.cache
def _render(release, namespace, values, hooks):
    command = ["template", release, CHART, "--namespace", namespace, "--values", "-"]
    command += ["--kube-version", f"{VERSIONS[0]}.0", *([] if hooks else ["--no-hooks"])]
    ran = run(go_tool("helm"), *command, stdin=values, check=False)
    if ran.returncode != 0:
        raise Refused(ran.stderr)
    return ran.stdout


def text(values, release, namespace=NAMESPACE, hooks=True):
    """What `helm template` prints; without hooks, what `kubectl apply` should get."""
    return _render(release, namespace, json.dumps(values), hooks)


def render(bridge, changes=None, release=None, namespace=NAMESPACE):
    """The objects of a cloud's example with these changes, `helm test`'s pod among them.

    Everybody gets the same ones: who changes them takes a copy.
    """
    values = merged(example(bridge), changes or {})
    return _objects(text(values, release or f"{bridge}-audit-bridge", namespace))


@functools.cache
def _objects(printed):
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [item for item in yaml.load_all(printed, loader) if item]


def refusal(values, release="eks-audit-bridge"):
    """What is said of values that are not taken."""
    try:
        text(values, release)
    except Refused as refused:
        return str(refused)
    raise AssertionError(f"taken: {values}")


def one(objects, kind, name=None):
    """The only object of a kind (and name)."""
    found = [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} objects of kind {kind} {name or ''}")
    return found[0]


def kinds(objects):
    """Without `helm test`'s pod."""
    return sorted(item["kind"] for item in objects if item["kind"] != "Pod")


def pod(objects):
    return one(objects, "Deployment")["spec"]["template"]


def container(objects):
    (only,) = pod(objects)["spec"]["containers"]
    return only


def environment(objects):
    return {item["name"]: item.get("value") for item in container(objects).get("env", [])}


def rendered_example(bridge):
    """deploy/examples/<bridge>.yaml as it should be."""
    release = f"{bridge}-audit-bridge"
    command = (
        f"helm template {release} deploy/helm/audit-bridge --no-hooks --namespace {NAMESPACE} \\\n"
        f"#   --values deploy/examples/{bridge}-values.yaml"
    )
    head = f"# What the chart makes of {bridge}-values.yaml, to be read. Made by\n#   {command}\n"
    return head + text(example(bridge), release, hooks=False)


def table():
    """The chart's README as it should be."""
    with scratch() as folder:
        copied = folder / "audit-bridge"
        shutil.copytree(CHART, copied)
        options = ["--chart-search-root", copied, "--sort-values-order", "file", "--log-level", "warning"]
        run(go_tool("helm-docs"), *options, cwd=folder)
        return (copied / "README.md").read_text()


def flags(folder):
    """files/flags.yaml as it should be: what the built bridges say of themselves."""
    known = {}
    for bridge in BRIDGES:
        said = run(Path(folder).resolve() / f"{bridge}-audit-bridge", "run", "--help").stdout
        known[bridge] = sorted(re.findall(r"^ +--([a-z0-9-]+)", said, re.M))
    head = "# The flags of `<bridge> run`, so that a misspelt one is refused. Made by tests/infra/chart.py.\n"
    return head + yaml.safe_dump(known)


if __name__ == "__main__":
    if folder := os.environ.get("BRIDGES_FOLDER"):
        (CHART / "files/flags.yaml").write_text(flags(folder))
    for each in BRIDGES:
        (DEPLOY / f"examples/{each}.yaml").write_text(rendered_example(each))
    (CHART / "README.md").write_text(table())
