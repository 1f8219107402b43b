"""What an IAM policy allows: the few rules of AWS's evaluation that our documents use.

moto cannot judge them (its enforcement knows no resources and no web identity), so this can. It
refuses to guess: an element or a condition operator that it does not know is an error.
"""

import fnmatch
import json
import re

KNOWN = {"Sid", "Effect", "Action", "Resource", "Principal", "Condition"}


def _list(value):
    return value if isinstance(value, list) else [value]


def _matches(pattern, text, fold=False):
    """AWS's wildcards: * and ? only; brackets are plain characters."""
    if fold:
        pattern, text = pattern.lower(), text.lower()
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def _holds(condition, context):
    for operator, tests in condition.items():
        if operator != "StringEquals":
            raise ValueError(f"the evaluator does not know {operator}")
        for key, wanted in tests.items():
            if context.get(key) not in _list(wanted):
                return False
    return True


def _statements(document):
    if document["Version"] != "2012-10-17":
        raise ValueError("policy variables and everything else here need version 2012-10-17")
    for statement in _list(document["Statement"]):
        unknown = set(statement) - KNOWN
        if unknown:
            raise ValueError(f"the evaluator does not know {unknown}")
        yield statement


def allows(document, action, resource):
    """Whether a permissions policy allows this action on this resource."""
    verdict = False
    for statement in _statements(document):
        hit = (
            any(_matches(pattern, action, fold=True) for pattern in _list(statement["Action"]))
            and any(_matches(pattern, resource) for pattern in _list(statement["Resource"]))
            and _holds(statement.get("Condition", {}), {})
        )
        if hit and statement["Effect"] == "Deny":
            return False
        verdict = verdict or hit
    return verdict


def trusts(document, principal, action, context):
    """Whether a trust policy lets this principal, e.g. {"Service": "…"}, assume the role."""
    verdict = False
    for statement in _statements(document):
        hit = (
            any(action.lower() == known.lower() for known in _list(statement["Action"]))
            and all(value in _list(statement["Principal"].get(kind, [])) for kind, value in principal.items())
            and _holds(statement.get("Condition", {}), context)
        )
        if hit and statement["Effect"] == "Deny":
            return False
        verdict = verdict or hit
    return verdict


def actions(document):
    """Every action that a policy names."""
    return sorted({action for statement in _statements(document) for action in _list(statement["Action"])})


def required(call, partition, region, account):
    """What AWS checks for a recorded call: (action, resources), of which each must be allowed.

    A call is {"action": "logs:FilterLogEvents", "body": the JSON that was sent}. AWS documents the
    log group as FilterLogEvents' resource and has been seen to check two forms of it.
    """
    service, _, operation = call["action"].partition(":")
    if service != "logs":
        raise ValueError(f"a call to {service}, which no policy of ours grants")
    name = call["body"].get("logGroupName") or call["body"].get("logGroupIdentifier", "").split(":log-group:")[-1]
    if not name:
        raise ValueError(f"{operation} without a log group: it would need all of them")
    arn = f"arn:{partition}:logs:{region}:{account}:log-group:{name}"
    return call["action"], [arn, f"{arn}:log-stream:"]


def render(template, values):
    """A Terraform template of ours: ${name} and ${jsonencode(name)} only."""

    def value(match):
        encoded, name = match.groups()
        return json.dumps(values[name]) if encoded else values[name]

    text = re.sub(r"\$\{(jsonencode\()?(\w+)(?(1)\))\}", value, template)
    if "${" in text or "%{" in text:
        raise ValueError(f"the template has logic that this does not know: {text}")
    return json.loads(text)
