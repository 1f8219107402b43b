"""The Helm chart: rendered as a user installs it, valid, restricted, consistent, and strict."""

import itertools
import json
import re
import shutil
import unittest

import kubernetes_validate
import yaml
from chart import (
    CHART,
    DEPLOY,
    VERSIONS,
    container,
    environment,
    example,
    kinds,
    merged,
    one,
    pod,
    refusal,
    render,
    rendered_example,
    table,
    text,
)
from kit import BRIDGES, ROOT, run, scratch
from tools import go_tool

# No schemas are at hand for these; test_monitoring looks at those that monitor.
FOREIGN = {
    "azmonitoring.coreos.com/v1",
    "cilium.io/v2",
    "monitoring.coreos.com/v1",
    "monitoring.googleapis.com/v1",
}
# Everything that Pod Security's "restricted" allows as a volume and we use.
VOLUMES = {"persistentVolumeClaim", "emptyDir", "secret"}
BASE = ["ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Role", "RoleBinding", "ServiceAccount"]
DURABLE = {"persistence": {"enabled": True}, "deadLetter": {"ephemeral": False}}
SECRETS = {
    "webhook": {
        "url": "https://shield-cluster.sysdig.svc:6443/k8s_audit",
        "ca": {"secretName": "webhook-ca"},
        "token": {"secretName": "webhook-token"},
        "clientCertificate": {"secretName": "webhook-client"},
    }
}
SCRAPERS = {"networkPolicy": {"scrapers": [{"namespace": "monitoring", "podLabels": {"app": "prometheus"}}]}}
MONITORED = merged(
    SCRAPERS,
    {"monitoring": {"scrape": "podMonitor", "rules": {"enabled": True}, "dashboard": {"enabled": True}}},
)
CONNECTION_STRING = {"aks": {"clientId": "", "connectionString": {"secretName": "event-hub-connection-string"}}}
TENANT = "11111111-1111-1111-1111-111111111111"
CLIENT_CERTIFICATE = {"aks": {"tenantId": TENANT, "clientCertificate": {"secretName": "principal"}}}
# As the help of --admin-address says.
ADMIN_PORT = int(
    re.search(
        r"/readyz and /metrics \[default: 0\.0\.0\.0:(\d+)\]",
        (ROOT / "crates/app/src/cli/health_args.rs").read_text(),
    )[1]
)
# As the help of --shutdown-grace says.
SHUTDOWN_GRACE = int(
    re.search(r"after SIGTERM \[default: (\d+)s\]", (ROOT / "crates/app/src/cli/run_args.rs").read_text())[1]
)
ADMIN_PORT_FILES = ["Dockerfile", "NOTES.txt", "deployment.yaml", "network-policy.yaml", "scrape.yaml", "validate.yaml"]
SUBSCRIPTION = {"gke": {"resourceNames": [], "subscription": "projects/p/subscriptions/s"}}
FURTHER = {
    "commonLabels": {"team": "security"},
    "podLabels": {"mesh": "off"},
    "podAnnotations": {"note": "text"},
    "serviceAccount": {"name": "reader", "annotations": {"a": "b"}, "labels": {"c": "d"}},
    "imagePullSecrets": [{"name": "registry"}],
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "extraEnv": [{"name": "RUST_LOG", "value": "debug"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}}],
    "proxy": {"https": "http://proxy.example.com:3128", "noProxy": "example.com"},
    "settings": {"poll-interval": "10s", "batch-events-max": 2000000},
}
CASES = {
    "plain": {},
    "on a volume": DURABLE,
    "all on a volume": merged(DURABLE, {"checkpoint": {"store": "file"}}),
    "two replicas": {"replicas": 2},
    "secrets": SECRETS,
    "monitored": MONITORED,
    "monitored by a service": merged(MONITORED, {"monitoring": {"scrape": "serviceMonitor"}}),
    "monitored by Google": merged(MONITORED, {"monitoring": {"scrape": "gmp"}}),
    "monitored by Azure": {"monitoring": {"scrape": "azure"}},
    "Cilium": {"networkPolicy": {"type": "cilium"}},
    "no policy": {"networkPolicy": {"type": "none"}},
    "everything": merged(merged(SECRETS, MONITORED), {"replicas": 3}),
}
OF_ONE_CLOUD = {
    ("eks", "further"): FURTHER,
    ("eks", "pod identity"): {"eks": {"roleArn": ""}},
    ("eks", "two clusters"): {"eks": {"clusterNames": ["a", "b"]}},
    ("eks", "stream"): {"replicas": 2, "eks": {"clusterNames": [], "stream": "audit"}},
    ("eks", "stream, shared"): {"replicas": 3, "eks": {"stream": "audit", "sharePartitions": True}},
    ("gke", "subscription"): SUBSCRIPTION,
    ("gke", "subscription, three replicas"): merged(SUBSCRIPTION, {"replicas": 3}),
    ("gke", "key file"): {"gke": {"serviceAccount": "", "credentials": {"secretName": "key"}}},
    ("aks", "connection string"): CONNECTION_STRING,
    ("aks", "shared"): {"replicas": 3, "aks": {"sharePartitions": True}},
}


def everything():
    """Every combination that we tell of, by its name."""
    for bridge, (name, changes) in itertools.product(BRIDGES, CASES.items()):
        yield f"{bridge}, {name}", render(bridge, changes)
    for (bridge, name), changes in OF_ONE_CLOUD.items():
        yield f"{bridge}, {name}", render(bridge, changes)


def pods(objects):
    """The specs of the pods that read and of the one that checks."""
    yield pod(objects)["spec"]
    yield one(objects, "Pod")["spec"]


