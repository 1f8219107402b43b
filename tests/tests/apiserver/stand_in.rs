//! The stand-in of the Kubernetes API answers like the real one: both get the same requests.

use std::net::SocketAddr;

use audit_bridge_testkit::kubernetes::FakeKubernetes;
use audit_bridge_tests::apiserver::client::{ApiAnswer, ApiClient};
use audit_bridge_tests::apiserver::{ADMIN, ApiServer, Release};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/audit/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/audit/leases";

/// A request and its answer, without what differs from cluster to cluster.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    question: &'static str,
    status: u16,
    reason: String,
    message: String,
}

struct Interview {
    client: ApiClient,
    told: Vec<Told>,
}

impl Interview {
    fn note(&mut self, question: &'static str, answer: &ApiAnswer) -> Value {
        let object = answer.json();
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        let mut message = text("message");
        for uid in uids(&message) {
            message = message.replace(&uid, "UID");
        }
        self.told.push(Told {
            question,
            status: answer.status,
            reason: text("reason"),
            message,
        });
        object
    }

    fn post(&mut self, question: &'static str, to: &str, object: &Value) -> Value {
        let answer = self.client.post(to, object);
        self.note(question, &answer)
    }

    fn put(&mut self, question: &'static str, to: &str, object: &Value) -> Value {
        let answer = self.client.put(to, object);
        self.note(question, &answer)
    }

    fn get(&mut self, question: &'static str, to: &str) -> Value {
        let answer = self.client.get(to);
        self.note(question, &answer)
    }

    fn merge(&mut self, question: &'static str, to: &str, patch: &Value) -> Value {
        let answer = self.client.merge(to, patch);
        self.note(question, &answer)
    }

    fn delete(&mut self, question: &'static str, to: &str) {
        let answer = self.client.delete(to);
        self.note(question, &answer);
    }

    /// Records whether two answers have the same version.
    fn same(&mut self, question: &'static str, one: &Value, other: &Value) {
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let same = version(one) == version(other);
        self.told.push(Told {
            question,
            status: u16::from(same),
            reason: String::new(),
            message: String::new(),
        });
    }
}

fn uids(message: &str) -> Vec<String> {
    let is_uid = |word: &&str| word.len() == 36 && word.matches('-').count() == 4;
    message
        .split([' ', ','])
        .filter(is_uid)
        .map(str::to_owned)
        .collect()
}

fn map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn lease(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec})
}

fn with(object: &Value, member: &str, value: Value) -> Value {
    let mut object = object.clone();
    match value {
        Value::Null => {
            object["metadata"].as_object_mut().unwrap().remove(member);
        }
        value => object["metadata"][member] = value,
    }
    object
}

/// Sends everything that the bridges send, and related requests.
fn interview(client: ApiClient) -> Vec<Told> {
    let mut ask = Interview {
        client,
        told: Vec::new(),
    };
    config_maps(&mut ask);
    leases(&mut ask);
    ask.told
}

