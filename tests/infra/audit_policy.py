"""Which level an audit Policy gives a request: the API server's rules, and its validation."""

import yaml
from kit import ROOT

LEVELS = ["None", "Metadata", "Request", "RequestResponse"]
STAGES = {"RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"}
RULE = {
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
}


def policy():
    """The recommended one."""
    return yaml.safe_load((ROOT / "deploy/control-plane/audit-policy.yaml").read_text())


def problems(policy):
    """What the API server would refuse at its start, or silently never match."""
    found = []
    if (policy.get("apiVersion"), policy.get("kind")) != ("audit.k8s.io/v1", "Policy"):
        found.append("it is no audit.k8s.io/v1 Policy")
    if set(policy) - {"apiVersion", "kind", "metadata", "omitStages", "omitManagedFields", "rules"}:
        found.append("an unknown field")
    if set(policy.get("omitStages", [])) - STAGES:
        found.append("an unknown stage")
    if not policy.get("rules"):
        found.append("no rules: nothing would be logged")
    for number, rule in enumerate(policy.get("rules", []), 1):
        at = f"rule {number}: "
        if set(rule) - RULE:
            found.append(at + f"unknown {set(rule) - RULE}")
        if rule.get("level") not in LEVELS:
            found.append(at + "no level")
        if rule.get("nonResourceURLs") and (rule.get("resources") or rule.get("namespaces")):
            found.append(at + "resources and nonResourceURLs exclude each other")
        for url in rule.get("nonResourceURLs", []):
            if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
                found.append(at + f"{url} must begin with / and may end with *")
        for resource in rule.get("resources", []):
            if "/" in resource.get("group", ""):
                found.append(at + f"{resource['group']} must be a group without its version")
            if set(resource) - {"group", "resources", "resourceNames"}:
                found.append(at + "an unknown field of a resource")
    return found


def level(policy, request):
    """The level of the first rule that matches; None, when no rule does.

    A request has user, groups, verb, and either path, or group and resource (with its subresource).
    """
    for rule in policy["rules"]:
        if _matches(rule, request):
            return rule["level"]
    return "None"


def _matches(rule, request):
    if rule.get("users") and request["user"] not in rule["users"]:
        return False
    if rule.get("userGroups") and not set(rule["userGroups"]) & set(request["groups"]):
        return False
    if rule.get("verbs") and request["verb"] not in rule["verbs"]:
        return False
    if rule.get("resources") or rule.get("namespaces"):
        return "resource" in request and _resource(rule, request)
    if rule.get("nonResourceURLs"):
        return "path" in request and any(_path(pattern, request["path"]) for pattern in rule["nonResourceURLs"])
    return True


def _path(pattern, path):
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def _resource(rule, request):
    if rule.get("namespaces") and request.get("namespace", "") not in rule["namespaces"]:
        return False
    name, _, subresource = request["resource"].partition("/")
    for known in rule.get("resources") or [{"group": request["group"]}]:
        if known.get("group", "") != request["group"]:
            continue
        if not known.get("resources"):
            return True
        for pattern in known["resources"]:
            if pattern in ("*", request["resource"]):
                return True
            if subresource and pattern in (f"*/{subresource}", f"{name}/*"):
                return True
    return False
