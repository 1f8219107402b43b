"""What an IAM policy allows: the few rules of AWS's evaluation that our documents use.

moto cannot judge them (its enforcement knows no resources and no web identity), so this can. It
refuses to guess: an element or a condition operator that it does not know is an error.
"""

import fnmatch
import json
import re
import urllib.parse

KNOWN = {"Sid", "Effect", "Action", "Resource", "Principal", "Condition"}


def _list(value):
    return value if isinstance(value, list) else [value]


def _matches(pattern, text, fold=False):
    """AWS's wildcards: * and ? only; brackets are plain characters."""
    if fold:
        pattern, text = pattern.lower(), text.lower()
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


OPERATORS = {"StringEquals": lambda wanted, found: wanted == found, "StringLike": _matches}


def _holds(condition, context):
    for operator, tests in condition.items():
        if operator not in OPERATORS:
            raise ValueError(f"the evaluator does not know {operator}")
        for key, wanted in tests.items():
            found = context.get(key)
            if found is None or not any(OPERATORS[operator](each, found) for each in _list(wanted)):
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


def together(*documents):
    """The policies of one role as one document."""
    return {"Version": "2012-10-17", "Statement": [each for document in documents for each in _statements(document)]}


def allows(document, action, resource, context=None):
    """Whether a permissions policy allows this action on this resource."""
    verdict = False
    for statement in _statements(document):
        hit = (
            any(_matches(pattern, action, fold=True) for pattern in _list(statement["Action"]))
            and any(_matches(pattern, resource) for pattern in _list(statement["Resource"]))
            and _holds(statement.get("Condition", {}), context or {})
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


def required(call, partition, region, account, stream=None):
    """What AWS checks for a recorded call: pairs of an action and a resource, of which each must be allowed.

    A call is {"action": "logs:FilterLogEvents", "body": what was sent}. `stream` is the name or ARN of the one that is
    read, which a page of ListShards and GetRecords need not name: what they carry instead was given for it.
    """
    service, _, operation = call["action"].partition(":")
    arn = f"arn:{partition}:{service}:{region}:{account}"
    if service == "logs":
        return _of_a_log_group(call, arn)
    if service == "kinesis":
        body = call["body"]
        if not (body.get("StreamARN") or body.get("StreamName")) and not {"NextToken", "ShardIterator"} & set(body):
            raise ValueError(f"{operation} without a stream: it would need all of them")
        name = body.get("StreamARN") or body.get("StreamName") or stream
        return [(call["action"], name if name.startswith("arn:") else f"{arn}:stream/{name}")]
    if call["action"] == "sts:AssumeRole":
        return [(call["action"], urllib.parse.unquote(call["body"]["RoleArn"]))]
    if call["action"] == "sts:AssumeRoleWithWebIdentity":
        # Nobody signs it: the trust decides.
        return []
    raise ValueError(f"a call of {call['action']}, which no policy of ours grants")


def _of_a_log_group(call, place):
    """AWS documents the log group as FilterLogEvents' resource and has been seen to check two forms of it."""
    body = call["body"]
    name = body.get("logGroupIdentifier") or body.get("logGroupName")
    if not name:
        raise ValueError(f"{call['action']} without a log group: it would need all of them")
    arn = name.removesuffix(":*") if name.startswith("arn:") else f"{place}:log-group:{name}"
    needed = [call["action"], *(["logs:Unmask"] if body.get("unmask") else [])]
    return [(action, resource) for action in needed for resource in [arn, f"{arn}:log-stream:"]]


def render(template, values):
    """A Terraform template of ours: ${name} and ${jsonencode(name)} only."""

    def value(match):
        encoded, name = match.groups()
        return json.dumps(values[name]) if encoded else values[name]

    text = re.sub(r"\$\{(jsonencode\()?(\w+)(?(1)\))\}", value, template)
    if "${" in text or "%{" in text:
        raise ValueError(f"the template has logic that this does not know: {text}")
    return json.loads(text)
