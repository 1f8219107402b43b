"""The EKS role: enough for the bridge's calls, for nobody else, the same in both recipes."""

import ast
import unittest

import boto3
import policies
import recorded
from cloudformation import Refused, Template
from kit import ROOT, moto, run, tool
from recorded import ISSUER, used_actions

TEMPLATE = ROOT / "cloudformation/eks-audit-reader.yaml"
PLACES = [("aws", "eu-central-1", "com"), ("aws-cn", "cn-north-1", "com.cn"), ("aws-us-gov", "us-gov-west-1", "com")]
ACCOUNT = "123456789012"
GROUP = "/aws/eks/production/cluster"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
CALL = {"action": "logs:FilterLogEvents", "body": {"logGroupName": GROUP, "limit": 10000}}


def issuer(region, domain):
    return f"oidc.eks.{region}.amazonaws.{domain}/id/0123456789ABCDEF0123456789ABCDEF"


def of_the_template(partition, region, domain, **given):
    """Permissions and trust that CloudFormation would make."""
    if given.get("Identity") != "pod-identity":
        given["OidcIssuerUrl"] = "https://" + issuer(region, domain)
    return Template(
        TEMPLATE, partition=partition, region=region, account=ACCOUNT, ClusterName="production", **given
    ).role()


def of_the_module(partition, region, domain, group=GROUP, identity="irsa"):
    """Permissions and trust of the module's own templates, with the values that main.tf gives them."""
    folder = ROOT / "terraform/eks/policies"
    arn = f"arn:{partition}:logs:{region}:{ACCOUNT}:log-group:{group}"
    given = {"actions": ["logs:FilterLogEvents"], "log_group_arns": [arn, f"{arn}:*"]}
    read = policies.render((folder / "read.json.tftpl").read_text(), given)
    trust = policies.render(
        (folder / f"trust-{identity}.json.tftpl").read_text(),
        {
            "oidc_provider_arn": f"arn:{partition}:iam::{ACCOUNT}:oidc-provider/{issuer(region, domain)}",
            "oidc_issuer": issuer(region, domain),
            "cluster_arn": f"arn:{partition}:eks:{region}:{ACCOUNT}:cluster/production",
            "namespace": "audit-bridge",
            "service_account": "eks-audit-bridge",
        },
    )
    return read, trust


