"""EKS beyond one reader: the stream, its writer and reader, and the roles of other accounts, the same in both recipes.

What happens on the way is done in moto: events put into a log group, by the filter into the stream, and read with
the calls that the role allows.
"""

import contextlib
import gzip
import json
import re
import tempfile
import time
import unittest
from pathlib import Path

import boto3
import policies
import recorded
import yaml
from chart import environment, merged, render
from cloudformation import Refused, Template
from kit import ROOT, Terraform, moto, scratch
from recorded import ISSUER, used_actions

FOLDER = ROOT / "cloudformation"
ACCOUNT, MEMBER, STRANGER = "123456789012", "444455556666", "666666666666"
# The partition, a region, and the end of the services' names.
PLACES = [
    ("aws", "eu-central-1", "amazonaws.com"),
    ("aws-cn", "cn-north-1", "amazonaws.com.cn"),
    ("aws-us-gov", "us-gov-west-1", "amazonaws.com"),
]
GROUP = "/aws/eks/production/cluster"
STREAM = "eks-audit-production"
ROLES = ["arn:aws:iam::444455556666:role/eks-audit-reader", "arn:aws:iam::777788889999:role/readers/audit"]
AUDIT = "kube-apiserver-audit-0a1b2c3d"


def key(partition="aws", region="eu-central-1"):
    return f"arn:{partition}:kms:{region}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def stream(partition="aws", region="eu-central-1", name=STREAM):
    return f"arn:{partition}:kinesis:{region}:{ACCOUNT}:stream/{name}"


def reader(partition="aws", region="eu-central-1", **given):
    """The bridge's template, with its parameters."""
    if given.get("Identity") != "pod-identity":
        given["OidcIssuerUrl"] = ISSUER
    return Template(
        FOLDER / "eks-audit-reader.yaml",
        partition=partition,
        region=region,
        account=ACCOUNT,
        ClusterName="production",
        **given,
    )


def other(name, **given):
    """One of the templates for several accounts, with the parameters that it must have."""
    needed = {
        "account": {
            "ClusterName": "far",
            "BridgeRoleArn": f"arn:aws:iam::{ACCOUNT}:role/bridge",
            "ExternalId": "audit-bridge",
        },
        "destination": {"StreamName": STREAM, "MemberAccount": MEMBER},
        "member": {
            "ClusterName": "far",
            "DestinationArn": f"arn:aws:logs:eu-central-1:{ACCOUNT}:destination:audit-bridge-{MEMBER}",
        },
    }[name]
    account = ACCOUNT if name == "destination" else MEMBER
    return Template(FOLDER / f"eks-audit-{name}.yaml", account=account, **{**needed, **given})


def of_the_module(name, **values):
    """A document of the Terraform module, of values as its files give them."""
    return policies.render((ROOT / f"terraform/eks/policies/{name}.json.tftpl").read_text(), values)


def calls_of_a_reader(name, *left_out):
    """What a reader of a stream calls."""
    calls = [
        ("DescribeStreamSummary", {"StreamName": name}),
        ("ListShards", {"StreamName": name}),
        ("ListShards", {"NextToken": "t"}),
        ("GetShardIterator", {"StreamName": name, "ShardId": "shardId-0", "ShardIteratorType": "TRIM_HORIZON"}),
        ("GetRecords", {"ShardIterator": "i"}),
    ]
    return [{"action": f"kinesis:{call}", "body": body} for call, body in calls if call not in left_out]