fn config_maps(ask: &mut Interview) {
    let a = format!("{MAPS}/a");
    ask.get("get of a missing ConfigMap", &a);
    ask.put("put of a missing ConfigMap", &a, &map("a", &json!({})));
    ask.put(
        "dry put of a missing ConfigMap",
        &format!("{a}?dryRun=All"),
        &map("a", &json!({})),
    );
    ask.post(
        "dry post",
        &format!("{MAPS}?dryRun=All"),
        &map("a", &json!({})),
    );
    ask.get("get after a dry post", &a);
    let missing = "/api/v1/namespaces/missing/configmaps";
    ask.post(
        "post into a missing namespace",
        missing,
        &map("a", &json!({})),
    );
    ask.get("get from a missing namespace", &format!("{missing}/a"));
    let versioned = with(&map("a", &json!({})), "resourceVersion", "1".into());
    ask.post("post with a version", MAPS, &versioned);
    let made = ask.post("post", MAPS, &map("a", &json!({"k": "v"})));
    ask.post("post again", MAPS, &map("a", &json!({"k": "v"})));
    let same = ask.put("put without changes", &a, &made);
    ask.same("put without changes keeps the version", &made, &same);
    let same = ask.merge("patch without changes", &a, &json!({"data": {"k": "v"}}));
    ask.same("patch without changes keeps the version", &made, &same);
    let moved = ask.put("put without a version", &a, &map("a", &json!({"k": "w"})));
    ask.same("put with changes keeps the version", &made, &moved);
    ask.put("put over an old version", &a, &made);
    ask.merge(
        "patch with an old version",
        &a,
        &json!({"metadata": {
        "resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"k": "x"}}),
    );
    ask.merge("patch", &a, &json!({"data": {"k": "y", "l": null}}));
    let large = map("a", &json!({"k": "x".repeat((1 << 20) + 1)}));
    ask.put("put of more than 1 MiB", &a, &large);
    let largest = map("a", &json!({"k": "x".repeat(1 << 20)}));
    ask.put("put of 1 MiB", &a, &largest);
    ask.post(
        "post of more than 1 MiB",
        MAPS,
        &map("b", &json!({"k": "x".repeat((1 << 20) + 1)})),
    );
    ask.put(
        "put of more than 3 MiB",
        &a,
        &map("a", &json!({"k": "x".repeat(3 << 20)})),
    );
    ask.delete("delete", &a);
    ask.delete("delete again", &a);
    ask.put("put of a deleted ConfigMap", &a, &moved);
    ask.put(
        "put of a deleted ConfigMap, no uid",
        &a,
        &with(&moved, "uid", Value::Null),
    );
}

fn leases(ask: &mut Interview) {
    let a = format!("{LEASES}/a");
    let spec = |time: &str| json!({"holderIdentity": "x", "leaseDurationSeconds": 15, "renewTime": time, "leaseTransitions": 0});
    let good = spec("2026-11-21T10:00:00.000001Z");
    ask.get("get of a missing Lease", &a);
    ask.put(
        "dry put of a missing Lease",
        &format!("{a}?dryRun=All"),
        &lease("a", &good),
    );
    ask.get("get after a dry put", &a);
    ask.put("put of a missing Lease, no uid", &a, &lease("a", &good));
    ask.post("post of a Lease that is there", LEASES, &lease("a", &good));
    let there = ask.get("get of a Lease", &a);
    ask.put(
        "put of a Lease without a version",
        &a,
        &with(&there, "resourceVersion", Value::Null),
    );
    for time in ["2026-11-21T10:00:00Z", "2026-11-21T10:00:00.5Z"] {
        let mut odd = there.clone();
        odd["spec"]["renewTime"] = time.into();
        let answer = ask.client.put(&a, &odd);
        // The message quotes Go's own error about the time.
        let answer = ApiAnswer {
            body: json!({"reason": answer.json()["reason"]})
                .to_string()
                .into(),
            ..answer
        };
        ask.note("put of a Lease with a short time", &answer);
    }
    for seconds in [0, -1] {
        let mut odd = there.clone();
        odd["spec"]["leaseDurationSeconds"] = seconds.into();
        ask.put("put of a Lease without a duration", &a, &odd);
    }
    let same = ask.put("put of a Lease without changes", &a, &there);
    ask.same(
        "put of a Lease without changes keeps the version",
        &there,
        &same,
    );
    let mut taken = there.clone();
    taken["spec"]["holderIdentity"] = "".into();
    let taken = ask.put("put of a Lease", &a, &taken);
    ask.put("put of a Lease over an old version", &a, &there);
    ask.delete("delete of a Lease", &a);
    ask.put("put of a deleted Lease, with uid", &a, &taken);
    ask.put(
        "put of a deleted Lease, no uid, with a version",
        &a,
        &with(&taken, "uid", Value::Null),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stand_in_asked_the_same_answers_like_the_server() {
    let fake = FakeKubernetes::new();
    fake.lack_namespace("missing");
    let serving = fake.serve().await.unwrap();
    let address: SocketAddr = serving.url().trim_start_matches("http://").parse().unwrap();
    let mut of_the_fake = tokio::task::block_in_place(|| interview(ApiClient::new(address, None)));
    for release in Release::judged() {
        let Some(server) = ApiServer::start(release, &[]) else {
            return;
        };
        server.namespace("audit", &json!({}));
        let mut of_the_real = interview(server.client(ADMIN));
        // The stand-in has the newest release's messages.
        if release == Release::Oldest {
            for told in of_the_real.iter_mut().chain(&mut of_the_fake) {
                told.message.clear();
            }
            // The oldest release reports the precondition, as for a Lease; the newest says that
            // there is none.
            let differs = |told: &Told| told.question.starts_with("put of a deleted ConfigMap");
            of_the_real.retain(|told| !differs(told));
            of_the_fake.retain(|told| !differs(told));
        }
        let differing: Vec<_> = of_the_real
            .iter()
            .zip(&of_the_fake)
            .filter(|(real, fake)| real != fake)
            .collect();
        assert!(
            differing.is_empty(),
            "{release:?}, (real, stand-in): {differing:#?}"
        );
        assert_eq!(of_the_real.len(), of_the_fake.len());
    }
}