class Policies(unittest.TestCase):
    def test_template_and_module_give_the_same(self):
        for place in PLACES:
            with self.subTest(place=place):
                self.assertEqual(of_the_template(*place), of_the_module(*place))
                self.assertEqual(
                    of_the_template(*place, LogGroupName="audit/all"), of_the_module(*place, group="audit/all")
                )
                self.assertEqual(
                    of_the_template(*place, Identity="pod-identity"), of_the_module(*place, identity="pod-identity")
                )

    def test_the_least_that_the_calls_need(self):
        for place in PLACES:
            read, _ = of_the_template(*place)
            self.assertEqual(policies.actions(read), used_actions())
        self.assertEqual(recorded.problems([CALL], of_the_template(*PLACES[0])[0], used_actions()), [])

    def test_recorded_calls_beyond_the_policy_are_named(self):
        read = of_the_template(*PLACES[0])[0]
        other = {**CALL, "body": {"logGroupName": "/aws/eks/other/cluster"}}
        describe = {"action": "logs:DescribeLogStreams", "body": {"logGroupName": GROUP}}
        for calls, word in [([CALL, other], "other"), ([CALL, describe], "DescribeLogStreams"), ([], "no call used")]:
            found = "\n".join(recorded.problems(calls, read, used_actions()))
            self.assertIn(word, found)
        for action in ["ssm:GetParameter", "sts:GetCallerIdentity"]:
            with self.assertRaises(ValueError):
                recorded.problems([{"action": action, "body": {}}], read, used_actions())

    def test_nothing_else_is_allowed(self):
        read = of_the_template(*PLACES[0])[0]
        arn = f"arn:aws:logs:eu-central-1:{ACCOUNT}:log-group:{GROUP}"
        self.assertTrue(policies.allows(read, "logs:FilterLogEvents", f"{arn}:log-stream:"))
        for action, resource in [
            ("logs:GetLogEvents", arn),
            ("logs:PutLogEvents", f"{arn}:log-stream:x"),
            ("logs:DeleteLogGroup", arn),
            ("logs:FilterLogEvents", f"{arn}-two"),
            ("logs:FilterLogEvents", arn.replace("eu-central-1", "us-east-1")),
            ("logs:FilterLogEvents", arn.replace(ACCOUNT, "999999999999")),
            ("logs:FilterLogEvents", "*"),
        ]:
            self.assertFalse(policies.allows(read, action, resource), f"{action} on {resource}")

    def test_only_the_bridges_service_account_is_trusted(self):
        for partition, region, domain in PLACES:
            host = issuer(region, domain)
            who = {"Federated": f"arn:{partition}:iam::{ACCOUNT}:oidc-provider/{host}"}
            sub, aud = "system:serviceaccount:audit-bridge:eks-audit-bridge", "sts.amazonaws.com"
            action = "sts:AssumeRoleWithWebIdentity"
            _, trust = of_the_template(partition, region, domain)
            self.assertTrue(policies.trusts(trust, who, action, {f"{host}:sub": sub, f"{host}:aud": aud}))
            for wrong in [
                {f"{host}:sub": "system:serviceaccount:audit-bridge:default", f"{host}:aud": aud},
                {f"{host}:sub": "system:serviceaccount:default:eks-audit-bridge", f"{host}:aud": aud},
                {f"{host}:sub": sub + "x", f"{host}:aud": aud},
                {f"{host}:sub": sub, f"{host}:aud": "https://kubernetes.default.svc"},
                {f"{host}:sub": sub},
                {f"{host}:aud": aud},
                {f"{host}x:sub": sub, f"{host}x:aud": aud},
            ]:
                self.assertFalse(policies.trusts(trust, who, action, wrong), wrong)
            right = {f"{host}:sub": sub, f"{host}:aud": aud}
            other = {"Federated": who["Federated"].replace("0123", "9999")}
            self.assertFalse(policies.trusts(trust, other, action, right))
            self.assertFalse(policies.trusts(trust, {"Service": "ec2.amazonaws.com"}, "sts:AssumeRole", right))

    def test_pod_identity_trusts_one_service_account_of_one_cluster(self):
        _, trust = of_the_template(*PLACES[0], Identity="pod-identity")
        who = {"Service": "pods.eks.amazonaws.com"}
        right = {
            "aws:RequestTag/eks-cluster-arn": f"arn:aws:eks:eu-central-1:{ACCOUNT}:cluster/production",
            "aws:RequestTag/kubernetes-namespace": "audit-bridge",
            "aws:RequestTag/kubernetes-service-account": "eks-audit-bridge",
        }
        for action in ["sts:AssumeRole", "sts:TagSession"]:
            self.assertTrue(policies.trusts(trust, who, action, right))
        for key in right:
            self.assertFalse(policies.trusts(trust, who, "sts:AssumeRole", {**right, key: right[key] + "x"}))
            self.assertFalse(
                policies.trusts(trust, who, "sts:AssumeRole", {k: v for k, v in right.items() if k != key})
            )
        self.assertFalse(policies.trusts(trust, {"Service": "ec2.amazonaws.com"}, "sts:AssumeRole", right))


