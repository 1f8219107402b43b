"""The recommended audit policy: valid, and what it decides."""

import unittest

import audit_policy
from audit_policy import policy


class Policy(unittest.TestCase):
    def test_the_api_server_would_take_it(self):
        self.assertEqual(audit_policy.problems(policy()), [])

    def test_mistakes_would_be_found(self):
        for change, word in [
            ({"apiVersion": "audit.k8s.io/v1beta1"}, "no audit.k8s.io/v1"),
            ({"rules": []}, "no rules"),
            ({"rules": [{"level": "All"}]}, "no level"),
            ({"rules": [{"level": "None", "resources": [{"group": "apps/v1"}]}]}, "without its version"),
            ({"rules": [{"level": "None", "nonResourceURLs": ["healthz"]}]}, "must begin with /"),
            ({"rules": [{"level": "None", "nonResourceURLs": ["/x"], "resources": [{}]}]}, "exclude"),
        ]:
            self.assertIn(word, "\n".join(audit_policy.problems({**policy(), **change})))

    def test_levels(self):
        person = {"user": "jane", "groups": ["system:authenticated"]}
        anonymous = {"user": "system:anonymous", "groups": ["system:unauthenticated"]}
        node = {"user": "system:node:a", "groups": ["system:nodes", "system:authenticated"]}
        manager = {"user": "system:kube-controller-manager", "groups": ["system:authenticated"]}
        core, rbac = {"group": ""}, {"group": "rbac.authorization.k8s.io"}
        cases = [
            # Never a secret's content, whatever the verb and whoever it is.
            *[
                ({**who, **core, "verb": verb, "resource": "secrets"}, "Metadata")
                for who in [person, node, manager]
                for verb in ["get", "list", "watch", "create", "update", "patch", "delete"]
            ],
            ({**person, **core, "verb": "create", "resource": "serviceaccounts/token"}, "Metadata"),
            ({**person, "group": "authentication.k8s.io", "verb": "create", "resource": "tokenreviews"}, "Metadata"),
            # What detection lives on.
            ({**person, **core, "verb": "create", "resource": "pods"}, "RequestResponse"),
            ({**person, **core, "verb": "patch", "resource": "pods/ephemeralcontainers"}, "RequestResponse"),
            ({**person, **core, "verb": "create", "resource": "pods/exec"}, "Request"),
            ({**person, **core, "verb": "get", "resource": "pods/exec"}, "Request"),
            ({**person, **core, "verb": "create", "resource": "pods/portforward"}, "Request"),
            ({**person, **core, "verb": "create", "resource": "configmaps"}, "RequestResponse"),
            ({**person, **core, "verb": "create", "resource": "services"}, "RequestResponse"),
            ({**person, **core, "verb": "delete", "resource": "namespaces"}, "RequestResponse"),
            ({**person, **rbac, "verb": "create", "resource": "clusterrolebindings"}, "RequestResponse"),
            ({**person, "group": "apps", "verb": "create", "resource": "deployments"}, "RequestResponse"),
            ({**manager, "group": "apps", "verb": "create", "resource": "replicasets"}, "RequestResponse"),
            ({**node, **core, "verb": "create", "resource": "pods"}, "RequestResponse"),
            # Reads: who, not what.
            ({**person, **core, "verb": "list", "resource": "pods"}, "Metadata"),
            ({**person, **core, "verb": "get", "resource": "pods/log"}, "Metadata"),
            ({**anonymous, **core, "verb": "list", "resource": "pods"}, "Metadata"),
            # Noise.
            ({**node, "group": "coordination.k8s.io", "verb": "update", "resource": "leases"}, "None"),
            ({**node, **core, "verb": "watch", "resource": "pods"}, "None"),
            ({**node, **core, "verb": "patch", "resource": "nodes/status"}, "Metadata"),
            ({**manager, **core, "verb": "list", "resource": "pods"}, "None"),
            ({**person, **core, "verb": "create", "resource": "events"}, "None"),
            ({**anonymous, "verb": "get", "path": "/healthz/etcd"}, "None"),
            ({**person, "verb": "get", "path": "/apis/apps/v1"}, "None"),
            ({**anonymous, "verb": "get", "path": "/version"}, "Metadata"),
            # A person's lease, an unknown resource: seen, without content.
            ({**person, "group": "coordination.k8s.io", "verb": "update", "resource": "leases"}, "Metadata"),
            ({**person, "group": "bitnami.com", "verb": "create", "resource": "sealedsecrets"}, "Metadata"),
        ]
        for request, expected in cases:
            self.assertEqual(audit_policy.level(policy(), request), expected, request)

    def test_every_rule_decides_something(self):
        """A rule that an earlier one covers would be a mistake of order."""
        rules = policy()["rules"]
        for number, rule in enumerate(rules):
            for user in rule.get("users", ["jane"]):
                groups = [rule.get("userGroups", ["system:authenticated"])[0]]
                base = {"user": user, "groups": groups, "verb": rule.get("verbs", ["create"])[0]}
                targets = [
                    {"group": known["group"], "resource": name.replace("*/", "pods/")}
                    for known in rule.get("resources", [])
                    for name in known.get("resources", ["things"])
                ] or [{"path": url.replace("*", "x")} for url in rule.get("nonResourceURLs", [])]
                targets = targets or [{"group": "example.com", "resource": "things"}]
                decided = {
                    next(i for i, r in enumerate(rules) if audit_policy._matches(r, {**base, **t})) for t in targets
                }
                self.assertIn(number, decided, rule)


if __name__ == "__main__":
    unittest.main()
