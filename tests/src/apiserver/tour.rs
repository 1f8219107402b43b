//! A tour of an API server: every verb and subresource, every refusal, and hostile requests.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{ApiAnswer, ApiClient, ApiRequest};
use super::hostile;
use super::{ADMIN, ALICE, ApiServer};

pub(super) const NS: &str = "/api/v1/namespaces/tour";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/tour";
const APPS: &str = "/apis/apps/v1/namespaces/tour";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// The tour's clients, and unexpected answers.
pub struct Tour<'a> {
    server: &'a ApiServer,
    pub(super) admin: ApiClient,
    alice: ApiClient,
    unexpected: Vec<String>,
    requests: usize,
}

/// Makes the tour. Returns how many requests it sent.
///
/// # Panics
/// An answer is not as expected, so the tour would not show what it should.
pub fn make(server: &ApiServer) -> usize {
    let mut tour = Tour {
        server,
        admin: server.client(ADMIN),
        alice: server.client(ALICE),
        unexpected: Vec::new(),
        requests: 0,
    };
    tour.discovery();
    tour.access();
    tour.pods();
    tour.connections();
    tour.patches();
    tour.refusals();
    tour.bodies();
    tour.identities();
    tour.workloads();
    tour.custom();
    hostile::visit(&mut tour);
    tour.deletions();
    assert_eq!(tour.unexpected, Vec::<String>::new());
    tour.requests
}

/// A container that Pod Security allows at any level.
fn container(name: &str) -> Value {
    json!({"name": name, "image": "registry.example/none:1", "securityContext": {
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }})
}

pub(super) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"containers": [container("c")]}})
}

pub(super) fn config_map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

