//! A real API server accepts what we ship: the chart's objects, their pods under Pod Security
//! `restricted`, the files of the control-plane kit.

use std::process::Command;

use audit_bridge_testkit::ScriptedWebhook;
use audit_bridge_tests::apiserver::client::ApiAnswer;
use audit_bridge_tests::apiserver::{ADMIN, ApiServer, Release, chart};
use audit_bridge_tests::live::wait;
use audit_bridge_tests::root;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/audit-bridge/pods";

fn pods(server: &ApiServer, bridge: &str) -> Vec<Value> {
    let selector = format!("app.kubernetes.io/instance%3D{bridge}-audit-bridge");
    let answer = server
        .client(ADMIN)
        .get(&format!("{PODS}?labelSelector={selector}"));
    answer.json()["items"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// Creates a pod with this specification, to see whether it is admitted.
fn admitted(server: &ApiServer, spec: &Value) -> ApiAnswer {
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": spec});
    server
        .client(ADMIN)
        .post(&format!("{PODS}?dryRun=All"), &pod)
}

/// The pod's specification with one restriction removed, for each restriction.
fn mutants(spec: &Value) -> Vec<(&'static str, Value)> {
    let mutant = |name: &'static str, change: &dyn Fn(&mut Value)| {
        let mut spec = spec.clone();
        change(&mut spec);
        (name, spec)
    };
    let context = |spec: &mut Value, name: &str, value: Value| {
        spec["containers"][0]["securityContext"][name] = value;
    };
    vec![
        mutant("privileged", &|spec| {
            context(spec, "privileged", true.into());
            context(spec, "allowPrivilegeEscalation", true.into());
        }),
        mutant("escalation", &|spec| {
            context(spec, "allowPrivilegeEscalation", true.into());
        }),
        mutant("capabilities", &|spec| {
            context(spec, "capabilities", json!({"drop": ["NET_RAW"]}));
        }),
        mutant("added capability", &|spec| {
            context(
                spec,
                "capabilities",
                json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            );
        }),
        mutant("seccomp", &|spec| {
            spec["securityContext"]["seccompProfile"] = json!({"type": "Unconfined"});
            context(spec, "seccompProfile", json!({"type": "Unconfined"}));
        }),
        mutant("root", &|spec| {
            spec["securityContext"]["runAsNonRoot"] = false.into();
            context(spec, "runAsNonRoot", false.into());
        }),
        mutant("user 0", &|spec| context(spec, "runAsUser", 0.into())),
        mutant("host network", &|spec| spec["hostNetwork"] = true.into()),
        mutant("host path", &|spec| {
            let volume = json!({"name": "host", "hostPath": {"path": "/"}});
            match spec["volumes"].as_array_mut() {
                Some(volumes) => volumes.push(volume),
                None => spec["volumes"] = json!([volume]),
            }
        }),
    ]
}

#[test]
fn chart_objects_are_admitted_and_pods_run_under_restricted_security() {
    let Some(helm) = chart::helm() else {
        return;
    };
    for release in Release::judged() {
        for (bridge, settings, replicas) in [
            ("eks", &["replicas=2"][..], 2),
            (
                "gke",
                &[
                    "replicas=1",
                    "persistence.enabled=true",
                    "deadLetter.ephemeral=false",
                ],
                1,
            ),
            ("aks", &["replicas=3", "aks.sharePartitions=true"], 3),
        ] {
            let Some(server) = ApiServer::start(release, &[]) else {
                return;
            };
            let _controllers = server.controllers();
            server.shipped_namespace();
            for document in chart::render(&helm, bridge, settings) {
                let made = server.create(&document);
                assert_eq!(
                    made.status,
                    201,
                    "{bridge}: {}: {}",
                    document.kind,
                    made.text()
                );
                assert!(!made.head.contains("Warning:"), "{bridge}: {}", made.head);
            }
            let mut found = Vec::new();
            let created = wait(|| {
                found = pods(&server, bridge);
                (found.len() == replicas).then_some(())
            });
            assert!(created.is_some(), "{bridge}: {} pods", found.len());
            // As created by the controller, without what only the controller may set.
            let mut spec = found[0]["spec"].clone();
            spec.as_object_mut().unwrap().remove("nodeName");
            let good = admitted(&server, &spec);
            assert_eq!(good.status, 201, "{bridge}: {}", good.text());
            for (name, spec) in mutants(&spec) {
                let refused = admitted(&server, &spec);
                assert_eq!(refused.status, 403, "{bridge}, {name}: {}", refused.text());
                assert!(
                    refused.message().contains("violates PodSecurity"),
                    "{}",
                    refused.message()
                );
            }
        }
    }
}

#[test]
fn rendered_examples_are_admitted() {
    let Some(server) = ApiServer::start(Release::Newest, &[]) else {
        return;
    };
    server.shipped_namespace();
    for bridge in audit_bridge_tests::BRIDGES {
        let text = std::fs::read_to_string(root().join(format!("deploy/examples/{bridge}.yaml")));
        let documents = chart::documents(&text.unwrap());
        assert!(documents.len() > 5, "{documents:#?}");
        for document in documents {
            let made = server.create(&document);
            assert_eq!(
                made.status,
                201,
                "{bridge}: {}: {}",
                document.kind,
                made.text()
            );
            assert!(!made.head.contains("Warning:"), "{bridge}: {}", made.head);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_plane_files_are_accepted_by_the_server() {
    let webhook = ScriptedWebhook::start().await;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().display().to_string();
    let rendered = Command::new("bash")
        .arg(root().join("deploy/control-plane/audit-webhook.sh"))
        .args(["render", "--platform", "kubeadm", "--output", &output])
        .args(["--webhook-url", &webhook.url()])
        .output()
        .unwrap();
    assert!(rendered.status.success(), "{rendered:?}");
    let flags = [
        format!("--audit-policy-file={output}/audit-policy.yaml"),
        format!("--audit-webhook-config-file={output}/webhook.kubeconfig"),
        "--audit-webhook-mode=blocking".to_owned(),
    ];
    for release in Release::judged() {
        let server = tokio::task::block_in_place(|| ApiServer::start(release, &flags));
        let Some(server) = server else {
            return;
        };
        tokio::task::block_in_place(|| server.namespace("seen", &json!({})));
        let seen = wait(|| {
            let bodies = webhook.received();
            let text = bodies
                .iter()
                .map(|request| String::from_utf8_lossy(&request.body));
            text.into_iter()
                .any(|body| body.contains("/api/v1/namespaces") && body.contains("\"seen\""))
                .then_some(())
        });
        assert!(seen.is_some(), "{release:?}: the webhook never hears of it");
        webhook.forget_bodies();
    }
}
