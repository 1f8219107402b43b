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


class Template:
    """A template with its parameters given, in one place of AWS."""

    def __init__(self, path, partition="aws", region="eu-central-1", account="123456789012", **given):
        self.document = yaml.load(path.read_text(), _Loader)
        self.values = {
            "AWS::Partition": partition,
            "AWS::Region": region,
            "AWS::AccountId": account,
            "AWS::NoValue": NO_VALUE,
        }
        for name, parameter in self.document["Parameters"].items():
            value = given.pop(name, parameter.get("Default"))
            if value is None:
                raise Refused(f"{name} has no default")
            pattern = parameter.get("AllowedPattern", ".*")
            good = re.fullmatch(pattern.removeprefix("^").removesuffix("$"), value)
            good = good and len(value) <= parameter.get("MaxLength", 4096)
            if not good or value not in parameter.get("AllowedValues", [value]):
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
            return self.values[argument]
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
        if name == "Split":
            return self.get(argument[1]).split(argument[0])
        if name == "Select":
            return self.get(argument[1])[argument[0]]
        raise ValueError(f"the renderer does not know !{name}")

    def resource(self, name):
        """A resource's properties; None when its condition does not hold."""
        resource = self.document["Resources"][name]
        condition = resource.get("Condition")
        if condition and not self.get(self.document["Conditions"][condition]):
            return None
        return {
            key: value if "!GetAtt" in str(value) else self.get(value) for key, value in resource["Properties"].items()
        }

    def role(self):
        """The role's two documents: permissions, trust."""
        role = self.resource("Role")
        return role["Policies"][0]["PolicyDocument"], json.loads(role["AssumeRolePolicyDocument"])
