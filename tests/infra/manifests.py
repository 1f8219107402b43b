"""Renders Kustomize folders, and finds what is in them."""

import functools
from pathlib import Path

import yaml
from kit import ROOT, need, run, scratch

DEPLOY = ROOT / "deploy"


@functools.cache
def build(folder: Path):
    """What `kubectl apply -k` would send, as a list of objects."""
    text = run(need("kubectl"), "kustomize", folder).stdout
    return [item for item in yaml.safe_load_all(text) if item]


@functools.cache
def overlay(bridge, components=(), extra=""):
    """A bridge with components, as a user's own overlay would have it."""
    with scratch() as folder:
        lines = [f"resources: [{_to(folder, DEPLOY / bridge)}]"]
        if components:
            parts = ", ".join(_to(folder, DEPLOY / "components" / name) for name in components)
            lines.append(f"components: [{parts}]")
        (folder / "kustomization.yaml").write_text("\n".join([*lines, extra]))
        return build(folder)


def _to(folder, target):
    """Kustomize takes relative paths only."""
    up = "/".join([".."] * len(folder.relative_to(ROOT).parts))
    return f"{up}/{target.relative_to(ROOT)}"


def one(objects, kind, name=None):
    """The only object of a kind (and name)."""
    found = [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} objects of kind {kind} {name or ''}")
    return found[0]


def kinds(objects):
    return sorted(item["kind"] for item in objects)


def pod(objects):
    return one(objects, "Deployment")["spec"]["template"]


def container(objects):
    (only,) = pod(objects)["spec"]["containers"]
    return only


def environment(objects):
    return {item["name"]: item["value"] for item in container(objects).get("env", [])}