def restricted(test, spec):
    """As Pod Security's "restricted" wants a pod, and nothing of the node."""
    test.assertTrue(spec["securityContext"]["runAsNonRoot"])
    test.assertGreater(spec["securityContext"]["runAsUser"], 0)
    test.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
    for key in ["hostNetwork", "hostPID", "hostIPC", "initContainers"]:
        test.assertNotIn(key, spec)
    (only,) = spec["containers"]
    test.assertEqual(
        only["securityContext"],
        {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    )
    for volume in spec["volumes"]:
        test.assertEqual(len(set(volume) & VOLUMES), 1, volume)
        if volume["name"] != "more" and "emptyDir" in volume:
            test.assertIn("sizeLimit", volume["emptyDir"])


class Rendered(unittest.TestCase):
    def test_valid_for_kubernetes(self):
        checked = 0
        for name, objects in everything():
            for item, version in itertools.product(objects, VERSIONS):
                if item["apiVersion"] in FOREIGN:
                    continue
                with self.subTest(name=name, kind=item["kind"], version=version):
                    kubernetes_validate.validate(item, version, strict=True)
                    checked += 1
        self.assertGreater(checked, 400)
        kubernetes_validate.validate(yaml.safe_load((DEPLOY / "namespace.yaml").read_text()), VERSIONS[0], strict=True)

    def test_the_schema_would_find_a_slip(self):
        deployment = yaml.safe_load(yaml.safe_dump(one(render("eks"), "Deployment")))
        deployment["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)

    def test_helm_lint(self):
        for bridge in BRIDGES:
            values = DEPLOY / f"examples/{bridge}-values.yaml"
            options = ["--strict", "--kube-version", VERSIONS[1], "--values", values]
            run(go_tool("helm"), "lint", CHART, *options)

    def test_pod_security_restricted(self):
        for name, objects in everything():
            for spec in pods(objects):
                with self.subTest(name=name):
                    restricted(self, spec)
            self.assertNotIn("hostPort", str(objects))

    def test_names_and_labels(self):
        version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        about = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual((about["version"], about["appVersion"]), (version, version))
        for bridge in BRIDGES:
            objects = render(bridge)
            self.assertEqual(sorted(set(kinds(objects))), BASE)
            own = f"{bridge}-audit-bridge"
            for item in objects:
                labels = item["metadata"]["labels"]
                self.assertEqual(labels["app.kubernetes.io/name"], own)
                self.assertEqual(labels["app.kubernetes.io/part-of"], "audit-bridges")
                self.assertEqual(labels["app.kubernetes.io/version"], version)
                self.assertLessEqual({"app.kubernetes.io/component", "app.kubernetes.io/instance"}, set(labels))
                self.assertEqual(item["metadata"]["namespace"], "audit-bridge")
            # The names that terraform/ and cloudformation/ trust by default.
            self.assertEqual(one(objects, "ServiceAccount")["metadata"]["name"], own)
            self.assertEqual(container(objects)["image"], f"registry.example.com/audit-bridge/{own}:{version}")

    def test_selectors_take_this_release_only(self):
        for name, objects in everything():
            with self.subTest(name=name):
                labels = pod(objects)["metadata"]["labels"]
                checks = one(objects, "Pod")["metadata"]["labels"]
                keys = ["app.kubernetes.io/name", "app.kubernetes.io/instance"]
                own = {key: labels[key] for key in keys}
                reader = {**own, "app.kubernetes.io/component": "audit-log-reader"}
                deployment = one(objects, "Deployment")["spec"]
                for selector in [deployment["selector"], one(objects, "PodDisruptionBudget")["spec"]["selector"]]:
                    self.assertEqual(selector["matchLabels"], reader)
                self.assertLessEqual(reader.items(), labels.items())
                # The pod that checks is let out too, and is neither counted nor scraped.
                self.assertLessEqual(own.items(), checks.items())
                self.assertFalse(reader.items() <= checks.items())
                for item in objects:
                    if item["kind"] == "NetworkPolicy":
                        self.assertEqual(item["spec"]["podSelector"]["matchLabels"], own)
                    if item["kind"] == "CiliumNetworkPolicy":
                        self.assertEqual(item["spec"]["endpointSelector"]["matchLabels"], own)

    def test_references_resolve(self):
        for name, objects in everything():
            with self.subTest(name=name):
                namespaces = {item["metadata"].get("namespace", "audit-bridge") for item in objects}
                self.assertEqual(namespaces, {"audit-bridge"})
                account = one(objects, "ServiceAccount")["metadata"]
                for spec in pods(objects):
                    self.assertEqual(spec["serviceAccountName"], account["name"])
                    (only,) = spec["containers"]
                    mounts = {mount["name"]: mount for mount in only["volumeMounts"]}
                    self.assertEqual(set(mounts), {volume["name"] for volume in spec["volumes"]})
                    self.assertEqual(mounts["state"]["mountPath"], "/var/lib/audit-bridge")
                    self._files(spec, only, mounts)
                for volume in pod(objects)["spec"]["volumes"]:
                    if "persistentVolumeClaim" in volume:
                        one(objects, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
                for binding in [item for item in objects if item["kind"] == "RoleBinding"]:
                    one(objects, "Role", binding["roleRef"]["name"])
                    self.assertEqual(
                        binding["subjects"],
                        [{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}],
                    )

    def _files(self, spec, only, mounts):
        """Every file that a variable names is an item of a Secret that is mounted read-only."""
        there = set()
        for volume in spec["volumes"]:
            for item in volume.get("secret", {}).get("items", []):
                self.assertTrue(mounts[volume["name"]]["readOnly"])
                there.add(f"{mounts[volume['name']]['mountPath']}/{item['path']}")
        named = {item["value"] for item in only["env"] if item.get("value", "").startswith("/")}
        self.assertEqual(named, there)

    def test_probes_and_grace(self):
        for name, objects in everything():
            with self.subTest(name=name):
                (port,) = container(objects)["ports"]
                self.assertEqual((port["name"], port["containerPort"]), ("admin", ADMIN_PORT))
                for probe, path in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
                    get = container(objects)[probe]["httpGet"]
                    self.assertEqual((get["path"], get["port"]), (path, "admin"))
                self.assertGreater(pod(objects)["spec"]["terminationGracePeriodSeconds"], SHUTDOWN_GRACE + 10)
                resources = container(objects)["resources"]
                self.assertEqual(resources["limits"], {"memory": "256Mi"})
                self.assertEqual(resources["requests"], {"cpu": "50m", "memory": "128Mi"})

    def test_port_is_the_default_of_the_program(self):
        files = [DEPLOY / "Dockerfile", *sorted((CHART / "templates").glob("*.*"))]
        # As a number of its own: behind a space, a quote or the colon of an address.
        port = re.compile(rf"""(?<=[ ":]){ADMIN_PORT}\b""")
        named = [file.name for file in files if port.search(file.read_text())]
        self.assertEqual(named, ADMIN_PORT_FILES)

    def test_helm_test_asks_what_the_bridge_does(self):
        for name, objects in everything():
            with self.subTest(name=name):
                check = one(objects, "Pod")
                self.assertEqual(check["metadata"]["annotations"]["helm.sh/hook"], "test")
                (only,) = check["spec"]["containers"]
                # With a canary where the bridge sends them too.
                variables = {item["name"] for item in container(objects).get("env", [])}
                with_canary = "AUDIT_BRIDGE_CANARY_INTERVAL" in variables
                more = ["--canary", "--canary-wait-max=4m"] if with_canary else []
                self.assertEqual(only["args"], ["check", *more])
                for same in ["env", "image", "volumeMounts"]:
                    self.assertEqual(only[same], container(objects)[same])
                # Not the claim: the bridge has locked what is on it.
                self.assertNotIn("persistentVolumeClaim", str(check))


class Releases(unittest.TestCase):
    def test_two_in_one_namespace_share_no_name(self):
        for bridge, changes in itertools.product(BRIDGES, [CASES["everything"], {**DURABLE, "replicas": 1}]):
            first, second = (render(bridge, changes, release) for release in ["prod", "prod-b"])
            named = [{(item["kind"], item["metadata"]["name"]) for item in objects} for objects in (first, second)]
            self.assertFalse(named[0] & named[1])
            # Nor a checkpoint, nor a Lease: else the second stands by for ever.
            names = [environment(objects)["AUDIT_BRIDGE_CHECKPOINT_NAME"] for objects in (first, second)]
            self.assertEqual(names, ["prod", "prod-b"])
            labels = pod(second)["metadata"]["labels"]
            self.assertFalse(one(first, "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items())

    def test_dashboards_have_ids_of_their_own(self):
        boards = set()
        for release in ["prod", "prod-b"]:
            data = one(render("eks", MONITORED, release), "ConfigMap", f"{release}-dashboard")["data"]
            board = json.loads(data[f"{release}.json"])
            self.assertLessEqual(len(board["uid"]), 40)
            boards.add(board["uid"])
        self.assertEqual(len(boards), 2)

    def test_an_object_of_ours_can_be_renamed_and_brought(self):
        objects = render("eks", {"fullnameOverride": "reader", "checkpoint": {"create": False}})
        self.assertEqual(one(objects, "Deployment")["metadata"]["name"], "reader")
        one(objects, "ConfigMap", "reader-canary")
        self.assertEqual(kinds(objects).count("ConfigMap"), 1)
        objects = render("eks", merged(DURABLE, {"persistence": {"existingClaim": "mine"}}))
        self.assertNotIn("PersistentVolumeClaim", kinds(objects))
        volumes = pod(objects)["spec"]["volumes"]
        self.assertIn({"name": "state", "persistentVolumeClaim": {"claimName": "mine"}}, volumes)


def chunks():
    """How many objects the bridge uses for what was delivered lately."""
    (source,) = ROOT.glob("crates/**/config_map_identities.rs")
    return int(re.search(r"IDENTITY_CHUNKS: usize = (\d+);", source.read_text())[1])


def canary_rule(own):
    return {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [f"{own}-canary"], "verbs": ["get", "patch"]}


class Rights(unittest.TestCase):
    def test_only_its_own_objects_and_no_create(self):
        for bridge, replicas in itertools.product(BRIDGES, [1, 2]):
            objects = render(bridge, {"replicas": replicas})
            own = f"{bridge}-audit-bridge"
            verbs = ["get", "update"]
            # A hub's positions are exact: nothing of it is read again.
            ring = [] if bridge == "aks" else [f"{own}-seen-{slot}" for slot in range(chunks())]
            rules = [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [own, *ring], "verbs": verbs}]
            if replicas == 2:
                group = "coordination.k8s.io"
                rules.append({"apiGroups": [group], "resources": ["leases"], "resourceNames": [own], "verbs": verbs})
                one(objects, "Lease", own)
            rules.insert(1, canary_rule(own))
            self.assertEqual(one(objects, "Role")["rules"], rules)
            self.assertTrue(pod(objects)["spec"]["automountServiceAccountToken"])
            # What it may not create is there, and empty: an upgrade must not touch what was written.
            for name in [own, *ring, f"{own}-canary"]:
                self.assertEqual(set(one(objects, "ConfigMap", name)), {"apiVersion", "kind", "metadata"})
            self.assertEqual(kinds(objects).count("ConfigMap"), 2 + len(ring))
            for item in [item for item in objects if item["kind"] == "Lease"]:
                self.assertEqual(set(item), {"apiVersion", "kind", "metadata"})

    def test_several_logs_have_slots_by_name_and_no_create(self):
        """What the bridge is told of, what it may use, and what is there are the same objects."""
        groups = ("eks", "two clusters")
        for case, slots, members, changes in [
            (groups, 8, None, {}),
            (groups, 10, None, {"eks": {"clusterNames": [f"c{n}" for n in range(10)]}}),
            (("eks", "stream, shared"), 64, 16, {}),
            (("aks", "shared"), 64, 16, {}),
            (("aks", "shared"), 100, 20, {"checkpoint": {"slots": 100, "members": 20}}),
        ]:
            with self.subTest(case=case, slots=slots):
                bridge, own = case[0], f"{case[0]}-audit-bridge"
                objects = render(bridge, merged(OF_ONE_CLOUD[case], {"canary": {"enabled": False}, **changes}))
                table = one(objects, "ConfigMap", f"{own}-slots")
                told = table["metadata"]["annotations"]
                wanted = {"audit-bridge/slots": str(slots), "helm.sh/resource-policy": "keep"}
                if members:
                    wanted["audit-bridge/members"] = str(members)
                self.assertEqual(told, wanted)
                positions = [own, *(f"{own}-slot-{slot}" for slot in range(slots))]
                ring = [f"{name}-seen-{n}" for name in positions for n in range(chunks()) if case == groups]
                leases = [*positions[1:], *(f"{own}-member-{n}" for n in range(members))] if members else []
                for kind, names in [("ConfigMap", [*positions, *ring, f"{own}-slots"]), ("Lease", leases)]:
                    found = {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}
                    self.assertEqual(set(found), set(names))
                    # Empty: an upgrade must not touch what was written.
                    for item in found.values():
                        self.assertEqual(set(item), {"apiVersion", "kind", "metadata"})
                    kept = {name for name, item in found.items() if "keep" in str(item["metadata"].get("annotations"))}
                    self.assertEqual(kept, {*positions, f"{own}-slots"} if kind == "ConfigMap" else set())
                    given = [rule for rule in one(objects, "Role")["rules"] if rule["resources"] == [f"{kind.lower()}s"]]
                    self.assertEqual([rule["verbs"] for rule in given], [["get", "update"]] * bool(names))
                    self.assertEqual(sorted(name for rule in given for name in rule["resourceNames"]), sorted(names))

    def test_one_log_group_that_is_left_of_several_finds_its_slot(self):
        """Its position is there: without the right to read it the bridge waits, as it must."""
        left, several = render("eks", {"checkpoint": {"slots": 8}}), render("eks", {"eks": {"clusterNames": ["a", "b"]}})
        maps, rights = [], []
        for objects in [left, several]:
            maps.append({item["metadata"]["name"] for item in objects if item["kind"] == "ConfigMap"})
            rights.append({name for rule in one(objects, "Role")["rules"] for name in rule["resourceNames"]})
        self.assertLessEqual(maps[1], maps[0])
        self.assertLessEqual(rights[1], rights[0])
        # It is still one log: canaries go on.
        self.assertIn("AUDIT_BRIDGE_CANARY_INTERVAL", environment(left))

    def test_nothing_may_be_created(self):
        for name, objects in everything():
            for role in [item for item in objects if item["kind"] == "Role"]:
                for rule in role["rules"]:
                    self.assertNotIn("create", rule["verbs"], name)
                    self.assertTrue(rule["resourceNames"], name)

    def test_canaries_bring_nothing_where_they_are_off(self):
        several = [
            ("eks", OF_ONE_CLOUD["eks", "two clusters"]),
            ("aks", {"aks": {"clusterNames": ["a", "b"]}}),
            ("aks", merged(OF_ONE_CLOUD["aks", "shared"], {"aks": {"clusterNames": ["a", "b"]}})),
            ("gke", {"gke": {"clusterName": "*"}}),
            ("gke", SUBSCRIPTION),
        ]
        for bridge, changes in [*((bridge, {"canary": {"enabled": False}}) for bridge in BRIDGES), *several]:
            with self.subTest(bridge=bridge, changes=changes):
                objects = render(bridge, changes)
                self.assertNotIn("canary", json.dumps([item for item in objects if item["kind"] != "PrometheusRule"]))

    def test_canaries_alone_need_one_object(self):
        on = {"canary": {"enabled": True, "interval": "30s", "deliver": False}}
        file = merged(DURABLE, {"checkpoint": {"store": "file"}})
        cases = [(bridge, merged(file, on)) for bridge in BRIDGES] + [("gke", merged(SUBSCRIPTION, on))]
        for bridge, changes in cases:
            with self.subTest(bridge=bridge, changes=changes):
                objects = render(bridge, changes, "prod")
                self.assertEqual(one(objects, "Role")["rules"], [canary_rule("prod")])
                one(objects, "ConfigMap", "prod-canary")
                self.assertTrue(pod(objects)["spec"]["automountServiceAccountToken"])
                variables = environment(objects)
                found = {name: variables.get(f"AUDIT_BRIDGE_{name}") for name in ["CANARY_INTERVAL", "CANARY_DELIVER"]}
                self.assertEqual(found, {"CANARY_INTERVAL": "30s", "CANARY_DELIVER": "false"})
                self.assertEqual(variables["AUDIT_BRIDGE_CHECKPOINT_NAME"], "prod")

    def test_canaries_of_replicas_that_share_are_sent_and_delivered(self):
        on = {"canary": {"enabled": True}}
        cases = [
            ("aks", OF_ONE_CLOUD["aks", "shared"]),
            ("aks", merged(OF_ONE_CLOUD["aks", "shared"], on)),
            ("gke", merged(merged(SUBSCRIPTION, {"replicas": 2}), on)),
        ]
        for bridge, changes in cases:
            with self.subTest(bridge=bridge, changes=changes):
                objects = render(bridge, changes, "prod")
                self.assertEqual(environment(objects)["AUDIT_BRIDGE_CANARY_INTERVAL"], "1m")
                self.assertIn(canary_rule("prod"), one(objects, "Role")["rules"])
                one(objects, "ConfigMap", "prod-canary")
                silent = merged(merged(example(bridge), changes), {"canary": {"enabled": True, "deliver": False}})
                self.assertIn("canary.deliver: replicas share", refusal(silent))
        # One pod alone is given what it has sent.
        render("gke", merged(SUBSCRIPTION, {"canary": {"enabled": True, "deliver": False}}))

    def test_none_where_the_position_is_elsewhere(self):
        file = merged(DURABLE, {"checkpoint": {"store": "file"}})
        for objects in [*(render(bridge, file) for bridge in BRIDGES), render("gke", SUBSCRIPTION)]:
            self.assertFalse({"Role", "RoleBinding", "ConfigMap", "Lease"} & set(kinds(objects)))
            self.assertFalse(pod(objects)["spec"]["automountServiceAccountToken"])
            self.assertNotIn("AUDIT_BRIDGE_CHECKPOINT_STORE", environment(objects))

    def test_never_more_than_a_namespace(self):
        for name, objects in everything():
            self.assertFalse({"ClusterRole", "ClusterRoleBinding", "Secret"} & set(kinds(objects)), name)
            self.assertFalse(one(objects, "ServiceAccount")["automountServiceAccountToken"])


class State(unittest.TestCase):
    def test_one_replica_ends_before_the_next_begins(self):
        for bridge in BRIDGES:
            plain = render(bridge)
            self.assertEqual(one(plain, "Deployment")["spec"]["strategy"], {"type": "Recreate"})
            self.assertEqual(one(plain, "Deployment")["spec"]["replicas"], 1)
            self.assertNotIn("AUDIT_BRIDGE_LEADER_ELECTION", environment(plain))

    def test_two_replicas_elect_one(self):
        for bridge in BRIDGES:
            objects = render(bridge, {"replicas": 2})
            deployment = one(objects, "Deployment")["spec"]
            self.assertEqual(deployment["replicas"], 2)
            self.assertEqual(environment(objects)["AUDIT_BRIDGE_LEADER_ELECTION"], "true")
            self.assertEqual(environment(objects)["AUDIT_BRIDGE_CHECKPOINT_STORE"], "kubernetes")
            # Both of a former release need not stay until both new ones are ready: one may wait for a former one to go.
            self.assertEqual(deployment["strategy"]["type"], "RollingUpdate")
            self.assertEqual(deployment["strategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 1})
            self.assertEqual(one(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1)
            spread = deployment["template"]["spec"]["topologySpreadConstraints"]
            self.assertEqual(len(spread), 2)
            for constraint in spread:
                self.assertEqual(constraint["labelSelector"], deployment["selector"])

    def test_replicas_that_all_read_elect_nobody(self):
        shared = render("aks", OF_ONE_CLOUD["aks", "shared"])
        self.assertEqual(environment(shared)["AUDIT_BRIDGE_SHARE_PARTITIONS"], "true")
        for objects in [shared, render("gke", merged(SUBSCRIPTION, {"replicas": 3}))]:
            self.assertNotIn("AUDIT_BRIDGE_LEADER_ELECTION", environment(objects))
            self.assertEqual(one(objects, "Deployment")["spec"]["replicas"], 3)
            rolling = one(objects, "Deployment")["spec"]["strategy"]["rollingUpdate"]
            self.assertEqual(rolling, {"maxSurge": 1, "maxUnavailable": 0})

    def test_what_is_kept_survives_an_uninstall(self):
        keep = {"helm.sh/resource-policy": "keep"}
        objects = render("eks", DURABLE)
        self.assertEqual(one(objects, "PersistentVolumeClaim")["metadata"]["annotations"], keep)
        self.assertEqual(one(objects, "ConfigMap", "eks-audit-bridge")["metadata"]["annotations"], keep)
        objects = render("eks", merged(DURABLE, {"persistence": {"keep": False}, "checkpoint": {"keep": False}}))
        self.assertNotIn("keep", str(objects))


class Clouds(unittest.TestCase):
    def test_identity(self):
        for bridge, key in [
            ("eks", "eks.amazonaws.com/role-arn"),
            ("gke", "iam.gke.io/gcp-service-account"),
            ("aks", "azure.workload.identity/client-id"),
        ]:
            annotations = one(render(bridge), "ServiceAccount")["metadata"]["annotations"]
            self.assertEqual(list(annotations), [key])
        use = "azure.workload.identity/use"
        without = render("aks", CONNECTION_STRING)
        for objects, wanted in [(render("aks"), "true"), (without, None), (render("eks"), None)]:
            self.assertEqual(pod(objects)["metadata"]["labels"].get(use), wanted)
            self.assertEqual(one(objects, "Pod")["metadata"]["labels"].get(use), wanted)

    def test_the_region_is_a_variable_of_the_container(self):
        """EKS's webhook sets AWS_REGION where the container has none of its own."""
        self.assertEqual(environment(render("eks"))["AWS_REGION"], "eu-central-1")
        self.assertNotIn("AWS_REGION", environment(render("eks", {"eks": {"region": ""}})))

    def test_a_client_certificate_is_a_file_and_an_identity_of_its_own(self):
        """No Workload Identity: neither the label nor the annotations that ask for its token."""
        objects = render("aks", CLIENT_CERTIFICATE)
        variables = environment(objects)
        path = variables["AZURE_CLIENT_CERTIFICATE_PATH"]
        container = pod(objects)["spec"]["containers"][0]
        folders = [mount["mountPath"] for mount in container["volumeMounts"]]
        self.assertIn(path.rpartition("/")[0], folders)
        self.assertEqual(variables["AZURE_TENANT_ID"], TENANT)
        self.assertNotIn("azure.workload.identity/use", pod(objects)["metadata"]["labels"])
        self.assertNotIn("annotations", one(objects, "ServiceAccount")["metadata"])

    def test_web_sockets_need_no_port_besides_443(self):
        for kind, policy in (("standard", "NetworkPolicy"), ("cilium", "CiliumNetworkPolicy")):
            changes = {"aks": {"transport": "amqp-web-sockets"}, "networkPolicy": {"type": kind}}
            objects = render("aks", changes)
            self.assertEqual(environment(objects)["AUDIT_BRIDGE_EVENT_HUB_TRANSPORT"], "amqp-web-sockets")
            self.assertNotIn("5671", str(one(objects, policy)))
            self.assertIn("443", str(one(objects, policy)))

    def test_network(self):
        """Out to what the cloud needs; in from nowhere."""
        extra = {
            "eks": [("169.254.170.23/32", 80), ("fd00:ec2::23/128", 80)],
            "gke": [("169.254.169.254/32", 80), ("169.254.169.252/32", 988)],
            "aks": [("any", 5671)],
        }
        for bridge in BRIDGES:
            policy = one(render(bridge), "NetworkPolicy")["spec"]
            self.assertEqual(sorted(policy["policyTypes"]), ["Egress", "Ingress"])
            self.assertNotIn("ingress", policy)
            open_to = set()
            for rule in policy["egress"]:
                places = [to["ipBlock"]["cidr"] for to in rule.get("to", [])] or ["any"]
                open_to |= {(place, port["port"]) for place in places for port in rule["ports"]}
            for needed in [("any", 53), ("any", 443), ("any", 9765), *extra[bridge]]:
                self.assertIn(needed, open_to)
            self.assertNotIn(("any", 80), open_to)

    def test_the_ports_of_webhook_and_proxy_are_open(self):
        for url, port in [
            ("http://a.b.svc:7765/k8s_audit", 7765),
            ("http://a.b.svc", 80),
            ("https://a.b.svc/x:1", 443),
            ("https://[fd00::1]:8443/", 8443),
        ]:
            changes = {
                "webhook": {"url": url},
                "proxy": {"https": "http://proxy:3128"},
                "networkPolicy": {"extraEgressPorts": [10250, {"port": 8126, "protocol": "UDP"}]},
            }
            for kind in ["standard", "cilium"]:
                objects = render("eks", merged(changes, {"networkPolicy": {"type": kind}}))
                name = "NetworkPolicy" if kind == "standard" else "CiliumNetworkPolicy"
                text = json.dumps(one(objects, name)["spec"]["egress"][1])
                for wanted in [443, port, 3128, 10250, 8126]:
                    self.assertRegex(text, rf'"port": "?{wanted}\b')
                self.assertIn("UDP", text)

    def test_the_port_of_another_endpoint_of_the_cloud_is_open(self):
        for bridge, setting, url, port in [
            ("aks", "event-hub-endpoint", "amqps://hub.example:15671", 15671),
            ("aks", "event-hub-endpoint", "amqps://hub.example", 5671),
            ("aks", "event-hub-endpoint", "wss://hub.example/", 443),
            ("gke", "logging-endpoint", "https://logging.example:8443/v2", 8443),
        ]:
            for kind in ["standard", "cilium"]:
                changes = {"settings": {setting: url}, "networkPolicy": {"type": kind}}
                name = "NetworkPolicy" if kind == "standard" else "CiliumNetworkPolicy"
                text = json.dumps(one(render(bridge, changes), name)["spec"]["egress"][1])
                self.assertRegex(text, rf'"port": "?{port}\b', url)

    def test_a_policy_can_be_left_out_however_it_is_written(self):
        for word in ["none", "off", False]:
            objects = render("eks", {"networkPolicy": {"type": word}})
            self.assertFalse({"NetworkPolicy", "CiliumNetworkPolicy"} & set(kinds(objects)))

    def test_cilium_reaches_the_node_itself(self):
        """Cilium takes the agent of Pod Identity for the host, which an ipBlock never matches."""
        policy = one(render("eks", CASES["Cilium"]), "CiliumNetworkPolicy")["spec"]
        hosts = [rule for rule in policy["egress"] if rule.get("toEntities") == ["host"]]
        self.assertEqual(hosts[0]["toPorts"], [{"ports": [{"port": "80", "protocol": "TCP"}]}])
        self.assertEqual(policy["ingress"], [{}], "nobody comes in")

    def test_only_scrapers_of_their_namespace_come_in(self):
        rule = {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
            "podSelector": {"matchLabels": {"app": "prometheus"}},
        }
        (ingress,) = one(render("eks", SCRAPERS), "NetworkPolicy")["spec"]["ingress"]
        self.assertEqual(ingress, {"from": [rule], "ports": [{"port": "admin", "protocol": "TCP"}]})
        objects = render("eks", merged(SCRAPERS, CASES["Cilium"]))
        (ingress,) = one(objects, "CiliumNetworkPolicy")["spec"]["ingress"]
        labels = {"k8s:io.kubernetes.pod.namespace": "monitoring", "app": "prometheus"}
        self.assertEqual(ingress["fromEndpoints"], [{"matchLabels": labels}])

    def test_the_proxy_is_not_for_the_cluster_and_the_metadata_server(self):
        given = environment(render("eks", FURTHER))
        self.assertEqual(given["HTTPS_PROXY"], "http://proxy.example.com:3128")
        for part in ["example.com", ".svc", "$(KUBERNETES_SERVICE_HOST)", "169.254.170.23", "169.254.169.254"]:
            self.assertIn(part, given["NO_PROXY"].split(","))

    def test_images_can_be_pinned_by_digest(self):
        digest = "sha256:" + "0" * 64
        for bridge in BRIDGES:
            image = {"registry": "registry.example.com", "repository": "b", "digest": digest}
            self.assertEqual(container(render(bridge, {"image": image}))["image"], f"registry.example.com/b@{digest}")

    def test_further_things(self):
        objects = render("eks", FURTHER)
        spec = pod(objects)["spec"]
        self.assertEqual(spec["tolerations"], FURTHER["tolerations"])
        self.assertEqual(spec["priorityClassName"], "system-cluster-critical")
        self.assertEqual(spec["imagePullSecrets"], [{"name": "registry"}])
        self.assertEqual(spec["topologySpreadConstraints"], FURTHER["topologySpreadConstraints"])
        self.assertEqual(one(objects, "ServiceAccount")["metadata"]["name"], "reader")
        self.assertEqual(pod(objects)["metadata"]["annotations"]["note"], "text")
        self.assertEqual(pod(objects)["metadata"]["labels"]["mesh"], "off")
        one(objects, "ConfigMap", "eks-audit-bridge-more")
        given = environment(objects)
        self.assertEqual(given["RUST_LOG"], "debug")
        self.assertEqual(given["AUDIT_BRIDGE_POLL_INTERVAL"], "10s")
        # Not 2e+06.
        self.assertEqual(given["AUDIT_BRIDGE_BATCH_EVENTS_MAX"], "2000000")


# Values that would install and then do nothing, or not what they say: and what is said of them.
REFUSED = [
    ({"bridge": "oke"}, "/bridge"),
    ({"bridge": ""}, "bridge: say which"),
    ({"webhok": {"url": "x"}}, "webhok"),
    ({"eks": {"clusterName": "production"}}, "clusterName"),
    ({"webhook": {"url": ""}}, "webhook.url: say where"),
    ({"webhook": {"url": "falco:9765/k8s-audit"}}, "is no URL; write http://"),
    ({"webhook": {"url": "https://user:secret@receiver/"}}, "credentials in it"),
    ({"webhook": {"ca": {"secretName": "webhook-ca"}}}, "no certificate is ever used"),
    ({"image": {"registry": ""}}, "image.registry: no image is published"),
    ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    ({"eks": {"clusterNames": []}}, "eks.clusterNames: say which"),
    ({"eks": {"clusterNames": ["a", "b"], "logGroups": ["/c"]}}, "one for each"),
    ({"eks": {"clusterNames": ["a,b"]}}, "/eks/clusterNames/0"),
    ({"eks": {"clusterNames": ["arn:aws:eks:eu-central-1:111122223333:cluster/a"]}}, "is no name of an EKS cluster"),
    ({"eks": {"clusterNames": ["111122223333/a"]}}, "with eks.stream also"),
    ({"eks": {"clusterNames": "production"}}, "'/eks/clusterNames': got string, want array"),
    ({"webhook": {"token": "secret"}}, "'/webhook/token': got string, want object"),
    ({"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}, "set proxy.https"),
    ({"eks": {"region": "Frankfurt"}}, "/eks/region"),
    ({"eks": {"roleArn": "reader"}}, "is no ARN of a role"),
    ({"gke": {"projectId": "p"}}, "gke.projectId: not read with bridge: eks"),
    ({"aks": {"connectionString": {"secretName": "s"}}}, "aks.connectionString: not read with bridge: eks"),
    ({"deadLetter": {"ephemeral": False}}, "deadLetter.ephemeral: true"),
    ({"persistence": {"enabled": True}}, "take one of the two out"),
    ({"checkpoint": {"store": "file"}}, "without a volume each restart"),
    (merged(DURABLE, {"replicas": 2}), "cannot be held by several pods"),
    ({"serviceAccount": {"create": False}}, "serviceAccount.name: say which"),
    ({"serviceAccount": {"create": False, "name": "mine"}}, "annotate yours yourself"),
    ({"fullnameOverride": "Prod"}, "/fullnameOverride"),
    ({"networkPolicy": {"extraEgressPorts": [70000]}}, "/networkPolicy/extraEgressPorts/0"),
    ({"networkPolicy": {"scrapers": [{"podLabels": {"app": "prometheus"}}]}}, "namespace"),
    ({"monitoring": {"scrape": "podMonitor"}}, "networkPolicy.scrapers: the network policy lets nobody"),
    ({"monitoring": {"rules": {"enabled": True}}}, "nothing scrapes this release"),
    ({"monitoring": {"scrape": "azure", "rules": {"enabled": True}}}, "reads no rules from the cluster"),
    ({"settings": {"pol-interval": "10s"}}, "settings.pol-interval: eks-audit-bridge has no flag --pol-interval"),
    ({"settings": {"subscription": "s"}}, "has no flag --subscription"),
    ({"settings": {"leader-election": True}}, "settings.leader-election: set replicas instead"),
    ({"settings": {"cluster-name": "a"}}, "set eks.clusterNames instead"),
    ({"settings": {"until": "now"}}, "a Deployment never ends"),
    ({"settings": {"state-dir": "/x"}}, "settings.state-dir: take it out"),
    ({"settings": {"poll-interval": ["10s"]}}, "/settings/poll-interval"),
    ({"settings": {"AUDIT_BRIDGE_START": "earliest"}}, "AUDIT_BRIDGE_START"),
    ({"extraEnv": [{"name": "AUDIT_BRIDGE_WEBHOOK_URL", "value": "x"}]}, "AUDIT_BRIDGE_WEBHOOK_URL is there twice"),
    ({"extraEnv": [{"name": "AUDIT_BRIDGE_POL_INTERVAL", "value": "x"}]}, "no flag --pol-interval"),
    ({"replicas": -1}, "/replicas"),
    ({"terminationGracePeriodSeconds": 10}, "/terminationGracePeriodSeconds"),
]
REFUSED_ELSEWHERE = [
    ("eks", {"eks": {"stream": "audit", "logGroups": ["/a"]}}, "take the other out"),
    ("eks", {"eks": {"sharePartitions": True}}, "name it in eks.stream"),
    ("eks", {"settings": {"stream": "audit"}}, "set eks.stream instead"),
    ("eks", {"settings": {"catch-up": "a,b"}}, "run it as a Job"),
    ("eks", merged(DURABLE, {"eks": {"stream": "audit", "sharePartitions": True}, "checkpoint": {"store": "file"}}), "in ConfigMaps"),
    ("gke", {"gke": {"subscription": "s"}}, "is no path of a subscription"),
    ("gke", {"gke": {"resourceNames": ["projects/p/locations/global/buckets/b"]}}, "is no place that log entries"),
    ("gke", {"gke": {"resourceNames": ["folders/audit"]}}, "folders/NUMBER"),
    ("gke", {"gke": {"resourceNames": ["projects/p,projects/q"]}}, "/gke/resourceNames/0"),
    ("gke", {"gke": {"resourceNames": ["projects/q"], "subscription": "projects/p/subscriptions/s"}}, "take one of the two out"),
    ("gke", {"gke": {"projectId": "*", "resourceNames": []}}, "name several in gke.resourceNames"),
    ("gke", {"gke": {"serviceAccount": "reader"}}, "is no e-mail"),
    ("gke", {"gke": {"credentials": {"secretName": "key"}}}, "two identities"),
    ("gke", {"gke": {"includeDataAccess": "yes"}}, "/gke/includeDataAccess"),
    ("aks", {"aks": {"eventHubNamespace": "my-namespace"}}, "write it whole"),
    ("aks", {"aks": {"eventHubNamespace": ""}}, "aks.eventHubNamespace: say which"),
    ("aks", {"aks": {"clientId": "me"}}, "/aks/clientId"),
    ("aks", {"aks": {"clientId": ""}}, "the pod gets no token"),
    ("aks", {"aks": {"connectionString": {"secretName": "s"}}}, "two identities"),
    ("aks", {"aks": {"categories": ["kube-audit-all"]}}, "/aks/categories/0"),
    ("aks", {"aks": {"transport": "websockets"}}, "/aks/transport"),
    ("aks", {"settings": {"event-hub-transport": "amqp-tcp"}}, "set aks.transport instead"),
    ("aks", {"aks": {"clientCertificate": {"secretName": "s"}}}, "its tenant in aks.tenantId"),
    ("aks", {"replicas": 17, "aks": {"sharePartitions": True}}, "write at least as many as replicas"),
    ("eks", {"eks": {"clusterNames": ["a", "b", "c"]}, "checkpoint": {"slots": 2}}, "fewer than the log groups"),
    ("aks", merged(DURABLE, {"aks": {"sharePartitions": True}, "checkpoint": {"store": "file"}}), "in ConfigMaps"),
]


def keys(schema, at=()):
    """Every key of the schema: (path, its schema, whether it must be there)."""
    for key, inner in schema["properties"].items():
        if key != "global":
            yield (*at, key), inner, key in schema.get("required", [])
            if "properties" in inner:
                yield from keys(inner, (*at, key))


def nested(values):
    """{("a", "b"): c} as {"a": {"b": c}}."""
    result = {}
    for path, value in values.items():
        inner = result
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return result


class Strict(unittest.TestCase):
    def test_what_would_be_silently_dead_is_refused_with_a_sentence(self):
        cases = [("eks", *case) for case in REFUSED] + REFUSED_ELSEWHERE
        for bridge, changes, part in cases:
            with self.subTest(bridge=bridge, changes=changes):
                self.assertIn(part, refusal(merged(example(bridge), changes)))

    def test_a_key_without_its_value_is_refused_or_the_empty_one(self):
        """`store:` with nothing behind it: Helm takes the default away, and the position was on the node then."""
        required, optional = {}, {}
        for path, schema, needed in keys(json.loads((CHART / "values.schema.json").read_text())):
            empty = {"array": [], "object": {}}.get(schema.get("type"), "")
            (required if needed else optional)[path] = empty
        for least in [["eks"], ["webhook"], ["checkpoint", "store"], ["deadLetter", "ephemeral"], ["replicas"]]:
            self.assertIn(tuple(least), required)
        for path in required:
            said = refusal(merged(example("eks"), nested({path: None})))
            self.assertIn(f"missing property '{path[-1]}'", said)
        # Maps that have defaults are left out by it, as a user of Helm wants it.
        defaults = {("nodeSelector",), ("resources",), ("monitoring", "dashboard", "labels")}
        text(merged(example("eks"), nested(dict.fromkeys(defaults))), "r")
        # What an example has to say is refused with the same words; all else is as if it had been left empty.
        everywhere = ["bridge", "webhook.url", "image.registry"]
        for bridge, own in [("eks", ["clusterNames"]), ("gke", []), ("aks", ["eventHubNamespace", "clientId"])]:
            said = {tuple(path.split(".")) for path in [*everywhere, *(f"{bridge}.{key}" for key in own)]}
            others = set(optional) - said - defaults - {("networkPolicy", "scrapers")}
            base = merged(example(bridge), MONITORED)
            for some, of in [(said, refusal), (others, lambda values: text(values, "r"))]:
                null, empty = (nested({path: value(path) for path in some}) for value in [lambda _: None, optional.get])
                self.assertEqual(of(merged(base, null)), of(merged(base, empty)))

    def test_everything_wrong_is_named_at_once(self):
        said = refusal({})
        for part in ["bridge:", "image.registry:", "webhook.url:", "deadLetter.ephemeral:"]:
            self.assertIn(part, said)

    def test_a_name_that_cannot_be_a_checkpoints_is_refused(self):
        self.assertIn("cannot name a checkpoint", refusal(example("eks"), "a.b"))

    def test_every_value_is_in_the_schema_and_documented(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        text = (CHART / "values.yaml").read_text()
        values = yaml.safe_load(text)

        def same(values, schema, at):
            known = schema["properties"]
            self.assertFalse(schema["additionalProperties"], at)
            self.assertEqual(set(values) | {"global"} & set(known), set(known), at)
            for key, value in values.items():
                if isinstance(value, dict) and "properties" in known[key]:
                    same(value, known[key], f"{at}.{key}")

        same(values, schema, "")
        lines = text.splitlines()
        for number, line in enumerate(lines):
            leaf = re.match(r"( *)[a-zA-Z]+: *\S", line)
            nested = re.match(r"( *)[a-zA-Z]+:$", line)
            before = lines[number - 1].strip() if number else ""
            if leaf and (len(leaf[1]) == 0 or before.startswith("#")):
                self.assertTrue(before.startswith("# -- "), line)
            if nested and before.startswith("#"):
                self.assertTrue(before.startswith("# -- "), line)

    def test_notes_say_the_next_command(self):
        for bridge, changes, part in [
            ("eks", {"eks": {"roleArn": ""}}, "EKS Pod Identity only if"),
            ("gke", {"webhook": {"token": {"secretName": "t"}}}, "in plain text"),
            ("gke", {"gke": {"serviceAccount": ""}}, 'identity = "principal"'),
            ("aks", OF_ONE_CLOUD["aks", "shared"], "aks-audit-bridge is installed as prod"),
        ]:
            with scratch() as folder:
                copied = folder / "audit-bridge"
                shutil.copytree(CHART, copied)
                # `helm template` shows no notes: as the data of an object they are shown.
                notes = (copied / "templates/NOTES.txt").read_text().splitlines()
                body = "\n".join("    " + line for line in notes)
                head = "kind: Notes\nmetadata: {name: notes}\ndata:\n  text: |-\n    NOTES\n"
                (copied / "templates/notes.yaml").write_text(head + body)
                values = json.dumps(merged(example(bridge), changes))
                options = ["--namespace", "ns", "--kube-version", VERSIONS[1], "--values", "-"]
                options += ["--show-only", "templates/notes.yaml"]
                shown = run(go_tool("helm"), "template", "prod", copied, *options, stdin=values).stdout
            said = yaml.safe_load(shown)["data"]["text"]
            self.assertIn("helm test prod --namespace ns --logs", said)
            self.assertIn("lost with their pod", said)
            self.assertIn(part, said)
            # The Role names every object: Rights.
            self.assertNotIn("every ConfigMap", said)


class Kept(unittest.TestCase):
    """What is made from the chart and kept beside it; tests/infra/chart.py makes it anew."""

    def test_the_examples_are_what_the_chart_makes(self):
        for bridge in BRIDGES:
            kept = (DEPLOY / f"examples/{bridge}.yaml").read_text()
            self.assertEqual(kept, rendered_example(bridge), "run: python3 tests/infra/chart.py")

    def test_the_other_examples_are_valid(self):
        for name, versions in [("replay-job", ("1.29", VERSIONS[1])), ("sysdig-legacy-service", VERSIONS)]:
            item = yaml.safe_load((DEPLOY / f"examples/{name}.yaml").read_text())
            for version in versions:
                kubernetes_validate.validate(item, version, strict=True)
        spec = yaml.safe_load((DEPLOY / "examples/replay-job.yaml").read_text())["spec"]["template"]["spec"]
        restricted(self, spec)

    def test_the_examples_can_be_applied_as_they_are(self):
        for bridge in BRIDGES:
            objects = list(yaml.safe_load_all((DEPLOY / f"examples/{bridge}.yaml").read_text()))
            self.assertNotIn("Pod", [item["kind"] for item in objects], "kubectl would run the test")
            self.assertEqual({item["metadata"]["namespace"] for item in objects}, {"audit-bridge"})

    def test_the_table_of_values_is_up_to_date(self):
        self.assertEqual((CHART / "README.md").read_text(), table(), "run: python3 tests/infra/chart.py")

    def test_the_package_has_what_it_needs(self):
        with scratch() as folder:
            run(go_tool("helm"), "package", CHART, "--destination", folder)
            (package,) = folder.iterdir()
            inside = set(run("tar", "-tzf", package).stdout.split())
        for path in ["values.schema.json", "files/rules.yaml", "files/flags.yaml", "README.md"]:
            self.assertIn(f"audit-bridge/{path}", inside)
        self.assertNotIn("audit-bridge/README.md.gotmpl", inside)


if __name__ == "__main__":
    unittest.main()
