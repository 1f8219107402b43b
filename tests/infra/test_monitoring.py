"""The dashboard and the alerts: valid, and about metrics that exist."""

import json
import re
import unittest

import promql_parser
import yaml
from chart import CHART, container, kinds, merged, one, pod, render
from kit import BRIDGES, ROOT

# What Prometheus and its operator add to every series.
TARGET_LABELS = {"namespace", "pod", "container", "job", "instance", "app_kubernetes_io_name"}
RULES = {
    "Lagging": "lag",
    "NotReady": "ready",
    "DeadLetters": "dead_lettered",
    "EventsParked": "oldest_parked",
    "Throttled": "throttled",
    "RecordsExpired": "expired",
    "CanaryLost": "canary_lost",
    "CanaryUnverified": "canary_unverified",
    "CanaryUnsent": "canary_requests",
}


def metrics():
    """Every metric of metrics.rs: its series, with their labels."""
    text = (ROOT / "crates/app/src/telemetry/metrics.rs").read_text()
    found = {}
    for kind, name, labels in re.findall(r'(?m)^    \w+: (\w+) = "(\w+)", \[([^\]]*)\]', text):
        series = [""] if kind != "Histogram" else ["_bucket", "_count", "_sum"]
        for end in series:
            extra = {"le"} if end == "_bucket" else set()
            found[f"audit_bridge_{name}{end}"] = set(re.findall(r'"(\w+)"', labels)) | extra
    return found


def selectors(expression):
    """Every series that an expression names, with the labels that it selects by."""
    found = []

    class Visitor:
        def pre_visit(self, node):
            if isinstance(node, promql_parser.VectorSelector):
                found.append(node)
            elif isinstance(node, promql_parser.MatrixSelector):
                found.append(node.vector_selector)
            return True

    def walk(node):
        Visitor().pre_visit(node)
        for name in ["lhs", "rhs", "expr", "args", "param"]:
            child = getattr(node, name, None)
            for part in child if isinstance(child, list) else [child]:
                if isinstance(part, promql_parser.Expr):
                    walk(part)

    walk(promql_parser.parse(expression))
    return found


def alerts():
    """As they are in the chart's file; what becomes of them for a release: Scraping."""
    (group,) = yaml.safe_load((CHART / "files/rules.yaml").read_text())["spec"]["groups"]
    return group["rules"]


def dashboard():
    return json.loads((CHART / "files/audit-bridges.json").read_text())