class CloudFormation(unittest.TestCase):
    def test_lint(self):
        regions = [region for _, region, _ in PLACES]
        run(tool("cfn-lint"), "--template", *sorted(TEMPLATE.parent.glob("*.yaml")), "--regions", *regions)

    def test_the_capability_is_named_where_one_reads_it(self):
        self.assertIn(
            "CAPABILITY_NAMED_IAM", Template(TEMPLATE, ClusterName="c", OidcIssuerUrl=ISSUER).document["Description"]
        )

    def test_bad_parameters_are_refused_with_what_to_write(self):
        bad = {
            "ClusterName": ["", "a" * 101, "arn:aws:eks:eu-central-1:1:cluster/c", "production/"],
            "Identity": ["node"],
            "OidcIssuerUrl": [
                ISSUER + "/",
                ISSUER.removeprefix("https://"),
                ISSUER.replace("https", "http"),
                ISSUER[:-1],
                "https://0123456789ABCDEF0123456789ABCDEF.gr7.eu-central-1.eks.amazonaws.com",
                "arn:aws:iam::123456789012:oidc-provider/" + ISSUER.removeprefix("https://"),
                "",
            ],
            "CreateOidcProvider": ["", "yes"],
            "Namespace": ["*", "", "Audit", "a" * 64],
            "ServiceAccount": ["*", "", "system:serviceaccount:audit-bridge:eks-audit-bridge"],
            "LogGroupName": [GROUP + "/", GROUP + ":*", "/aws/eks/*/cluster", "a" * 513],
            "ReadLogGroup": ["", "no", "false"],
            "Unmask": ["yes"],
            "AssumeRoleArns": ["reader", "a,b", f"{ROLE}*", f"{ROLE}a,"],
            "CreateStream": ["yes"],
            "StreamName": ["arn:aws:kinesis:eu-central-1:123456789012:stream/audit", "a" * 129, "a b"],
            "StreamShards": ["-1", "1.5", "10001", "", "4"],
            "StreamRetentionHours": ["23", "8761", "a", "48"],
            "StreamKmsKeyArn": ["alias/audit", "arn:aws:kms:eu-central-1:123456789012:alias/audit", KEY],
            "Subscribe": ["no"],
            "SubscriptionFilterPattern": ['{ $.kind = "Event" }', "[kind, rest]", " a", "a" * 1025],
            "SubscriptionDistribution": ["", "RoundRobin"],
            "RoleName": ["a" * 65, "a/b"],
            "RolePath": ["", "audit", "/audit"],
            "PermissionsBoundary": ["boundary", "arn:aws:iam::123456789012:policy/"],
        }
        parameters = Template(TEMPLATE, ClusterName="c", OidcIssuerUrl=ISSUER).document["Parameters"]
        self.assertEqual(set(bad), set(parameters), "every parameter is checked, and tested")
        for name, values in bad.items():
            for value in values:
                with self.subTest(name=name, value=value), self.assertRaises(Refused) as refused:
                    Template(TEMPLATE, **{"ClusterName": "c", "OidcIssuerUrl": ISSUER, name: value})
                choice = "AllowedValues" in parameters[name]
                self.assertGreater(len(str(refused.exception)), 0 if choice else len(name) + 20)

    def test_an_issuer_without_irsa_is_refused(self):
        with self.assertRaisesRegex(Refused, "Pod Identity needs no issuer"):
            Template(TEMPLATE, ClusterName="c", Identity="pod-identity", CreateOidcProvider="true")

    def test_the_issuer_is_registered_on_request_and_outlives_the_stack(self):
        given = {"ClusterName": "c", "OidcIssuerUrl": ISSUER}
        self.assertIsNone(Template(TEMPLATE, **given).resource("OidcProvider"))
        template = Template(TEMPLATE, CreateOidcProvider="true", **given)
        made = {"Url": ISSUER, "ClientIdList": ["sts.amazonaws.com"]}
        self.assertEqual(template.resource("OidcProvider"), made)
        provider = template.document["Resources"]["OidcProvider"]
        self.assertEqual((provider["DeletionPolicy"], provider["UpdateReplacePolicy"]), ("Retain", "Retain"))
        # The trust names the provider that is registered by this issuer.
        _, trust = template.role()
        self.assertTrue(trust["Statement"][0]["Principal"]["Federated"].endswith(ISSUER.removeprefix("https:/")))

    def test_longest_names_are_accepted(self):
        Template(TEMPLATE, ClusterName="c" * 100, OidcIssuerUrl=ISSUER, RoleName="r" * 64, LogGroupName="g" * 512)

    # moto's CloudFormation knows no OIDC provider.
    def test_created_in_moto_the_role_carries_the_same_documents(self):
        cases = {
            "default": {"OidcIssuerUrl": ISSUER},
            "custom": {
                "OidcIssuerUrl": ISSUER,
                "LogGroupName": "audit/all",
                "RoleName": "audit",
                "RolePath": "/security/",
                "PermissionsBoundary": "arn:aws:iam::123456789012:policy/boundary",
            },
        }
        with moto() as url:
            stacks = boto3.client("cloudformation", "eu-central-1", endpoint_url=url)
            iam = boto3.client("iam", endpoint_url=url)
            for stack, given in cases.items():
                given = {"ClusterName": "production", **given}
                stacks.create_stack(
                    StackName=stack,
                    TemplateBody=TEMPLATE.read_text(),
                    Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
                    Capabilities=["CAPABILITY_NAMED_IAM"],
                )
                outputs = stacks.describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
                outputs = {output["OutputKey"]: output["OutputValue"] for output in outputs}
                role = iam.get_role(RoleName=outputs["RoleName"])["Role"]
                read = iam.get_role_policy(RoleName=role["RoleName"], PolicyName="read-audit-log")["PolicyDocument"]
                if isinstance(read, str):
                    # moto's CloudFormation stores an inline policy as Python writes it, not as JSON.
                    read = ast.literal_eval(read)
                self.assertEqual((read, role["AssumeRolePolicyDocument"]), Template(TEMPLATE, **given).role())
                self.assertEqual(outputs["RoleArn"], role["Arn"])
                self.assertEqual(outputs["LogGroupName"], given.get("LogGroupName", GROUP))
                self.assertEqual(role["Path"], given.get("RolePath", "/"))
                boundary = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
                self.assertEqual(boundary, given.get("PermissionsBoundary"))
                stacks.delete_stack(StackName=stack)
            self.assertEqual(iam.list_roles()["Roles"], [], "deleting the stack leaves nothing")


if __name__ == "__main__":
    unittest.main()
