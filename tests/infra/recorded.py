#!/usr/bin/env python3
"""Holds the EKS policies against the calls that a bridge really made.

Usage: python tests/infra/recorded.py CALLS.jsonl [LOG_GROUP]

Each line is {"action": "logs:FilterLogEvents", "body": {…}}, as the end-to-end test records them.
Sufficient: every call is allowed on both forms of its log group. Minimal: every action that the
policies and bridges/eks/actions.txt name was used.
"""

import json
import sys
from pathlib import Path

import policies
from cloudformation import Template
from kit import ROOT

PLACE = {"partition": "aws", "region": "eu-central-1", "account": "123456789012"}
ISSUER = "https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"


def used_actions():
    """bridges/eks/actions.txt."""
    lines = (ROOT / "bridges/eks/actions.txt").read_text().splitlines()
    return sorted(line for line in lines if line and not line.startswith("#"))


def problems(calls, policy, listed):
    """What is wrong between calls, a policy, and the listed actions; empty when nothing is."""
    found, used = [], set()
    for call in calls:
        action, resources = policies.required(call, **PLACE)
        used.add(action)
        found += [
            f"{action} on {resource} is not allowed"
            for resource in resources
            if not policies.allows(policy, action, resource)
        ]
    for action in policies.actions(policy):
        if action not in used:
            found.append(f"the policy allows {action}, which no call used")
    if sorted(used) != listed:
        found.append(f"bridges/eks/actions.txt lists {listed}, the calls used {sorted(used)}")
    return found


def main(arguments):
    if len(arguments) not in (2, 3):
        return __doc__
    calls = [json.loads(line) for line in Path(arguments[1]).read_text().splitlines() if line]
    group = arguments[2] if len(arguments) == 3 else "/aws/eks/production/cluster"
    template = Template(
        ROOT / "cloudformation/eks-audit-reader.yaml",
        **PLACE,
        ClusterName="production",
        OidcIssuerUrl=ISSUER,
        LogGroupName=group,
    )
    # The module's document is the same: test_eks_identity compares them.
    return "\n".join(problems(calls, template.role()[0], used_actions())) or None


if __name__ == "__main__":
    sys.exit(main(sys.argv))