class SameInBoth(unittest.TestCase):
    def test_stream_policies_of_template_and_module_are_equal(self):
        for partition, region, suffix in PLACES:
            with self.subTest(partition=partition):
                made = {"partition": partition, "region": region}
                template = reader(**made, CreateStream="true", StreamKmsKeyArn=key(**made))
                of_key = {"key_arn": key(**made), "stream_arn": stream(**made)}
                bridge, writer = template.policies(), template.policies("Writer")
                self.assertEqual(bridge["read-stream"], of_the_module("read-stream", stream_arn=stream(**made)))
                self.assertEqual(bridge["decrypt-stream"], of_the_module("key", action="kms:Decrypt", **of_key))
                self.assertEqual(writer["write-stream"], of_the_module("write-stream", stream_arn=stream(**made)))
                self.assertEqual(writer["encrypt-stream"], of_the_module("key", action="kms:GenerateDataKey", **of_key))
                trust = of_the_module("trust-logs", account_id=ACCOUNT, dns_suffix=suffix, **made)
                self.assertEqual(template.trust("Writer"), trust)

    def test_reading_policies_of_template_and_module_are_equal(self):
        arn = f"arn:aws:logs:eu-central-1:{ACCOUNT}:log-group:{GROUP}"
        unmasked = {"actions": ["logs:FilterLogEvents", "logs:Unmask"], "log_group_arns": [arn, f"{arn}:*"]}
        self.assertEqual(reader(Unmask="true").role()[0], of_the_module("read", **unmasked))
        for identity, actions in [("irsa", ["sts:AssumeRole"]), ("pod-identity", ["sts:AssumeRole", "sts:TagSession"])]:
            assume = reader(Identity=identity, AssumeRoleArns=",".join(ROLES)).policies()["assume-readers"]
            self.assertEqual(assume, of_the_module("assume", actions=actions, role_arns=ROLES))

    def test_defaults_grant_what_they_granted_before(self):
        template = reader()
        self.assertEqual(list(template.policies()), ["read-audit-log"])
        for name in ["Stream", "Writer", "Subscription"]:
            self.assertIsNone(template.resource(name), name)

    def test_stream_properties_follow_their_parameters(self):
        on_demand = reader(CreateStream="true").resource("Stream")
        self.assertEqual((on_demand["Name"], on_demand["StreamModeDetails"]), (STREAM, {"StreamMode": "ON_DEMAND"}))
        self.assertEqual(on_demand["StreamEncryption"], {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"})
        self.assertNotIn("ShardCount", on_demand)
        given = {"StreamShards": "3", "StreamRetentionHours": "168", "StreamName": "audit", "StreamKmsKeyArn": key()}
        provisioned = reader(CreateStream="true", **given)
        made = provisioned.resource("Stream")
        self.assertEqual((made["Name"], made["ShardCount"], made["RetentionPeriodHours"]), ("audit", "3", "168"))
        self.assertEqual(made["StreamModeDetails"], {"StreamMode": "PROVISIONED"})
        self.assertEqual(made["StreamEncryption"]["KeyId"], key())
        self.assertEqual(provisioned.policies()["read-stream"]["Statement"][0]["Resource"], stream(name="audit"))

    def test_subscription_goes_to_the_stream_that_is_made_or_is_there(self):
        for given in [{"CreateStream": "true", "StreamName": "audit"}, {"StreamName": "audit"}]:
            filter_of = reader(SubscriptionFilterPattern='"audit.k8s.io/v1"', **given).resource("Subscription")
            self.assertEqual(
                filter_of,
                {
                    "LogGroupName": GROUP,
                    "FilterName": "audit-bridge",
                    "FilterPattern": '"audit.k8s.io/v1"',
                    "Distribution": "ByLogStream",
                    "DestinationArn": stream(name="audit"),
                    "RoleArn": "Writer.Arn",
                },
            )
        self.assertIsNone(reader(StreamName="audit", Subscribe="false").resource("Subscription"))
        self.assertIsNone(reader(StreamName="audit", Subscribe="false").resource("Writer"))


class LeastPrivilege(unittest.TestCase):
    def test_listed_actions_are_those_of_the_policies(self):
        options = ["--stream", "--role-arn", "--unmask"]
        given = {"Identity": "pod-identity", "AssumeRoleArns": ",".join(ROLES)}
        streams = reader(StreamName=STREAM, StreamKmsKeyArn=key(), **given).policies()
        unmasks = reader(Unmask="true", **given).policies()
        granted = policies.actions(policies.together(*streams.values(), *unmasks.values()))
        self.assertEqual(granted, used_actions(*options, implied=True))
        self.assertEqual(len(recorded.known_actions()), len(granted), "an option that nobody knows")

    def test_calls_of_each_option_are_allowed_and_all_that_is_allowed(self):
        stream_only = policies.together(*reader(StreamName=STREAM, ReadLogGroup="false").policies().values())
        listed = used_actions("--stream", reads_group=False)
        for name in [STREAM, stream()]:
            found = recorded.problems(calls_of_a_reader(name), stream_only, listed, stream=name)
            self.assertEqual(found, [])
        by_arn = [{**call, "body": {**call["body"], "StreamARN": stream()}} for call in calls_of_a_reader(STREAM)]
        self.assertEqual(recorded.problems(by_arn, stream_only, listed), [])

    def test_recorded_calls_beyond_or_below_the_stream_policy_are_named(self):
        stream_only = policies.together(*reader(StreamName=STREAM, ReadLogGroup="false").policies().values())
        listed = used_actions("--stream", reads_group=False)
        elsewhere = {"action": "kinesis:GetShardIterator", "body": {"StreamName": "payments"}}
        put = {"action": "kinesis:PutRecord", "body": {"StreamName": STREAM}}
        group = {"action": "logs:FilterLogEvents", "body": {"logGroupName": GROUP}}
        whole = calls_of_a_reader(STREAM)
        for calls, word in [
            ([*whole, elsewhere], "stream/payments"),
            ([*whole, put], "PutRecord"),
            ([*whole, group], "FilterLogEvents"),
            (calls_of_a_reader(STREAM, "ListShards"), "allows kinesis:ListShards, which no call used"),
        ]:
            self.assertIn(word, "\n".join(recorded.problems(calls, stream_only, listed, stream=STREAM)))
        with self.assertRaisesRegex(ValueError, "all of them"):
            recorded.problems([{"action": "kinesis:ListShards", "body": {}}], stream_only, listed, stream=STREAM)

    def test_script_judges_the_calls_of_each_option(self):
        role = ROLES[0]
        far = f"arn:aws:logs:us-east-2:{MEMBER}:log-group:/aws/eks/far/cluster"
        read = {"action": "logs:FilterLogEvents", "body": {"logGroupName": GROUP}}
        unmasked = {"action": "logs:FilterLogEvents", "body": {"logGroupName": GROUP, "unmask": True}}
        by_role = {"action": "logs:FilterLogEvents", "body": {"logGroupIdentifier": far}}
        # As it is on the wire.
        assume = {"action": "sts:AssumeRole", "body": {"RoleArn": role.replace(":", "%3A").replace("/", "%2F")}}
        identity = {"action": "sts:AssumeRoleWithWebIdentity", "body": {"WebIdentityToken": "t"}}
        streamed = calls_of_a_reader(STREAM)
        for calls, words, complaint in [
            ([identity, read], [], None),
            ([unmasked], ["--unmask"], None),
            ([read], ["--unmask"], "allows logs:Unmask, which no call used"),
            ([unmasked], [], "logs:Unmask on"),
            ([read, assume], ["--role-arn", role], None),
            ([read, assume], [], f"sts:AssumeRole on {role} is not allowed"),
            ([by_role], [far, "--account-role"], None),
            ([by_role, read], [far, "--account-role"], f"log-group:{GROUP} is not allowed"),
            (streamed, ["--stream", STREAM], None),
            ([*streamed, read], ["--stream", STREAM, "--catch-up"], None),
            ([*streamed, read], ["--stream", STREAM], "FilterLogEvents"),
            (streamed, [], "FilterLogEvents"),
        ]:
            with self.subTest(words=words, complaint=complaint), tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "calls.jsonl"
                file.write_text("\n".join(map(json.dumps, calls)))
                said = recorded.main([str(file), *words])
                self.assertIn(complaint, said) if complaint else self.assertIsNone(said)

    def test_bridge_can_read_that_stream_and_nothing_more(self):
        allowed = policies.together(*reader(StreamName=STREAM, StreamKmsKeyArn=key()).policies().values())
        of_it = {"kms:EncryptionContext:aws:kinesis:arn": stream()}
        self.assertTrue(policies.allows(allowed, "kinesis:GetRecords", stream()))
        self.assertTrue(policies.allows(allowed, "kms:Decrypt", key(), of_it))
        for action, resource, context in [
            ("kinesis:PutRecord", stream(), {}),
            ("kinesis:SplitShard", stream(), {}),
            ("kinesis:SubscribeToShard", stream(), {}),
            ("kinesis:DeleteStream", stream(), {}),
            ("kinesis:GetRecords", stream() + "-two", {}),
            ("kinesis:GetRecords", stream(region="us-east-1"), {}),
            ("kinesis:GetRecords", stream().replace(ACCOUNT, STRANGER), {}),
            ("kms:Decrypt", key(), {}),
            ("kms:Decrypt", key(), {"kms:EncryptionContext:aws:kinesis:arn": stream(name="payments")}),
            ("kms:Decrypt", key() + "0", of_it),
            ("kms:GenerateDataKey", key(), of_it),
            ("sts:AssumeRole", ROLES[0], {}),
        ]:
            self.assertFalse(policies.allows(allowed, action, resource, context), f"{action} on {resource}, {context}")

    def test_cloudwatch_can_write_that_stream_and_nothing_more(self):
        allowed = policies.together(*reader(StreamName=STREAM, StreamKmsKeyArn=key()).policies("Writer").values())
        of_it = {"kms:EncryptionContext:aws:kinesis:arn": stream()}
        self.assertTrue(policies.allows(allowed, "kinesis:PutRecord", stream()))
        self.assertTrue(policies.allows(allowed, "kms:GenerateDataKey", key(), of_it))
        for action, resource, context in [
            ("kinesis:GetRecords", stream(), {}),
            ("kinesis:PutRecord", stream(name="payments"), {}),
            ("kms:Decrypt", key(), of_it),
            ("kms:GenerateDataKey", key(), {}),
        ]:
            self.assertFalse(policies.allows(allowed, action, resource, context), f"{action} on {resource}, {context}")


class Trust(unittest.TestCase):
    def writes(self, trust, source, service="logs.eu-central-1.amazonaws.com"):
        context = {"aws:SourceArn": source} if source else {}
        return policies.trusts(trust, {"Service": service}, "sts:AssumeRole", context)

    def test_writer_is_cloudwatch_for_this_account_and_region_only(self):
        trust = reader(CreateStream="true").trust("Writer")
        source = f"arn:aws:logs:eu-central-1:{ACCOUNT}:log-group:{GROUP}:*"
        self.assertTrue(self.writes(trust, source))
        for wrong in [
            None,
            source.replace(ACCOUNT, STRANGER),
            source.replace("eu-central-1", "us-east-1"),
            # A stranger's group, named as this account is.
            f"arn:aws:logs:eu-central-1:{STRANGER}:log-group:{ACCOUNT}:*",
            f"arn:aws:lambda:eu-central-1:{ACCOUNT}:function:f",
        ]:
            self.assertFalse(self.writes(trust, wrong), wrong)
        for service in ["logs.us-east-1.amazonaws.com", "lambda.amazonaws.com"]:
            self.assertFalse(self.writes(trust, source, service), service)

    def test_destination_takes_and_writes_for_its_member_only(self):
        template = other("destination")
        trust, destination = template.trust("Writer"), template.resource("Destination")
        for account, expected in [(ACCOUNT, True), (MEMBER, True), (STRANGER, False)]:
            source = f"arn:aws:logs:eu-central-1:{account}:log-group:/aws/eks/far/cluster:*"
            self.assertEqual(self.writes(trust, source), expected, account)
        policy = json.loads(destination["DestinationPolicy"])
        for account, expected in [(MEMBER, True), (STRANGER, False)]:
            taken = policies.trusts(policy, {"AWS": account}, "logs:PutSubscriptionFilter", {})
            self.assertEqual(taken, expected, account)
        arn = f"arn:aws:logs:eu-central-1:{ACCOUNT}:destination:{destination['DestinationName']}"
        self.assertEqual(policy["Statement"][0]["Resource"], arn)
        self.assertEqual(other("member").resource("Subscription")["DestinationArn"], arn)
        self.assertEqual(destination["TargetArn"], stream())

    def test_destination_reaches_a_stream_of_another_region(self):
        template = other("destination", StreamRegion="us-east-1", StreamKmsKeyArn=key(region="us-east-1"))
        far = stream(region="us-east-1")
        allowed = policies.together(*template.policies("Writer").values())
        self.assertEqual(template.resource("Destination")["TargetArn"], far)
        self.assertTrue(policies.allows(allowed, "kinesis:PutRecord", far))
        self.assertFalse(policies.allows(allowed, "kinesis:PutRecord", stream()))
        of_it = {"kms:EncryptionContext:aws:kinesis:arn": far}
        self.assertTrue(policies.allows(allowed, "kms:GenerateDataKey", key(region="us-east-1"), of_it))

    def test_role_of_the_other_account_is_for_the_bridge_with_the_external_id(self):
        template = other("account")
        bridge, right = {"AWS": f"arn:aws:iam::{ACCOUNT}:role/bridge"}, {"sts:ExternalId": "audit-bridge"}
        trust = template.trust()
        self.assertTrue(policies.trusts(trust, bridge, "sts:AssumeRole", right))
        self.assertFalse(policies.trusts(trust, bridge, "sts:AssumeRole", {}))
        self.assertFalse(policies.trusts(trust, bridge, "sts:AssumeRole", {"sts:ExternalId": "audit-bridge2"}))
        self.assertFalse(policies.trusts(trust, {"AWS": bridge["AWS"] + "2"}, "sts:AssumeRole", right))
        self.assertFalse(policies.trusts(trust, bridge, "sts:TagSession", right))
        by_pod_identity = other("account", Identity="pod-identity").trust()
        self.assertTrue(policies.trusts(by_pod_identity, bridge, "sts:TagSession", right))
        allowed = template.policies()["read-audit-log"]
        self.assertEqual(policies.actions(allowed), ["logs:FilterLogEvents"])
        unmasked = other("account", Unmask="true").policies()["read-audit-log"]
        self.assertEqual(policies.actions(unmasked), ["logs:FilterLogEvents", "logs:Unmask"])


class RefusedParameters(unittest.TestCase):
    def test_combinations_are_refused_with_what_to_write(self):
        for given, words in [
            ({"ReadLogGroup": "false"}, "could read nothing: set CreateStream=true"),
            ({"StreamName": "a", "Unmask": "true"}, "masked on their way into it"),
            ({"CreateStream": "true", "Unmask": "true"}, "masked on their way into it"),
            ({"StreamKmsKeyArn": key()}, "there is none: set CreateStream=true"),
            ({"StreamShards": "2"}, "set CreateStream=true, or leave"),
            ({"StreamName": "a", "StreamRetentionHours": "48"}, "set CreateStream=true, or leave"),
        ]:
            with self.subTest(given=given), self.assertRaisesRegex(Refused, words):
                reader(**given)

    def test_bad_parameters_of_the_other_templates_are_refused_with_what_to_write(self):
        plain = {
            "ClusterName": ["", "a" * 101, "arn:aws:eks:eu-central-1:1:cluster/c"],
            "LogGroupName": [GROUP + ":*", "/aws/eks/*/cluster"],
            "SubscriptionFilterPattern": ['{ $.kind = "Event" }', "[a]", "a" * 1025],
            "SubscriptionDistribution": ["RoundRobin"],
            "Identity": ["node"],
            "Unmask": ["yes"],
            "RoleName": ["", "a" * 65, "a/b"],
            "ExternalId": ["", "a", "a b", "a" * 1225],
            "BridgeRoleArn": [f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, "*", f"arn:aws:iam::{ACCOUNT}:role/*"],
            "DestinationArn": [stream(), "audit-bridge", f"arn:aws:logs:eu-central-1:{ACCOUNT}:log-group:a"],
            "StreamName": ["", stream(), "a" * 129],
            "StreamRegion": ["eu", "*"],
            "StreamKmsKeyArn": [f"arn:aws:kms:eu-central-1:{ACCOUNT}:alias/a"],
            "MemberAccount": ["", "*", "12345", f"{MEMBER},{STRANGER}"],
        }
        for template in ["account", "destination", "member"]:
            for name, parameter in other(template).document["Parameters"].items():
                for value in plain[name]:
                    with self.subTest(template=template, name=name, value=value), self.assertRaises(Refused) as refused:
                        other(template, **{name: value})
                    least = 0 if "AllowedValues" in parameter else len(name) + 20
                    self.assertGreater(len(str(refused.exception)), least)


class Page(unittest.TestCase):
    def test_every_parameter_of_every_template_is_in_the_page_with_its_default(self):
        page = (FOLDER / "README.md").read_text()
        sections = page.split("\n## ")
        for name, text in zip(["reader", "account", "destination"], sections, strict=True):
            names = ["destination", "member"] if name == "destination" else [name]
            for each in names:
                self.assertIn(f"(eks-audit-{each}.yaml)", page)
                document = reader().document if each == "reader" else other(each).document
                for parameter, its in document["Parameters"].items():
                    self.assertIn(f"`{parameter}`", text, f"{each}: {parameter}")
                    default = its.get("Default")
                    if each == "reader" and default:
                        (row,) = [line for line in text.splitlines() if re.match(rf"\|[^|]*`{parameter}`", line)]
                        self.assertIn(f"`{default}`", row, parameter)


@contextlib.contextmanager
def recorded_calls(client, service):
    """What a client of boto3 calls, as the end-to-end tests record it."""
    calls = []

    def note(params, model, **_):
        calls.append({"action": f"{service}:{model.name}", "body": dict(params)})

    client.meta.events.register(f"before-parameter-build.{service}", note)
    yield calls
    client.meta.events.unregister(f"before-parameter-build.{service}", note)


def read_to_the_end(kinesis, name):
    """All records of a stream, with the calls that a bridge makes."""
    kinesis.describe_stream_summary(StreamName=name)
    found = []
    for shard in kinesis.list_shards(StreamName=name)["Shards"]:
        at = kinesis.get_shard_iterator(StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
        answer = kinesis.get_records(ShardIterator=at["ShardIterator"])
        found += [json.loads(gzip.decompress(record["Data"])) for record in answer["Records"]]
    return found


def events(count):
    """Audit events, as EKS writes them, and one that AWS has cut."""
    whole = '{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"{}"}}'
    texts = [whole.format(number) for number in range(count)]
    return [*texts, whole.format("cut")[:40] + "[Truncated...]"]


class EndToEnd(unittest.TestCase):
    """Only moto is asked: nothing here shows what AWS itself checks."""

    def client(self, service, url):
        return boto3.client(service, "eu-central-1", endpoint_url=url)

    def put(self, logs, texts, log_stream=AUDIT):
        logs.create_log_stream(logGroupName=GROUP, logStreamName=log_stream)
        now = int(time.time() * 1000)
        batch = [{"timestamp": now + at, "message": text} for at, text in enumerate(texts)]
        logs.put_log_events(logGroupName=GROUP, logStreamName=log_stream, logEvents=batch)

    def check_the_way(self, url, role, writer, name):
        """Events put into the log group arrive in the stream, and both roles may do what that takes."""
        logs, kinesis, iam = (self.client(service, url) for service in ["logs", "kinesis", "iam"])
        texts = events(3)
        self.put(logs, texts)
        with recorded_calls(kinesis, "kinesis") as calls:
            found = read_to_the_end(kinesis, name)
        payloads = [payload for payload in found if payload["messageType"] == "DATA_MESSAGE"]
        got = [event["message"] for payload in payloads for event in payload["logEvents"]]
        self.assertEqual(got, texts, "byte for byte, once, in order")
        for payload in payloads:
            self.assertEqual((payload["owner"], payload["logGroup"], payload["logStream"]), (ACCOUNT, GROUP, AUDIT))
            self.assertEqual(payload["subscriptionFilters"], ["audit-bridge"])
        allowed = policies.together(*inline(iam, role).values())
        listed = used_actions("--stream", reads_group=False)
        self.assertEqual(recorded.problems(calls, allowed, listed, stream=name), [])
        trust = iam.get_role(RoleName=writer)["Role"]["AssumeRolePolicyDocument"]
        source = {"aws:SourceArn": f"arn:aws:logs:eu-central-1:{ACCOUNT}:log-group:{GROUP}:*"}
        service = {"Service": "logs.eu-central-1.amazonaws.com"}
        self.assertTrue(policies.trusts(trust, service, "sts:AssumeRole", source))
        self.assertTrue(policies.allows(inline(iam, writer)["write-stream"], "kinesis:PutRecord", stream(name=name)))

    def test_stack_feeds_a_stream_that_the_role_may_read(self):
        with moto() as url:
            stacks, logs = self.client("cloudformation", url), self.client("logs", url)
            logs.create_log_group(logGroupName=GROUP)
            given = {"CreateStream": "true", "ReadLogGroup": "false"}
            template = reader(**given)
            given |= {"ClusterName": "production", "OidcIssuerUrl": ISSUER}
            stacks.create_stack(
                StackName="stack",
                TemplateBody=(FOLDER / "eks-audit-reader.yaml").read_text(),
                Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
                Capabilities=["CAPABILITY_NAMED_IAM"],
            )
            made = stacks.describe_stack_resources(StackName="stack")["StackResources"]
            made = {
                each["LogicalResourceId"]: each["PhysicalResourceId"] for each in made if "LogicalResourceId" in each
            }
            iam = self.client("iam", url)
            self.assertEqual(inline(iam, made["Role"]), template.policies())
            self.assertEqual(inline(iam, made["Writer"]), template.policies("Writer"))
            # moto's CloudFormation knows no subscription filter: what the template says of it goes to the API.
            wanted = {name[0].lower() + name[1:]: value for name, value in template.resource("Subscription").items()}
            writer = iam.get_role(RoleName=made["Writer"])["Role"]["Arn"]
            logs.put_subscription_filter(**{**wanted, "roleArn": writer})
            self.check_the_way(url, made["Role"], made["Writer"], STREAM)

    def apply(self, folder, variables):
        """A configuration of ours, applied in moto, and its outputs."""
        folder.init()
        folder.run("apply", "-auto-approve", "-input=false", env=environment_of(variables))
        outputs = json.loads(folder.run("output", "-json").stdout)
        return {name: output["value"] for name, output in outputs.items()}

    def test_module_feeds_a_stream_that_the_role_may_read(self):
        with scratch() as folder, moto() as url:
            logs = self.client("logs", url)
            logs.create_log_group(logGroupName=GROUP)
            module = Terraform(ROOT / "terraform/eks", folder / "module")
            (module.folder / "provider.tf").write_text(provider(url))
            given = {
                "cluster_name": "production",
                "oidc_issuer_url": ISSUER,
                "create_oidc_provider": True,
                "create_stream": True,
                "stream_shards": 2,
                "read_log_groups": False,
            }
            outputs = self.apply(module, given)
            again = module.run("plan", "-detailed-exitcode", "-input=false", check=False, env=environment_of(given))
            self.assertEqual(again.returncode, 0, f"a second plan changes something\n{again.stdout}{again.stderr}")
            iam, kinesis = self.client("iam", url), self.client("kinesis", url)
            writer = outputs["writer_role_arn"].rpartition("/")[2]
            template = reader(CreateStream="true", ReadLogGroup="false")
            self.assertEqual(inline(iam, outputs["role_name"]), template.policies())
            self.assertEqual(inline(iam, writer), template.policies("Writer"))
            trust = iam.get_role(RoleName=writer)["Role"]["AssumeRolePolicyDocument"]
            self.assertEqual(trust, template.trust("Writer"))
            made = kinesis.describe_stream(StreamName=STREAM)["StreamDescription"]
            self.assertEqual((made["EncryptionType"], len(made["Shards"])), ("KMS", 2))
            self.assertEqual(outputs["stream_arn"], made["StreamARN"])
            self.check_the_way(url, outputs["role_name"], writer, outputs["stream_name"])

    def example(self, folder, url, name, alias):
        """An example beside its module, with providers that lead to moto."""
        Terraform(ROOT / "terraform/eks", folder / "module")
        example = Terraform(folder / f"module/examples/{name}", folder / "module/examples/copy")
        (example.folder / "provider_override.tf").write_text(provider(url) + provider(url, alias))
        role = f"arn:aws:iam::{ACCOUNT}:role/eks"
        self.client("eks", url).create_cluster(name="production", roleArn=role, resourcesVpcConfig={})
        # moto's issuers look otherwise than EKS's.
        main = example.folder / "main.tf"
        of_moto = "data.aws_eks_cluster.this.identity[0].oidc[0].issuer"
        self.assertIn(of_moto, main.read_text())
        main.write_text(main.read_text().replace(of_moto, f'"{ISSUER}"'))
        self.client("iam", url).create_open_id_connect_provider(Url=ISSUER, ClientIDList=["sts.amazonaws.com"])
        return example

    def as_member(self, service, url):
        """A client of the other account."""
        role = f"arn:aws:iam::{MEMBER}:role/administrator"
        got = self.client("sts", url).assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
        return boto3.client(
            service,
            "eu-central-1",
            endpoint_url=url,
            aws_access_key_id=got["AccessKeyId"],
            aws_secret_access_key=got["SecretAccessKey"],
            aws_session_token=got["SessionToken"],
        )

    def test_example_of_a_fleet_makes_what_the_templates_make(self):
        with scratch() as folder, moto() as url:
            self.client("logs", url).create_log_group(logGroupName=GROUP)
            example = self.example(folder, url, "fleet", "member")
            # moto takes no filter that leads to a destination: the member's comes from the plan.
            outputs = self.apply(example, {"member_cluster_names": []})
            self.assertEqual(outputs["stream_name"], STREAM)
            template, iam, logs = other("destination"), self.client("iam", url), self.client("logs", url)
            wanted = template.resource("Destination")
            (made,) = logs.describe_destinations()["destinations"]
            self.assertEqual(made["destinationName"], wanted["DestinationName"])
            self.assertEqual(made["targetArn"], wanted["TargetArn"])
            self.assertEqual(json.loads(made["accessPolicy"]), json.loads(wanted["DestinationPolicy"]))
            writer = made["roleArn"].rpartition("/")[2]
            self.assertEqual(inline(iam, writer), template.policies("Writer"))
            trust = iam.get_role(RoleName=writer)["Role"]["AssumeRolePolicyDocument"]
            self.assertEqual(trust, template.trust("Writer"))
            example.run("plan", "-out=plan", "-input=false")
            planned = json.loads(example.run("show", "-json", "plan").stdout)["resource_changes"]
            (member,) = [each["change"] for each in planned if each["change"]["actions"] == ["create"]]
            subscription = other("member").resource("Subscription")
            for name, value in [
                ("destination_arn", subscription["DestinationArn"]),
                ("log_group_name", subscription["LogGroupName"]),
                ("filter_pattern", subscription["FilterPattern"]),
                ("distribution", subscription["Distribution"]),
                ("name", subscription["FilterName"]),
            ]:
                self.assertEqual(member["after"][name], value)
            self.assertNotIn("role_arn", {name for name, value in member["after"].items() if value})

    def test_example_of_another_account_makes_what_the_template_makes(self):
        with scratch() as folder, moto() as url:
            example = self.example(folder, url, "accounts", "other")
            outputs = self.apply(example, {})
            # The chart takes what the module prints, and the bridge gets it.
            objects = render("eks", merged({"eks": {"clusterNames": []}}, yaml.safe_load(outputs["helm_values"])))
            given = environment(objects)
            self.assertEqual(given["AUDIT_BRIDGE_ROLE_ARN"], f"arn:aws:iam::{MEMBER}:role/eks-audit-reader")
            self.assertEqual(given["AUDIT_BRIDGE_ROLE_EXTERNAL_ID"], "audit-bridge")
            far = f"arn:aws:logs:eu-central-1:{MEMBER}:log-group:/aws/eks/far/cluster"
            self.assertEqual(given["AUDIT_BRIDGE_LOG_GROUP"], f"{GROUP},{far}")
            roles = self.client("iam", url).list_roles()["Roles"]
            (bridge,) = [role for role in roles if role["RoleName"].startswith("eks-audit-production")]
            template = other("account", BridgeRoleArn=bridge["Arn"])
            there = self.as_member("iam", url)
            made = there.get_role(RoleName="eks-audit-reader")["Role"]
            self.assertEqual(made["AssumeRolePolicyDocument"], template.trust())
            self.assertEqual(inline(there, made["RoleName"]), template.policies())
            assume = inline(self.client("iam", url), bridge["RoleName"])["assume-readers"]
            self.assertEqual(assume["Statement"][0]["Resource"], [made["Arn"]])


def environment_of(variables):
    """Variables of Terraform, as the environment gives them."""
    return {
        f"TF_VAR_{name}": value if isinstance(value, str) else json.dumps(value) for name, value in variables.items()
    }


def inline(iam, role):
    """The inline policies of a role, by their names."""
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    found = {name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names}
    # moto's CloudFormation stores an inline policy as Python writes it, not as JSON.
    return {name: json.loads(text.replace("'", '"')) if isinstance(text, str) else text for name, text in found.items()}


def provider(url, alias=None):
    """Points Terraform's provider at a local server."""
    services = "\n".join(f'    {service} = "{url}"' for service in ["eks", "iam", "kinesis", "logs", "sts"])
    return f"""
provider "aws" {{
  {f'alias = "{alias}"' if alias else ""}
  region                      = "eu-central-1"
  access_key                  = "testing"
  secret_key                  = "testing"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true

  endpoints {{
{services}
  }}
}}
"""


if __name__ == "__main__":
    unittest.main()
