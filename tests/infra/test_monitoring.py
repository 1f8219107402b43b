"""The dashboard and the alerts: valid, and about metrics that exist."""

import json
import re
import unittest

import promql_parser
from kit import BRIDGES, ROOT
from manifests import DEPLOY, container, one, overlay, pod

# What Prometheus and its operator add to every series.
TARGET_LABELS = {"namespace", "pod", "container", "job", "instance", "app_kubernetes_io_name"}
RULES = {
    "Lagging": "lag",
    "NotReady": "ready",
    "DeadLetters": "dead_lettered",
    "EventsParked": "oldest_parked",
    "Throttled": "throttled",
    "RecordsExpired": "expired",
}


def metrics():
    """Every metric of names.rs: its series, with their labels."""
    text = (ROOT / "crates/core/src/telemetry/names.rs").read_text()
    found = {}
    for name, kind, labels in re.findall(r'= "(\w+)", (Counter|Gauge|Histogram), \[([^\]]*)\]', text):
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


def alerts(bridge="eks"):
    objects = overlay(bridge, ("monitoring",))
    (group,) = one(objects, "PrometheusRule")["spec"]["groups"]
    return group["rules"]


def dashboard():
    objects = overlay("eks", ("monitoring",))
    return json.loads(one(objects, "ConfigMap", "audit-bridges-dashboard")["data"]["audit-bridges.json"])


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
    def test_the_pod_monitor_finds_the_port(self):
        for bridge in BRIDGES:
            objects = overlay(bridge, ("monitoring",))
            monitor = one(objects, "PodMonitor")["spec"]
            labels = pod(objects)["metadata"]["labels"]
            self.assertLessEqual(monitor["selector"]["matchLabels"].items(), labels.items())
            (endpoint,) = monitor["podMetricsEndpoints"]
            self.assertIn(endpoint["port"], [port["name"] for port in container(objects)["ports"]])
            self.assertEqual(endpoint["path"], "/metrics")
            policy = one(objects, "NetworkPolicy", "audit-bridges-metrics")["spec"]
            self.assertEqual(policy["ingress"][0]["ports"], [{"port": "admin", "protocol": "TCP"}])

    def test_the_dashboard_is_on_disk_as_rendered(self):
        self.assertEqual(dashboard(), json.loads((DEPLOY / "components/monitoring/audit-bridges.json").read_text()))


if __name__ == "__main__":
    unittest.main()
