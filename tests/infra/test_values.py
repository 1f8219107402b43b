"""Every value of the chart does something: another one makes other objects."""

import json
import unittest

import yaml
from chart import CHART, example, merged, text
from test_chart import CONNECTION_STRING, DURABLE, MONITORED, SECRETS, SUBSCRIPTION, keys, nested

# Secrets, everything that monitors, a proxy: on these, nearly every value shows.
ALL = merged(merged(SECRETS, MONITORED), {"proxy": {"https": "http://proxy:3128"}})
VOLUME = merged(ALL, DURABLE)
SHARED = {"replicas": 2, "eks": {"stream": "s", "sharePartitions": True}}
SECRET, NAMED, TABLE = "another-secret", "another-name", {"another": "one"}
# Of each value: what it becomes, and (where it is not eks with ALL) of which bridge and with what besides.
ANOTHER = {
    "webhook.url": ("https://another.example.com/",),
    "webhook.timeout": ("7s",),
    "webhook.ca.secretName": (SECRET,),
    "webhook.ca.key": (NAMED,),
    "webhook.clientCertificate.secretName": (SECRET,),
    "webhook.clientCertificate.certKey": (NAMED,),
    "webhook.clientCertificate.keyKey": (NAMED,),
    "webhook.token.secretName": (SECRET,),
    "webhook.token.key": (NAMED,),
    "eks.clusterNames": ([NAMED],),
    "eks.logGroups": (["/another"],),
    "eks.stream": (NAMED,),
    "eks.sharePartitions": (True, "eks", {"eks": {"stream": "s"}}),
    "eks.region": ("us-east-2",),
    "eks.roleArn": ("arn:aws:iam::111122223333:role/another",),
    "gke.projectId": (NAMED, "gke"),
    "gke.resourceNames": (["projects/another"], "gke"),
    "gke.clusterName": (NAMED, "gke"),
    "gke.location": ("us-east1", "gke"),
    "gke.includeDataAccess": (True, "gke"),
    "gke.subscription": ("projects/p/subscriptions/another", "gke", SUBSCRIPTION),
    "gke.serviceAccount": ("another@p.iam.gserviceaccount.com", "gke"),
    "gke.credentials.secretName": (SECRET, "gke", {"gke": {"serviceAccount": ""}}),
    "gke.credentials.key": (NAMED, "gke", {"gke": {"serviceAccount": "", "credentials": {"secretName": "s"}}}),
    "aks.eventHubNamespace": ("another.servicebus.windows.net", "aks"),
    "aks.eventHub": (NAMED, "aks"),
    "aks.consumerGroup": (NAMED, "aks"),
    "aks.transport": ("amqp-web-sockets", "aks"),
    "aks.clusterNames": ([NAMED], "aks"),
    "aks.categories": (["kube-audit"], "aks"),
    "aks.clientId": ("00000000-0000-0000-0000-00000000000a", "aks"),
    "aks.tenantId": ("00000000-0000-0000-0000-00000000000b", "aks"),
    "aks.clientCertificate.secretName": (SECRET, "aks", {"aks": {"tenantId": "0" * 8 + "-0000" * 3 + "-" + "0" * 12}}),
    "aks.clientCertificate.key": (
        NAMED,
        "aks",
        {"aks": {"tenantId": "0" * 8 + "-0000" * 3 + "-" + "0" * 12, "clientCertificate": {"secretName": "s"}}},
    ),
    "aks.connectionString.secretName": (SECRET, "aks", CONNECTION_STRING),
    "aks.connectionString.key": (NAMED, "aks", CONNECTION_STRING),
    "aks.sharePartitions": (True, "aks"),
    "settings": ({"poll-interval": "7s"},),
    "replicas": (2,),
    "checkpoint.store": ("file", "eks", VOLUME),
    "checkpoint.create": (False,),
    "checkpoint.keep": (False,),
    "checkpoint.slots": (100, "eks", SHARED),
    "checkpoint.members": (20, "eks", SHARED),
    "canary.enabled": (False,),
    "canary.interval": ("7m",),
    "canary.deliver": (False,),
    "persistence.existingClaim": (NAMED, "eks", VOLUME),
    "persistence.storageClassName": (NAMED, "eks", VOLUME),
    "persistence.size": ("7Gi", "eks", VOLUME),
    "persistence.accessModes": (["ReadWriteOncePod"], "eks", VOLUME),
    "persistence.annotations": (TABLE, "eks", VOLUME),
    "persistence.keep": (False, "eks", VOLUME),
    "stateSizeLimit": ("7Gi",),
    "image.registry": ("another.example.com",),
    "image.repository": (NAMED,),
    "image.tag": ("7",),
    "image.digest": ("sha256:" + "7" * 64,),
    "image.pullPolicy": ("Always",),
    "imagePullSecrets": ([{"name": NAMED}],),
    "fullnameOverride": (NAMED,),
    "commonLabels": (TABLE,),
    "serviceAccount.create": (False, "eks", {"serviceAccount": {"name": "mine"}, "eks": {"roleArn": ""}}),
    "serviceAccount.name": (NAMED,),
    "serviceAccount.annotations": (TABLE,),
    "serviceAccount.labels": (TABLE,),
    "rbac.create": (False,),
    "proxy.https": ("http://another:7",),
    "proxy.http": ("http://another:7",),
    "proxy.noProxy": (NAMED,),
    "networkPolicy.type": ("cilium",),
    "networkPolicy.extraEgressPorts": ([7],),
    "networkPolicy.extraEgress": ([{"ports": [{"port": 7}]}],),
    "networkPolicy.scrapers": ([{"namespace": NAMED}],),
    "monitoring.scrape": ("serviceMonitor",),
    "monitoring.labels": (TABLE,),
    "monitoring.interval": ("7s",),
    "monitoring.rules.enabled": (False,),
    "monitoring.rules.alertLabels": (TABLE,),
    "monitoring.dashboard.enabled": (False,),
    "monitoring.dashboard.labels": (TABLE,),
    "monitoring.dashboard.annotations": (TABLE,),
    "resources": ({"limits": {"memory": "7Gi"}},),
    "podDisruptionBudget.enabled": (False,),
    "nodeSelector": (TABLE,),
    "tolerations": ([{"operator": "Exists"}],),
    "affinity": ({"nodeAffinity": {}},),
    "topologySpreadConstraints": ([{"maxSkew": 7, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],),
    "priorityClassName": (NAMED,),
    "podAnnotations": (TABLE,),
    "podLabels": (TABLE,),
    "podSecurityContext": ({"runAsUser": 7},),
    "securityContext": ({"runAsUser": 7},),
    "terminationGracePeriodSeconds": (70,),
    "extraEnv": ([{"name": "ANOTHER", "value": "one"}],),
    "extraVolumes": ([{"name": "another", "emptyDir": {}}],),
    "extraVolumeMounts": ([{"name": "another", "mountPath": "/another"}],),
    "extraObjects": ([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "another"}}],),
}
# Which bridge, every test says; the other two exclude each other, and one of them has to be there: Strict, State.
ELSEWHERE = {"bridge", "deadLetter.ephemeral", "persistence.enabled"}


def objects(values):
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [item for item in yaml.load_all(text(values, "prod"), loader) if item]


class Values(unittest.TestCase):
    def test_every_value_makes_other_objects(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        leaves = {".".join(path) for path, inner, _ in keys(schema) if "properties" not in inner}
        self.assertEqual(leaves - ELSEWHERE, set(ANOTHER))
        for path, (value, *of) in ANOTHER.items():
            with self.subTest(value=path):
                bridge, besides = [*of, *["eks", {}][len(of) :]]
                base = merged(merged(example(bridge), ALL), besides)
                before = objects(base)
                after = objects(merged(base, nested({tuple(path.split(".")): value})))
                self.assertNotEqual(before, after, f"{path} does nothing")


if __name__ == "__main__":
    unittest.main()
