"""The Kubernetes manifests: rendered as a user applies them, valid, restricted, and consistent."""

import itertools
import re
import unittest

import kubernetes_validate
import yaml
from kit import BRIDGES, ROOT, scratch
from manifests import DEPLOY, build, container, environment, kinds, one, overlay, pod

# The oldest version that the pages promise, and the newest known here.
VERSIONS = ("1.27", "1.37")
COMPONENTS = sorted(path.name for path in (DEPLOY / "components").iterdir() if path.is_dir())
OPERATOR = "monitoring.coreos.com/v1"
BASE = ["ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget", "ServiceAccount"]
# Everything that Pod Security's "restricted" allows as a volume and we use.
VOLUMES = {"persistentVolumeClaim", "emptyDir", "secret"}


def everything():
    """Every combination that we tell of, by its name."""
    for bridge in BRIDGES:
        yield bridge, build(DEPLOY / bridge)
        yield f"examples/{bridge}", build(DEPLOY / "examples" / bridge)
        for component in COMPONENTS:
            yield f"{bridge} with {component}", overlay(bridge, (component,))
        usual = ("monitoring", "webhook-ca", "webhook-token", "high-availability")
        yield f"{bridge} with all", overlay(bridge, usual, "namespace: falco")


class Rendered(unittest.TestCase):
    def test_valid_for_kubernetes(self):
        checked = 0
        for name, objects in everything():
            for item, version in itertools.product(objects, VERSIONS):
                if item["apiVersion"] == OPERATOR:
                    continue  # no schema here; test_monitoring looks at these
                with self.subTest(name=name, kind=item["kind"], version=version):
                    kubernetes_validate.validate(item, version, strict=True)
                    checked += 1
        self.assertGreater(checked, 300)
        kubernetes_validate.validate(yaml.safe_load((DEPLOY / "namespace.yaml").read_text()), VERSIONS[0], strict=True)

    def test_the_schema_would_find_a_slip(self):
        deployment = yaml.safe_load(yaml.safe_dump(one(build(DEPLOY / "eks"), "Deployment")))
        deployment["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)

    def test_pod_security_restricted(self):
        for name, objects in everything():
            with self.subTest(name=name):
                spec = pod(objects)["spec"]
                self.assertTrue(spec["securityContext"]["runAsNonRoot"])
                self.assertGreater(spec["securityContext"]["runAsUser"], 0)
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                for key in ["hostNetwork", "hostPID", "hostIPC", "initContainers"]:
                    self.assertNotIn(key, spec)
                context = container(objects)["securityContext"]
                self.assertEqual(
                    context,
                    {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                )
                for volume in spec["volumes"]:
                    self.assertEqual(len(set(volume) & VOLUMES), 1, volume)
                self.assertNotIn("hostPort", str(objects))

    def test_names_and_labels(self):
        version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        for bridge in BRIDGES:
            objects = build(DEPLOY / bridge)
            self.assertEqual(kinds(objects), BASE)
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
            self.assertEqual(container(objects)["image"], f"audit-bridge/{own}:{version}")

    def test_selectors_take_this_bridge_only(self):
        for name, objects in everything():
            with self.subTest(name=name):
                labels = pod(objects)["metadata"]["labels"]
                own = {key: labels[key] for key in ["app.kubernetes.io/name", "app.kubernetes.io/part-of"]}
                deployment = one(objects, "Deployment")["spec"]
                budget = one(objects, "PodDisruptionBudget")["spec"]
                policy = one(objects, "NetworkPolicy", f"{name.split('/')[-1].split()[0]}-audit-bridge")["spec"]
                for selector in [deployment["selector"], budget["selector"], policy["podSelector"]]:
                    self.assertEqual(selector["matchLabels"], own)
                for spread in deployment["template"]["spec"].get("topologySpreadConstraints", []):
                    self.assertLessEqual(spread["labelSelector"]["matchLabels"].items(), labels.items())

    def test_references_resolve(self):
        for name, objects in everything():
            with self.subTest(name=name):
                spec = pod(objects)["spec"]
                namespaces = {item["metadata"].get("namespace") for item in objects}
                self.assertEqual(len(namespaces), 1, namespaces)
                account = one(objects, "ServiceAccount")["metadata"]
                self.assertEqual(spec["serviceAccountName"], account["name"])
                (source,) = container(objects)["envFrom"]
                one(objects, "ConfigMap", source["configMapRef"]["name"])
                for volume in spec["volumes"]:
                    if "persistentVolumeClaim" in volume:
                        one(objects, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
                mounts = {mount["name"]: mount for mount in container(objects)["volumeMounts"]}
                self.assertEqual(set(mounts), {volume["name"] for volume in spec["volumes"]})
                self.assertEqual(mounts["state"]["mountPath"], "/var/lib/audit-bridge")
                for value in environment(objects).values():
                    if value.startswith("/"):
                        self.assertTrue(any(value.startswith(m["mountPath"] + "/") for m in mounts.values()), value)
                for binding in [item for item in objects if item["kind"] == "RoleBinding"]:
                    one(objects, "Role", binding["roleRef"]["name"])
                    self.assertEqual(
                        binding["subjects"],
                        [{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}],
                    )

    def test_probes_and_grace(self):
        for name, objects in everything():
            with self.subTest(name=name):
                (port,) = container(objects)["ports"]
                self.assertEqual((port["name"], port["containerPort"]), ("admin", 8080))
                for probe, path in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
                    get = container(objects)[probe]["httpGet"]
                    self.assertEqual((get["path"], get["port"]), (path, "admin"))
                # --shutdown-grace is 25 s.
                self.assertGreater(pod(objects)["spec"]["terminationGracePeriodSeconds"], 25 + 10)
                resources = container(objects)["resources"]
                self.assertEqual(resources["limits"], {"memory": "256Mi"})
                self.assertEqual(resources["requests"], {"cpu": "50m", "memory": "32Mi"})


class Rights(unittest.TestCase):
    def test_none_by_default(self):
        for bridge in BRIDGES:
            objects = build(DEPLOY / bridge)
            self.assertFalse({"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & set(kinds(objects)))
            self.assertFalse(pod(objects)["spec"]["automountServiceAccountToken"])
            self.assertFalse(one(objects, "ServiceAccount")["automountServiceAccountToken"])

    def test_only_what_the_store_and_the_lease_need(self):
        config = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]}
        lease = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}
        for bridge in BRIDGES:
            for component, rules in [
                ("kubernetes-store", [config]),
                ("high-availability", [config, lease]),
                ("share-partitions", [config, lease]),
            ]:
                objects = overlay(bridge, (component,))
                self.assertEqual(one(objects, "Role")["rules"], rules)
                self.assertTrue(pod(objects)["spec"]["automountServiceAccountToken"])
                self.assertNotIn("ClusterRole", kinds(objects))

    def test_no_secret_and_no_identity_is_in_the_bases(self):
        for bridge in BRIDGES:
            objects = build(DEPLOY / bridge)
            self.assertNotIn("Secret", kinds(objects))
            self.assertNotIn("annotations", one(objects, "ServiceAccount")["metadata"])


class Components(unittest.TestCase):
    def test_state(self):
        for bridge in BRIDGES:
            plain = build(DEPLOY / bridge)
            self.assertEqual(one(plain, "Deployment")["spec"]["strategy"], {"type": "Recreate"})
            self.assertEqual(one(plain, "Deployment")["spec"]["replicas"], 1)
            self.assertEqual(environment(plain), {})
            store = overlay(bridge, ("kubernetes-store",))
            self.assertNotIn("PersistentVolumeClaim", kinds(store))
            self.assertEqual(pod(store)["spec"]["volumes"], [{"name": "state", "emptyDir": {}}])
            self.assertEqual(environment(store), {"AUDIT_BRIDGE_CHECKPOINT_STORE": "kubernetes"})

    def test_high_availability(self):
        for bridge in BRIDGES:
            objects = overlay(bridge, ("high-availability",))
            deployment = one(objects, "Deployment")["spec"]
            self.assertEqual(deployment["replicas"], 2)
            # Two pods at once need a Lease, and no volume that one of them would hold.
            self.assertEqual(environment(objects)["AUDIT_BRIDGE_LEADER_ELECTION"], "true")
            self.assertEqual(environment(objects)["AUDIT_BRIDGE_CHECKPOINT_STORE"], "kubernetes")
            self.assertNotIn("PersistentVolumeClaim", kinds(objects))
            self.assertEqual(deployment["strategy"]["type"], "RollingUpdate")
            self.assertEqual(one(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1)

    def test_share_partitions(self):
        objects = overlay("aks", ("share-partitions",))
        self.assertEqual(one(objects, "Deployment")["spec"]["replicas"], 3)
        self.assertEqual(environment(objects)["AUDIT_BRIDGE_SHARE_PARTITIONS"], "true")
        # One of the two decides who reads.
        self.assertEqual(environment(objects)["AUDIT_BRIDGE_LEADER_ELECTION"], "false")
        self.assertEqual(environment(objects)["AUDIT_BRIDGE_CHECKPOINT_STORE"], "kubernetes")

    def test_secrets_are_mounted_read_only_and_by_key(self):
        for component, variable, secret in [
            ("webhook-ca", "AUDIT_BRIDGE_WEBHOOK_CA_FILE", "webhook-ca"),
            ("webhook-token", "AUDIT_BRIDGE_WEBHOOK_TOKEN_FILE", "webhook-token"),
            ("connection-string", "AUDIT_BRIDGE_CONNECTION_STRING_FILE", "event-hub-connection-string"),
        ]:
            objects = overlay("aks", (component,))
            self.assertIn(variable, environment(objects))
            (volume,) = [volume for volume in pod(objects)["spec"]["volumes"] if "secret" in volume]
            self.assertEqual(volume["secret"]["secretName"], secret)
            (mount,) = [m for m in container(objects)["volumeMounts"] if m["name"] == volume["name"]]
            self.assertTrue(mount["readOnly"])

    def test_the_examples_offer_components_that_fit(self):
        for bridge in BRIDGES:
            path = DEPLOY / "examples" / bridge / "kustomization.yaml"
            offered = re.sub(r"^# (components:|  - )", r"\1", path.read_text(), flags=re.M)
            document = yaml.safe_load(offered)
            self.assertGreaterEqual(len(document["components"]), 3)
            with scratch() as folder:
                # Beside the other examples, as far as relative paths go.
                (folder / "kustomization.yaml").write_text(offered.replace("../../", "../../../deploy/"))
                objects = build(folder)
            self.assertIn("PodMonitor", kinds(objects))
            self.assertEqual(one(objects, "Deployment")["spec"]["replicas"], 2)

    def test_every_component_is_told_of(self):
        text = (DEPLOY / "components/README.md").read_text()
        for name in COMPONENTS:
            self.assertIn(f"[{name}]({name})", text)


class Clouds(unittest.TestCase):
    def test_identity_in_the_examples(self):
        for bridge, key in [
            ("eks", "eks.amazonaws.com/role-arn"),
            ("gke", "iam.gke.io/gcp-service-account"),
            ("aks", "azure.workload.identity/client-id"),
        ]:
            annotations = one(build(DEPLOY / "examples" / bridge), "ServiceAccount")["metadata"]["annotations"]
            self.assertEqual(list(annotations), [key])
        self.assertEqual(pod(build(DEPLOY / "aks"))["metadata"]["labels"]["azure.workload.identity/use"], "true")

    def test_network(self):
        """Out to what the cloud needs; in from nowhere."""
        extra = {
            "eks": [("169.254.170.23/32", 80), ("fd00:ec2::23/128", 80)],
            "gke": [("169.254.169.254/32", 80), ("169.254.169.252/32", 988)],
            "aks": [("any", 5671)],
        }
        for bridge in BRIDGES:
            policy = one(build(DEPLOY / bridge), "NetworkPolicy")["spec"]
            self.assertEqual(sorted(policy["policyTypes"]), ["Egress", "Ingress"])
            self.assertNotIn("ingress", policy)
            open_to = set()
            for rule in policy["egress"]:
                places = [to["ipBlock"]["cidr"] for to in rule.get("to", [])] or ["any"]
                open_to |= {(place, port["port"]) for place in places for port in rule["ports"]}
            for needed in [("any", 53), ("any", 443), ("any", 9765), ("any", 6443), *extra[bridge]]:
                self.assertIn(needed, open_to)

    def test_settings_are_flags_of_the_bridge(self):
        """A misspelt variable would be ignored in silence."""
        for bridge in BRIDGES:
            sources = [*(ROOT / "crates/core/src").rglob("*.rs"), *(ROOT / "bridges" / bridge / "src").rglob("*.rs")]
            known = set(re.findall(r'"(AUDIT_BRIDGE_[A-Z_]+)"', "\n".join(path.read_text() for path in sources)))
            names = set()
            for objects in [build(DEPLOY / "examples" / bridge), overlay(bridge, ("high-availability", "webhook-ca"))]:
                for item in objects:
                    names |= set(item.get("data", {})) if item["kind"] == "ConfigMap" else set()
                names |= set(environment(objects))
            names |= set(environment(overlay(bridge, ("webhook-token",))))
            if bridge == "aks":
                names |= set(environment(overlay("aks", ("connection-string",))))
            self.assertEqual(names - known, set(), f"{bridge}: no flag has these variables")

    def test_images_can_be_pinned_by_digest(self):
        digest = "sha256:" + "0" * 64
        for bridge in BRIDGES:
            image = f"audit-bridge/{bridge}-audit-bridge"
            extra = f"images: [{{name: {image}, newName: registry.example.com/b, digest: '{digest}'}}]"
            self.assertEqual(container(overlay(bridge, (), extra))["image"], f"registry.example.com/b@{digest}")


if __name__ == "__main__":
    unittest.main()