impl Tour<'_> {
    /// Sends a request that must be answered with one of these statuses.
    pub(super) fn send_as(
        &mut self,
        client: &ApiClient,
        want: &[u16],
        request: &ApiRequest,
    ) -> ApiAnswer {
        let agent = request.headers.iter().any(|(name, _)| name == "User-Agent");
        let request = match agent {
            true => request.clone(),
            false => request.clone().header("User-Agent", "tour/1.0"),
        };
        let answer = client.send(&request);
        self.requests += 1;
        if !want.contains(&answer.status) {
            let target = String::from_utf8_lossy(&request.target[..request.target.len().min(120)]);
            let said: String = answer.text().chars().take(300).collect();
            let (method, status) = (&request.method, answer.status);
            self.unexpected.push(format!(
                "{method} {target}: {status} instead of {want:?}: {said}"
            ));
        }
        answer
    }

    pub(super) fn send(&mut self, want: u16, request: &ApiRequest) -> ApiAnswer {
        let admin = self.admin.clone();
        self.send_as(&admin, &[want], request)
    }

    fn get(&mut self, want: u16, target: &str) -> ApiAnswer {
        self.send(want, &ApiRequest::new("GET", target))
    }

    pub(super) fn post(&mut self, want: u16, target: &str, body: &Value) -> ApiAnswer {
        self.send(want, &ApiRequest::new("POST", target).json(body))
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write json!(…)")]
    pub(super) fn patch(
        &mut self,
        want: u16,
        target: &str,
        kind: &str,
        patch: impl ToString,
    ) -> ApiAnswer {
        let patch = patch.to_string();
        self.send(want, &ApiRequest::new("PATCH", target).body(kind, patch))
    }

    fn discovery(&mut self) {
        for path in [
            "/healthz",
            "/livez?verbose",
            "/readyz",
            "/version",
            "/api",
            "/apis",
            "/api/v1",
            "/apis/apps/v1",
            "/openapi/v3",
            "/metrics",
            "/",
            "/openid/v1/jwks",
        ] {
            self.get(200, path);
        }
        self.get(404, "/nonexistent");
        let nobody = self.server.anonymous();
        self.send_as(&nobody, &[200], &ApiRequest::new("GET", "/version"));
        self.send_as(&nobody, &[403], &ApiRequest::new("GET", "/api/v1/secrets"));
        let wrong = self.server.client("wrong");
        self.send_as(&wrong, &[401], &ApiRequest::new("GET", "/api/v1/pods"));
        self.send(405, &ApiRequest::new("HEAD", "/version"));
        let admin = self.admin.clone();
        for method in ["OPTIONS", "BREW"] {
            for target in ["/api/v1", "/api/v1/namespaces/default/pods/p"] {
                self.send_as(
                    &admin,
                    &[200, 403, 404, 405],
                    &ApiRequest::new(method, target),
                );
            }
        }
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        self.send(
            200,
            &ApiRequest::new("GET", "/apis").header("Accept", aggregated),
        );
    }

    fn access(&mut self) {
        let labels = json!({"pod-security.kubernetes.io/enforce": "baseline",
            "pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/audit": "restricted"});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tour", "labels": labels}});
        self.post(201, "/api/v1/namespaces", &namespace);
        self.post(409, "/api/v1/namespaces", &namespace);
        let account = |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {name: "gen-"}});
        self.post(
            201,
            &format!("{NS}/serviceaccounts"),
            &account("generateName"),
        );
        let mut default = account("name");
        default["metadata"]["name"] = "default".into();
        let admin = self.admin.clone();
        let made = ApiRequest::new("POST", format!("{NS}/serviceaccounts")).json(&default);
        self.send_as(&admin, &[201, 409], &made);
        let alice = self.alice.clone();
        let list = ApiRequest::new("GET", format!("{NS}/pods"));
        self.send_as(&alice, &[403], &list);
        self.post(
            201,
            &format!("{RBAC}/roles"),
            &json!({"metadata": {"name": "r"}, "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]}),
        );
        self.post(201, &format!("{RBAC}/rolebindings"), &json!({"metadata": {"name": "rb"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}]}));
        // The authorizer sees a binding with a delay.
        let allowed =
            crate::live::wait(|| (alice.get(&format!("{NS}/pods")).status == 200).then_some(()));
        assert!(allowed.is_some(), "alice is never allowed to list pods");
        self.send_as(&alice, &[200], &list);
        self.send_as(
            &alice,
            &[403],
            &ApiRequest::new("GET", format!("{NS}/secrets/s")),
        );
    }

    fn pods(&mut self) {
        let pods = format!("{NS}/pods");
        for name in ["p1", "p2"] {
            self.post(201, &pods, &pod(name));
        }
        let bare = |name: &str, context: &Value| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"containers": [{"name": "c", "image": "i", "securityContext": context}]}})
        };
        self.post(403, &pods, &bare("bad", &json!({"privileged": true})));
        self.post(201, &pods, &bare("warned", &json!({})));
        self.post(201, &format!("{pods}?dryRun=All"), &pod("dry"));
        self.get(200, &format!("{pods}/p1"));
        self.get(200, &format!("{pods}?labelSelector=app%3Da&limit=1"));
        self.get(200, "/api/v1/pods");
        for accept in [
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/vnd.kubernetes.protobuf",
        ] {
            self.send(
                200,
                &ApiRequest::new("GET", &*pods).header("Accept", accept),
            );
        }
        let metadata = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        let one = format!("{pods}/p1");
        self.send(200, &ApiRequest::new("GET", one).header("Accept", metadata));
        // One watch ends by itself, the other when its client disconnects.
        self.get(
            200,
            &format!("{pods}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true"),
        );
        let watch = ApiRequest::new("GET", format!("{pods}?watch=true"));
        self.send(200, &watch.listen(Duration::from_millis(700)));
        let mut fetched = self.get(200, &format!("{pods}/p1")).json();
        fetched["metadata"]["labels"]["put"] = "1".into();
        for want in [200, 409] {
            let put = ApiRequest::new("PUT", format!("{pods}/p1")).json(&fetched);
            self.send(want, &put);
        }
    }

    /// Connections to a pod or a node, where nothing answers.
    fn connections(&mut self) {
        let pod = format!("{NS}/pods/p1");
        let all = [
            "/log?container=c&tailLines=10",
            "/exec?command=ls&command=-la&container=c&stdout=1&stderr=1",
            "/attach?container=c&stdout=1",
            "/portforward?ports=80",
            "/proxy",
            "/proxy/some/path?x=1",
        ];
        let admin = self.admin.clone();
        let refused = [204, 400, 403, 404, 500, 502, 503];
        for what in all {
            self.send_as(
                &admin,
                &refused,
                &ApiRequest::new("GET", format!("{pod}{what}")),
            );
        }
        self.post(201, "/api/v1/nodes", &json!({"metadata": {"name": "n1"}}));
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}});
        self.patch(200, "/api/v1/nodes/n1/status", MERGE, status);
        let binding = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}})
        };
        self.post(201, &format!("{pod}/binding"), &binding("p1"));
        self.post(201, &format!("{NS}/bindings"), &binding("p2"));
        for what in all {
            let mut request = ApiRequest::new("GET", format!("{pod}{what}"));
            if what.starts_with("/exec") || what.starts_with("/attach") || what.starts_with("/port")
            {
                request = request
                    .header("Connection", "Upgrade")
                    .header("Upgrade", "websocket")
                    .header("Sec-WebSocket-Version", "13")
                    .header("Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg==")
                    .header("Sec-WebSocket-Protocol", "v5.channel.k8s.io");
            }
            let wants = [&refused[..], &[101]].concat();
            self.send_as(&admin, &wants, &request.listen(Duration::from_secs(2)));
        }
        for what in [
            "/exec?command=sh&container=c&stdin=1&stdout=1&tty=1",
            "/portforward",
        ] {
            let request = ApiRequest::new("POST", format!("{pod}{what}"))
                .header("Connection", "Upgrade")
                .header("Upgrade", "SPDY/3.1")
                .header("X-Stream-Protocol-Version", "v4.channel.k8s.io");
            let wants = [&refused[..], &[101]].concat();
            self.send_as(&admin, &wants, &request.listen(Duration::from_secs(2)));
        }
        let proxy = ApiRequest::new("GET", "/api/v1/nodes/n1/proxy/metrics");
        self.send_as(&admin, &refused, &proxy);
        let debug = json!({"spec": {"ephemeralContainers": [container("debug")]}});
        self.patch(200, &format!("{pod}/ephemeralcontainers"), STRATEGIC, debug);
        let evict = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        self.post(201, &format!("{NS}/pods/p2/eviction"), &evict("p2"));
        self.post(404, &format!("{NS}/pods/nope/eviction"), &evict("nope"));
    }

    fn patches(&mut self) {
        let pod = format!("{NS}/pods/p1");
        let json_patch = "application/json-patch+json";
        let add = json!([{"op": "add", "path": "/metadata/labels/json", "value": "1"}]);
        self.patch(200, &pod, json_patch, add);
        self.patch(
            200,
            &pod,
            MERGE,
            json!({"metadata": {"labels": {"merge": "1"}}}),
        );
        let odd = json!({"metadata": {"annotations": {"strategic": "ümlaut \u{2028} <&>"}}});
        self.patch(200, &pod, STRATEGIC, odd);
        let running = json!({"status": {"phase": "Running"}});
        self.patch(200, &format!("{pod}/status"), MERGE, running);
        let test = json!([{"op": "test", "path": "/metadata/name", "value": "x"}]);
        self.patch(422, &pod, json_patch, test);
        self.patch(415, &pod, "text/plain", json!({"a": 1}));
        let limits =
            json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]}});
        self.patch(422, &pod, STRATEGIC, limits);
        let map = format!("{NS}/configmaps/applied");
        let applied = |value: &str| config_map("applied", &json!({"a": value}));
        self.patch(
            201,
            &format!("{map}?fieldManager=tour&force=true"),
            APPLY,
            applied("b"),
        );
        self.patch(
            409,
            &format!("{map}?fieldManager=other"),
            APPLY,
            applied("c"),
        );
    }

    fn refusals(&mut self) {
        for (want, target) in [
            (404, format!("{NS}/pods/nope")),
            (404, format!("{NS}/nothings")),
            (404, "/apis/nothing.example/v1/things".to_owned()),
            (
                400,
                format!("{NS}/pods?labelSelector=a%3D%22%3C%C3%BC&x=%0a%00"),
            ),
            (
                410,
                format!("{NS}/pods?resourceVersion=1&watch=true&timeoutSeconds=1"),
            ),
        ] {
            let admin = self.admin.clone();
            // A watch from an old version is answered 200 with an error event, or 410.
            let wants = if want == 410 {
                vec![200, 410]
            } else {
                vec![want]
            };
            self.send_as(&admin, &wants, &ApiRequest::new("GET", target));
        }
        let odd = ApiRequest::new("GET", format!("{NS}/pods/p1")).header("Accept", "text/odd");
        self.send(406, &odd);
        self.send(
            405,
            &ApiRequest::new("PUT", format!("{NS}/pods")).json(&json!({})),
        );
        let invalid = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "Not_Valid"}, "spec": {"containers": []}});
        self.post(422, &format!("{NS}/pods"), &invalid);
    }

    fn bodies(&mut self) {
        let maps = format!("{NS}/configmaps");
        for body in [
            &b"{\"apiVersion\": \"v1\", \"kind\": "[..],
            b"",
            b"\xff\xfe\x00binary",
        ] {
            let request = ApiRequest::new("POST", &*maps).body("application/json", body);
            self.send(400, &request);
        }
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}});
        self.post(400, &maps, &service);
        let mut bogus = config_map("bogus", &json!({}));
        bogus["bogus"] = 1.into();
        self.post(400, &format!("{maps}?fieldValidation=Strict"), &bogus);
        self.post(201, &format!("{maps}?fieldValidation=Warn"), &bogus);
        let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yaml}\ndata: {k: v}\n";
        let request = ApiRequest::new("POST", &*maps).body("application/yaml", yaml);
        self.send(201, &request);
        self.post(
            201,
            &maps,
            &config_map("big", &json!({"k": "x".repeat(300_000)})),
        );
        self.post(
            413,
            &maps,
            &config_map("huge", &json!({"k": "x".repeat(4_000_000)})),
        );
        let secret = json!({"metadata": {"name": "s"}, "data": {"p": "aGlkZGVu"}});
        self.post(201, &format!("{NS}/secrets"), &secret);
        self.get(200, &format!("{NS}/secrets/s"));
    }

    fn identities(&mut self) {
        let request = json!({"spec": {"expirationSeconds": 3600}});
        let token = self.post(
            201,
            &format!("{NS}/serviceaccounts/default/token"),
            &request,
        );
        let token = token.json()["status"]["token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let account = self.server.client(&token);
        self.send_as(
            &account,
            &[403],
            &ApiRequest::new("GET", format!("{NS}/pods")),
        );
        self.post(
            201,
            "/apis/authentication.k8s.io/v1/tokenreviews",
            &json!({"spec": {"token": token}}),
        );
        let asked = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "tour"}}});
        let alice = self.alice.clone();
        let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        self.send_as(
            &alice,
            &[201],
            &ApiRequest::new("POST", review).json(&asked),
        );
        let list = || ApiRequest::new("GET", format!("{NS}/pods"));
        let bob = list()
            .header("Impersonate-User", "bob")
            .header("Impersonate-Group", "dev")
            .header("Impersonate-Uid", "42")
            .header("Impersonate-Extra-scopes", "view");
        self.send(403, &bob);
        self.send(200, &list().header("Impersonate-User", "alice"));
        let refused = list().header("Impersonate-User", "admin");
        self.send_as(&alice, &[403], &refused);
        let account = "system:serviceaccount:tour:default";
        self.send(403, &list().header("Impersonate-User", account));
        let csr = json!({"metadata": {"name": "c"}, "spec": {"request": "AAAA",
            "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}});
        let admin = self.admin.clone();
        let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        self.send_as(
            &admin,
            &[400, 422],
            &ApiRequest::new("POST", requests).json(&csr),
        );
    }

    fn workloads(&mut self) {
        let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1,
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [container("c")]}}}});
        self.post(201, &format!("{APPS}/deployments"), &deployment);
        let scale = format!("{APPS}/deployments/d/scale");
        let mut fetched = self.get(200, &scale).json();
        self.patch(200, &scale, MERGE, json!({"spec": {"replicas": 3}}));
        fetched["spec"]["replicas"] = 2.into();
        let fetched = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": "d", "namespace": "tour"}, "spec": fetched["spec"]});
        self.send(200, &ApiRequest::new("PUT", scale).json(&fetched));
        let service = json!({"metadata": {"name": "svc"}, "spec": {"ports": [{"port": 80}], "selector": {"app": "a"}}});
        self.post(201, &format!("{NS}/services"), &service);
        let admin = self.admin.clone();
        let proxy = ApiRequest::new("GET", format!("{NS}/services/svc/proxy/x"));
        self.send_as(&admin, &[404, 503], &proxy);
        let event = json!({"metadata": {"name": "e"}, "reason": "Tour", "message": "m",
            "involvedObject": {"kind": "Pod", "namespace": "tour", "name": "p1"}});
        self.post(201, &format!("{NS}/events"), &event);
    }

    fn custom(&mut self) {
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        let version = json!({"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": schema});
        let definition = json!({"metadata": {"name": "things.tour.example"}, "spec": {"group": "tour.example",
            "scope": "Namespaced", "versions": [version],
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}}});
        self.post(201, definitions, &definition);
        let things = "/apis/tour.example/v1/namespaces/tour/things";
        let admin = self.admin.clone();
        let served = crate::live::wait(|| (admin.get(things).status == 200).then_some(()));
        assert!(served.is_some(), "the custom resource is never served");
        let thing = |name: &str| json!({"apiVersion": "tour.example/v1", "kind": "Thing", "metadata": {"name": name}});
        let mut odd = thing("t");
        odd["spec"] = json!({"n": 1.5, "big": 9_007_199_254_740_993_u64, "e": 1e100, "null": null});
        self.post(201, things, &odd);
        self.patch(
            200,
            &format!("{things}/t/status"),
            MERGE,
            json!({"status": {"ok": true}}),
        );
        self.patch(
            201,
            &format!("{things}/t2?fieldManager=tour"),
            APPLY,
            thing("t2"),
        );
        self.get(200, things);
        self.patch(415, &format!("{things}/t"), STRATEGIC, json!({"spec": {}}));
        // A number that fits no type is logged as written.
        let big = r#"{"spec":{"huge":1e400}}"#;
        let patch = ApiRequest::new("PATCH", format!("{things}/t")).body(MERGE, big);
        self.send_as(&admin, &[200, 400, 422, 500], &patch);
        self.send(200, &ApiRequest::new("DELETE", things));
        let gone = format!("{definitions}/things.tour.example");
        self.send(200, &ApiRequest::new("DELETE", gone));
    }

    fn deletions(&mut self) {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        self.send(
            200,
            &ApiRequest::new("DELETE", format!("{NS}/pods/warned")).json(&options),
        );
        for target in [
            "pods/p1?dryRun=All",
            "configmaps/yaml",
            "pods?labelSelector=app%3Da",
            "configmaps",
        ] {
            self.send(200, &ApiRequest::new("DELETE", format!("{NS}/{target}")));
        }
        self.send(200, &ApiRequest::new("DELETE", NS));
        let late = config_map("late", &json!({}));
        self.post(403, &format!("{NS}/configmaps"), &late);
        self.send(200, &ApiRequest::new("DELETE", "/api/v1/nodes/n1"));
    }
}
