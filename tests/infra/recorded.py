#!/usr/bin/env python3
"""Holds the EKS policies against the calls that a bridge really made.

Each line of CALLS is {"action": "logs:FilterLogEvents", "body": {…}}, as the end-to-end tests record them. The
options are those that the bridge ran with. Sufficient: every call is allowed on what it names, a log group in both of
its forms. Minimal: every action that the policies and bridges/eks/actions.txt have for these options was used.
"""

import argparse
import json
import sys
from pathlib import Path

import policies
from cloudformation import Template
from kit import ROOT

PLACE = {"partition": "aws", "region": "eu-central-1", "account": "123456789012"}
ISSUER = "https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"


def known_actions():
    """bridges/eks/actions.txt: the words of each line."""
    lines = (ROOT / "bridges/eks/actions.txt").read_text().splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def used_actions(*options, reads_group=True, implied=False):
    """What the bridge calls with these options; with `implied`, also what others do on its behalf."""
    return sorted(
        action
        for action, *needs in known_actions()
        if (needs[0] in options if needs else reads_group) and (implied or "implied" not in needs)
    )


def problems(calls, policy, listed, place=PLACE, stream=None):
    """What is wrong between calls, a policy, and the listed actions; empty when nothing is."""
    found, used = [], set()
    for call in calls:
        for action, resource in policies.required(call, **place, stream=stream):
            used.add(action)
            if not policies.allows(policy, action, resource):
                found.append(f"{action} on {resource} is not allowed")
    for action in policies.actions(policy):
        if action not in used:
            found.append(f"the policy allows {action}, which no call used")
    if sorted(used) != listed:
        found.append(f"bridges/eks/actions.txt lists {listed}, the calls used {sorted(used)}")
    return found


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls", type=Path, metavar="CALLS")
    parser.add_argument("group", nargs="?", default="/aws/eks/production/cluster", metavar="LOG_GROUP")
    parser.add_argument("--stream", default="", help="name of the stream; the log group is then not read")
    parser.add_argument("--catch-up", action="store_true", help="with --stream: the log group is read too")
    parser.add_argument("--role-arn", action="append", default=[], help="a role that was assumed; may be repeated")
    parser.add_argument("--unmask", action="store_true")
    parser.add_argument("--account-role", action="store_true", help="made by the role of another account")
    return parser.parse_args(words)


def own_policy(given):
    """What the role of the bridge allows."""
    template = Template(
        ROOT / "cloudformation/eks-audit-reader.yaml",
        **PLACE,
        ClusterName="production",
        OidcIssuerUrl=ISSUER,
        LogGroupName=given.group,
        ReadLogGroup="true" if given.catch_up or not given.stream else "false",
        StreamName=given.stream,
        Unmask="true" if given.unmask else "false",
        AssumeRoleArns=",".join(given.role_arn),
    )
    return policies.together(*template.policies().values())


def account_policy(given):
    """What the role of the other account allows, of which LOG_GROUP is an ARN."""
    _, partition, _, region, account, _, group = given.group.split(":")
    template = Template(
        ROOT / "cloudformation/eks-audit-account.yaml",
        partition=partition,
        region=region,
        account=account,
        ClusterName="production",
        LogGroupName=group,
        BridgeRoleArn=f"arn:aws:iam::{PLACE['account']}:role/bridge",
        ExternalId="ours",
        Unmask="true" if given.unmask else "false",
    )
    return template.policies()["read-audit-log"]


def main(words):
    given = arguments(words)
    calls = [json.loads(line) for line in given.calls.read_text().splitlines() if line]
    options = [
        option
        for option, used in [("--stream", given.stream), ("--role-arn", given.role_arn), ("--unmask", given.unmask)]
        if used
    ]
    # The module's documents are the same: test_eks_identity and test_eks_stream compare them.
    policy = account_policy(given) if given.account_role else own_policy(given)
    listed = used_actions(*options, reads_group=given.account_role or given.catch_up or not given.stream)
    return "\n".join(problems(calls, policy, listed, stream=given.stream)) or None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
