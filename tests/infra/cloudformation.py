"""Renders a CloudFormation template, and refuses parameters as CloudFormation does.

moto checks neither patterns nor rules and knows one partition only. This evaluates the intrinsic
functions that our template uses and fails on any other.
"""

import json
import re

import yaml


class Refused(Exception):
    """CloudFormation would refuse these parameters, with these words."""


class _Loader(yaml.SafeLoader):
    pass


def _tag(loader, suffix, node):
    kind = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence}
    construct = kind.get(type(node), loader.construct_mapping)
    value = construct(node) if isinstance(node, yaml.ScalarNode) else construct(node, deep=True)
    return {f"!{suffix}": value}


_Loader.add_multi_constructor("!", _tag)
NO_VALUE = object()


def _takes(parameter, value):
    """Whether a parameter takes this value, which is a string as all values of parameters are."""
    if parameter["Type"] == "Number":
        number = re.fullmatch(r"[0-9]+", value)
        return bool(number) and parameter["MinValue"] <= int(value) <= parameter["MaxValue"]
    pattern = parameter.get("AllowedPattern", ".*")
    return (
        bool(re.fullmatch(pattern.removeprefix("^").removesuffix("$"), value))
        and parameter.get("MinLength", 0) <= len(value) <= parameter.get("MaxLength", 4096)
        and value in parameter.get("AllowedValues", [value])
    )


class Template:
    """A template with its parameters given, in one place of AWS."""

    def __init__(self, path, partition="aws", region="eu-central-1", account="123456789012", **given):
        self.document = yaml.load(path.read_text(), _Loader)
        self.values = {
            "AWS::Partition": partition,
            "AWS::Region": region,
            "AWS::AccountId": account,
            "AWS::URLSuffix": "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com",
            "AWS::NoValue": NO_VALUE,
        }
        for name, parameter in self.document["Parameters"].items():
            value = given.pop(name, parameter.get("Default"))
            if value is None:
                raise Refused(f"{name} has no default")
            value = str(value)
            if not _takes(parameter, value):
                raise Refused(f"{name} {parameter.get('ConstraintDescription', '')}")
            self.values[name] = value
        if given:
            raise Refused(f"no such parameter: {given}")
        for rule in self.document.get("Rules", {}).values():
            if self.get(rule["RuleCondition"]):
                for assertion in rule["Assertions"]:
                    if not self.get(assertion["Assert"]):
                        raise Refused(assertion["AssertDescription"])

    def get(self, value):
        """The value with all functions evaluated."""
        if isinstance(value, list):
            return [item for item in map(self.get, value) if item is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1 and next(iter(value)).startswith("!"):
            name, argument = next(iter(value.items()))
            return self._call(name[1:], argument)
        pairs = {key: self.get(item) for key, item in value.items()}
        return {key: item for key, item in pairs.items() if item is not NO_VALUE}

    def _call(self, name, argument):
        if name == "Ref":
            return argument if argument in self.document["Resources"] else self.values[argument]
        if name == "Sub":
            text, names = (argument, {}) if isinstance(argument, str) else argument
            names = {**self.values, **{key: self.get(item) for key, item in names.items()}}
            return re.sub(r"\$\{([\w:.]+)\}", lambda match: names[match[1]], text)
        if name == "If":
            return self.get(argument[1 if self.get(self.document["Conditions"][argument[0]]) else 2])
        if name == "Equals":
            return self.get(argument[0]) == self.get(argument[1])
        if name == "Not":
            return not self.get(argument[0])
        if name in ("And", "Or"):
            return (all if name == "And" else any)([self._condition(item) for item in argument])
        if name == "GetAtt":
            return self._attribute(*argument.split("."))
        if name == "Split":
            return self.get(argument[1]).split(argument[0])
        if name == "Select":
            return self.get(argument[1])[argument[0]]
        raise ValueError(f"the renderer does not know !{name}")

    def _condition(self, item):
        """A condition within another: its function, or its name."""
        named = isinstance(item, dict) and item.get("Condition")
        return self.get(self.document["Conditions"][named] if named else item)

    def _attribute(self, resource, attribute):
        """A stream's ARN follows from its name; what AWS makes up stays as it is written."""
        if self.document["Resources"][resource]["Type"] == "AWS::Kinesis::Stream" and attribute == "Arn":
            place = ":".join(self.values[f"AWS::{part}"] for part in ["Region", "AccountId"])
            return f"arn:{self.values['AWS::Partition']}:kinesis:{place}:stream/{self.resource(resource)['Name']}"
        return f"{resource}.{attribute}"

    def resource(self, name):
        """A resource's properties; None when its condition does not hold."""
        resource = self.document["Resources"][name]
        condition = resource.get("Condition")
        if condition and not self.get(self.document["Conditions"][condition]):
            return None
        return self.get(resource["Properties"])

    def policies(self, name="Role"):
        """The permissions of a role, by the policies' names: its own, and those that are put on it."""
        resources = self.document["Resources"].items()
        put = [self.resource(each) for each, its in resources if its["Type"] == "AWS::IAM::Policy"]
        put = [policy for policy in put if policy and policy["Roles"] == [name]]
        found = [*self.resource(name).get("Policies", []), *put]
        return {policy["PolicyName"]: policy["PolicyDocument"] for policy in found}

    def trust(self, name="Role"):
        """Who may assume a role."""
        trust = self.resource(name)["AssumeRolePolicyDocument"]
        return json.loads(trust) if isinstance(trust, str) else trust

    def role(self):
        """The role's two documents: permissions on the log group, trust."""
        return self.policies()["read-audit-log"], self.trust()