class Metrics(unittest.TestCase):
    def test_the_list_is_read(self):
        known = metrics()
        self.assertGreater(len(known), 14)
        self.assertEqual(known["audit_bridge_records_skipped_total"], {"reason"})
        self.assertIn("audit_bridge_webhook_request_duration_seconds_bucket", known)

    def test_a_metric_that_does_not_exist_is_found(self):
        (selector,) = selectors('sum by (pod) (rate(audit_bridge_nothing_total{x="y"}[5m])) > 0')
        self.assertNotIn(selector.name, metrics())

    def _check(self, expression):
        found = selectors(expression)
        self.assertTrue(found, f"no series in {expression}")
        known = metrics()
        for selector in found:
            self.assertIn(selector.name, known, expression)
            labels = {matcher.name for matcher in selector.matchers.matchers}
            self.assertLessEqual(labels, known[selector.name] | TARGET_LABELS, expression)
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
        allowed = set().union(TARGET_LABELS, *(known.get(selector.name, set()) for selector in found))
        self.assertLessEqual(grouped, allowed, expression)
        return {selector.name for selector in found}

    def test_alerts(self):
        used = set()
        for rule in alerts():
            with self.subTest(alert=rule["alert"]):
                used |= self._check(rule["expr"])
                self.assertIn(rule["labels"]["severity"], {"critical", "warning", "info"})
                self.assertEqual(set(rule["annotations"]), {"summary", "description"})
                allowed = {"alert", "expr", "for", "labels", "annotations"}
                self.assertLessEqual(set(rule), allowed)
        for name, word in RULES.items():
            (rule,) = [rule for rule in alerts() if rule["alert"] == f"AuditBridge{name}"]
            self.assertIn(word, rule["expr"])

    def test_dashboard(self):
        board, used = dashboard(), set()
        ids = [panel["id"] for panel in board["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        for panel in board["panels"]:
            with self.subTest(panel=panel["title"]):
                self.assertTrue(panel["description"])
                for target in panel["targets"]:
                    expression = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "1h")
                    used |= self._check(expression)
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                inner = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                self.assertIn(inner[2], TARGET_LABELS)
                self._check(inner[1])
        shown = {re.sub("_(bucket|sum|count)$", "", name) for name in used}
        wanted = {re.sub("_(bucket|sum|count)$", "", name) for name in metrics()}
        self.assertEqual(wanted - shown, set(), "metrics that the dashboard does not show")

    def test_panels_do_not_overlap(self):
        taken = set()
        for panel in dashboard()["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells


class Scraping(unittest.TestCase):
    SCRAPERS = {"networkPolicy": {"scrapers": [{"namespace": "monitoring"}]}}

    def objects(self, bridge, scrape, release=None, **more):
        monitoring = {"scrape": scrape, "labels": {"release": "prometheus"}, "rules": {"enabled": scrape != "azure"}}
        return render(bridge, merged(self.SCRAPERS, {"monitoring": {**monitoring, **more}}), release)

    def test_each_way_finds_the_port_of_the_readers_only(self):
        for bridge in BRIDGES:
            for scrape, kind, group, endpoints in [
                ("podMonitor", "PodMonitor", "monitoring.coreos.com/v1", "podMetricsEndpoints"),
                ("serviceMonitor", "ServiceMonitor", "monitoring.coreos.com/v1", "endpoints"),
                ("gmp", "PodMonitoring", "monitoring.googleapis.com/v1", "endpoints"),
                ("azure", "PodMonitor", "azmonitoring.coreos.com/v1", "podMetricsEndpoints"),
            ]:
                with self.subTest(bridge=bridge, scrape=scrape):
                    objects = self.objects(bridge, scrape)
                    monitor = one(objects, kind)
                    self.assertEqual(monitor["apiVersion"], group)
                    self.assertEqual(monitor["metadata"]["labels"]["release"], "prometheus")
                    labels = pod(objects)["metadata"]["labels"]
                    if kind == "ServiceMonitor":
                        service = one(objects, "Service")
                        self.assertLessEqual(service["spec"]["selector"].items(), labels.items())
                        labels = service["metadata"]["labels"]
                    self.assertLessEqual(monitor["spec"]["selector"]["matchLabels"].items(), labels.items())
                    (endpoint,) = monitor["spec"][endpoints]
                    self.assertIn(endpoint["port"], [port["name"] for port in container(objects)["ports"]])
                    self.assertEqual(endpoint["path"], "/metrics")
                    # What the dashboard groups by.
                    self.assertIn("app.kubernetes.io/name", str(monitor["spec"]))

    def test_the_collectors_of_the_clouds_come_in_by_themselves(self):
        for bridge, scrape, namespace in [("gke", "gmp", "gmp-system"), ("aks", "azure", "kube-system")]:
            objects = render(bridge, {"monitoring": {"scrape": scrape}})
            (ingress,) = one(objects, "NetworkPolicy")["spec"]["ingress"]
            found = [peer["namespaceSelector"]["matchLabels"] for peer in ingress["from"]]
            self.assertIn({"kubernetes.io/metadata.name": namespace}, found)

    def test_the_rules_are_those_of_the_file_for_the_pods_of_the_release(self):
        only = 'namespace="audit-bridge",pod=~"prod-[a-z0-9]+-[a-z0-9]+"'
        for scrape, kind in [("podMonitor", "PrometheusRule"), ("gmp", "Rules")]:
            (group,) = one(self.objects("eks", scrape, "prod"), kind)["spec"]["groups"]
            self.assertEqual(group["name"], "prod")
            self.assertEqual(len(group["rules"]), len(alerts()))
            for rule, ours in zip(group["rules"], alerts(), strict=True):
                with self.subTest(alert=ours["alert"]):
                    for selector in selectors(rule["expr"]):
                        self.assertIn("namespace", [m.name for m in selector.matchers.matchers], rule["expr"])
                    plain = rule["expr"].replace("{" + only + "}", "").replace(only + ",", "")
                    self.assertEqual(plain, ours["expr"])
                    self.assertEqual(rule["labels"], {**ours["labels"], "release": "prod"})
                    self.assertEqual(rule["annotations"], ours["annotations"])
                    self.assertEqual(rule.get("for"), ours.get("for"))

    def test_an_alert_knows_the_pods_of_its_release_from_those_of_another(self):
        """`prod-b-…` is not a pod of `prod`; AuditBridgeDown would not see that `prod` is gone."""
        (group,) = one(self.objects("eks", "podMonitor", "prod"), "PrometheusRule")["spec"]["groups"]
        pattern = re.search(r'pod=~"([^"]+)"', group["rules"][0]["expr"])[1]
        for name, ours in [("prod-7d9f8c6b5-x2x4z", True), ("prod-b-7d9f8c6b5-x2x4z", False), ("prod-check", False)]:
            self.assertEqual(bool(re.fullmatch(pattern, name)), ours, name)

    def test_alerts_can_be_labelled(self):
        rules = {"enabled": True, "alertLabels": {"team": "security"}}
        (group,) = one(self.objects("eks", "podMonitor", rules=rules), "PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]:
            self.assertEqual(rule["labels"]["team"], "security")

    def test_the_dashboard_is_as_on_disk(self):
        objects = self.objects("eks", "podMonitor", "prod", dashboard={"enabled": True})
        config = one(objects, "ConfigMap", "prod-dashboard")
        self.assertEqual(config["metadata"]["labels"]["grafana_dashboard"], "1")
        board = json.loads(config["data"]["prod.json"])
        self.assertEqual({**board, "uid": ""}, {**dashboard(), "uid": ""})

    def test_nothing_unless_asked_for(self):
        for bridge in BRIDGES:
            self.assertFalse({"PodMonitor", "PrometheusRule", "Service"} & set(kinds(render(bridge))))


if __name__ == "__main__":
    unittest.main()
