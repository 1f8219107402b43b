//! The checkpoint in a ConfigMap, against an API server that follows the real rules and fails on
//! cue.
#![allow(clippy::unwrap_used, reason = "tests, with their helpers")]

use std::collections::BTreeMap;
use std::time::Duration;

use audit_bridge_app::kubernetes::Cluster;
use audit_bridge_app::state::{KubernetesStore, LogState, StateLayout};
use audit_bridge_core::checkpoint::{Checkpoint, Owner, Store, StoreError};
use audit_bridge_testkit::kubernetes::{FakeKubernetes, KubernetesFault};
use serde_json::{Value, json};
use tokio::time::{Instant, advance, sleep};

const NAME: &str = "eks-audit-bridge";

fn owner() -> Owner {
    Owner {
        provider: "eks".to_owned(),
        source: "/aws/eks/a/cluster eu-west-1".to_owned(),
    }
}

fn checkpoint(n: u64) -> Checkpoint {
    Checkpoint::new(&owner(), BTreeMap::from([(0, json!({"edge": n}))]))
}

fn store(fake: &FakeKubernetes, writer: &str) -> KubernetesStore {
    let client = kube::Client::new(fake.service(writer), "audit");
    let cluster = Cluster::new(client, "audit");
    KubernetesStore::new(&cluster, NAME, writer, owner())
}

fn object(fake: &FakeKubernetes) -> Value {
    fake.object("configmaps", "audit", NAME).unwrap()
}

fn document(fake: &FakeKubernetes) -> Value {
    let object = object(fake);
    serde_json::from_str(object["data"]["checkpoint.json"].as_str().unwrap()).unwrap()
}

fn edge(fake: &FakeKubernetes) -> Value {
    document(fake)["position"]["0"]["edge"].clone()
}

fn text(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Checks that a save is held, and what its message says.
async fn check_held(store: &mut KubernetesStore, parts: &[&str]) {
    let error = store.save(&checkpoint(99)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let text = text(&error);
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn store_saved_checkpoint_is_loaded_by_next_process() {
    let fake = FakeKubernetes::new();
    let mut first = store(&fake, "a-1");
    assert_eq!(first.load().await.unwrap(), None);
    let wanted = checkpoint(1);
    first.save(&wanted).await.unwrap();
    let object = object(&fake);
    assert_eq!(
        object["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "audit-bridge"
    );
    assert_eq!(document(&fake), serde_json::to_value(&wanted).unwrap());

    let mut second = store(&fake, "a-2");
    assert_eq!(second.load().await.unwrap(), Some(wanted));
    let before = fake.requests().len();
    second.save(&checkpoint(2)).await.unwrap();
    second.save(&checkpoint(3)).await.unwrap();
    assert_eq!(edge(&fake), 3);
    // Each write takes one request.
    let methods: Vec<String> = fake.requests()[before..]
        .iter()
        .map(|request| request.method.clone())
        .collect();
    assert_eq!(methods, ["PUT", "PUT"]);
}

#[tokio::test(start_paused = true)]
async fn store_keeps_other_data_of_the_object() {
    let fake = FakeKubernetes::new();
    let made = json!({
        "metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": {"a": "b"}},
        "data": {"other": "x"},
        "binaryData": {"more": "AAA="},
    });
    fake.put("configmaps", "audit", NAME, made);
    let mut store = store(&fake, "a");
    assert_eq!(store.load().await.unwrap(), None);
    store.save(&checkpoint(1)).await.unwrap();
    let object = object(&fake);
    assert_eq!(
        object["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "Helm"
    );
    assert_eq!(object["metadata"]["annotations"]["a"], "b");
    assert_eq!(object["data"]["other"], "x");
    assert_eq!(object["binaryData"]["more"], "AAA=");
    assert_eq!(edge(&fake), 1);
}

/// Checks that a document is refused, and what the message says.
async fn check_refused(document: &str, parts: &[&str]) {
    let fake = FakeKubernetes::new();
    let data = json!({"data": {"checkpoint.json": document}});
    fake.put("configmaps", "audit", NAME, data);
    let there = object(&fake);
    let mut store = store(&fake, "a");
    let refused = store.load().await.unwrap_err();
    let again = store.save(&checkpoint(1)).await.unwrap_err();
    for error in [refused, again] {
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
        let text = error.to_string();
        for part in parts.iter().chain([&"ConfigMap audit/eks-audit-bridge"]) {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
    assert_eq!(object(&fake), there);
    fake.remove("configmaps", "audit", NAME);
    store.save(&checkpoint(1)).await.unwrap();
    assert_eq!(edge(&fake), 1);
}

#[tokio::test(start_paused = true)]
async fn store_foreign_document_is_refused_and_kept() {
    let mut foreign = serde_json::to_value(checkpoint(1)).unwrap();
    foreign["provider"] = "aks".into();
    let parts = ["provider aks", "provider eks", "ConfigMap of its own"];
    check_refused(&foreign.to_string(), &parts).await;
    let mut newer = serde_json::to_value(checkpoint(1)).unwrap();
    newer["version"] = 2.into();
    let parts = ["version 2", "newer release", "kubectl -n audit delete"];
    check_refused(&newer.to_string(), &parts).await;
    check_refused("", &["is empty", "--start"]).await;
    check_refused("{\"version\":1", &["not whole JSON"]).await;
}

#[tokio::test(start_paused = true)]
async fn store_failure_is_held_with_remedy_and_recovers() {
    let fake = FakeKubernetes::new();
    let mut store = store(&fake, "a");
    store.load().await.unwrap();
    store.save(&checkpoint(4)).await.unwrap();
    let verbs = "get and update on configmaps in the namespace audit";
    for (fault, parts) in [
        (KubernetesFault::Status(403), [verbs, "answered 403"]),
        (
            KubernetesFault::Status(401),
            ["automountServiceAccountToken", "401"],
        ),
        (
            KubernetesFault::Status(500),
            ["tried again", "answered 500"],
        ),
        (
            KubernetesFault::Status(429),
            ["tried again", "answered 429"],
        ),
        (
            KubernetesFault::Status(404),
            ["namespace audit exists", "answered 404"],
        ),
        (
            KubernetesFault::Silence,
            ["tried again", "did not answer within 10s"],
        ),
    ] {
        fake.fail_always(Some(fault));
        let before = Instant::now();
        check_held(&mut store, &parts).await;
        check_held(&mut store, &parts).await;
        assert!(before.elapsed() <= Duration::from_secs(21));
        fake.fail_always(None);
        store.save(&checkpoint(5)).await.unwrap();
        assert_eq!(edge(&fake), 5);
    }
    let mut immutable = object(&fake);
    immutable["immutable"] = true.into();
    fake.put("configmaps", "audit", NAME, immutable);
    check_held(&mut store, &["answered 422", "immutable"]).await;
}

#[tokio::test(start_paused = true)]
async fn store_write_with_lost_answer_is_recognised() {
    for fault in [
        KubernetesFault::NoAnswer,
        KubernetesFault::Late(Duration::from_secs(12)),
    ] {
        let fake = FakeKubernetes::new();
        let mut store = store(&fake, "a");
        store.load().await.unwrap();
        fake.fail_next(fault);
        check_held(&mut store, &["did not answer"]).await;
        sleep(Duration::from_secs(3)).await;
        store.save(&checkpoint(1)).await.unwrap();
        fake.fail_next(fault);
        check_held(&mut store, &["did not answer"]).await;
        // A late request takes effect between our read and our write.
        store.save(&checkpoint(2)).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        store.save(&checkpoint(3)).await.unwrap();
        assert_eq!(edge(&fake), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn store_change_beside_the_document_is_no_conflict() {
    let fake = FakeKubernetes::new();
    let mut store = store(&fake, "a");
    store.load().await.unwrap();
    store.save(&checkpoint(1)).await.unwrap();
    let mut labelled = object(&fake);
    labelled["metadata"]["labels"]["team"] = "security".into();
    fake.put("configmaps", "audit", NAME, labelled);
    store.save(&checkpoint(2)).await.unwrap();
    assert_eq!(edge(&fake), 2);
    assert_eq!(object(&fake)["metadata"]["labels"]["team"], "security");
}

#[tokio::test(start_paused = true)]
async fn store_deleted_object_is_created_again() {
    let fake = FakeKubernetes::new();
    let mut store = store(&fake, "a");
    store.load().await.unwrap();
    store.save(&checkpoint(1)).await.unwrap();
    fake.remove("configmaps", "audit", NAME);
    store.save(&checkpoint(2)).await.unwrap();
    assert_eq!(edge(&fake), 2);
}

#[tokio::test(start_paused = true)]
async fn store_second_writer_conflicts_until_the_first_is_silent() {
    let fake = FakeKubernetes::new();
    let (mut ours, mut other) = (store(&fake, "pod-a"), store(&fake, "pod-b"));
    ours.load().await.unwrap();
    other.load().await.unwrap();
    ours.save(&checkpoint(1)).await.unwrap();
    // Both found no object, so the second one's create conflicts with the first one's.
    check_held(&mut other, &["changed by pod-a", "the Lease"]).await;
    for n in 2..50 {
        ours.save(&checkpoint(n)).await.unwrap();
        check_held(&mut other, &["two bridges read the same source"]).await;
        advance(Duration::from_secs(5)).await;
        assert_eq!(edge(&fake), n);
    }
    // The first one has ended.
    check_held(&mut other, &["changed by pod-a"]).await;
    advance(Duration::from_secs(20)).await;
    check_held(&mut other, &["changed by pod-a"]).await;
    advance(Duration::from_secs(10)).await;
    other.save(&checkpoint(70)).await.unwrap();
    assert_eq!(edge(&fake), 70);
    check_held(&mut ours, &["changed by pod-b"]).await;
}

#[tokio::test(start_paused = true)]
async fn store_foreign_document_arriving_later_is_kept() {
    let fake = FakeKubernetes::new();
    let mut store = store(&fake, "a");
    store.load().await.unwrap();
    store.save(&checkpoint(1)).await.unwrap();
    let mut foreign = serde_json::to_value(checkpoint(1)).unwrap();
    foreign["source"] = "another".into();
    let data = json!({"data": {"checkpoint.json": foreign.to_string()}});
    fake.put("configmaps", "audit", NAME, data);
    let error = store.save(&checkpoint(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    assert_eq!(document(&fake), foreign);
}

#[tokio::test]
async fn store_over_network_authenticates_with_token() {
    let fake = FakeKubernetes::new();
    fake.require_token("s3cret");
    let serving = fake.serve().await.unwrap();
    let connect = async |token: &str| {
        let config = serde_json::from_str(&serving.kubeconfig("audit", token)).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options);
        let client = kube::Client::try_from(config.await.unwrap()).unwrap();
        KubernetesStore::new(&Cluster::new(client, "audit"), NAME, "a", owner())
    };
    let mut store = connect("s3cret").await;
    store.load().await.unwrap();
    store.save(&checkpoint(1)).await.unwrap();
    assert_eq!(edge(&fake), 1);
    let mut stranger = connect("another").await;
    let error = stranger.load().await.unwrap_err();
    let error = text(&error);
    assert!(error.contains("token is not accepted"), "{error}");
    assert!(!error.contains("another"), "{error}");
    let nobody = serving.url();
    drop(serving);
    sleep(Duration::from_millis(50)).await;
    let error = text(&store.save(&checkpoint(2)).await.unwrap_err());
    assert!(error.contains("cannot be reached"), "{nobody}: {error}");
}

/// A cluster whose Role allows `get` and `update` of one ConfigMap, but not `create`.
fn limited_to_one_name(fake: &FakeKubernetes) {
    fake.fail_by(|request| {
        let named = request.path.ends_with(&format!("/configmaps/{NAME}"));
        let allowed = named && ["GET", "PUT"].contains(&request.method.as_str());
        (!allowed).then_some(KubernetesFault::Status(403))
    });
}

async fn open_log(fake: &FakeKubernetes, several: bool) -> Result<LogState, StoreError> {
    let dir = tempfile::tempdir().unwrap();
    let client = kube::Client::new(fake.service("a"), "audit");
    let cluster = Cluster::new(client, "audit");
    let layout = StateLayout::lock(dir.path()).await.unwrap();
    layout
        .with_config_maps(cluster, NAME, "a")
        .open_log(&owner(), several)
        .await
}

#[tokio::test]
async fn store_role_limited_to_one_name_uses_the_empty_object_there() {
    let fake = FakeKubernetes::new();
    // As created by a chart: without data, with its own labels.
    let made = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}});
    fake.put("configmaps", "audit", NAME, made);
    limited_to_one_name(&fake);
    let mut opened = open_log(&fake, false).await.unwrap();
    assert_eq!(opened.checkpoint, None);
    opened.store.probe().await.unwrap();
    opened.store.save(&checkpoint(7)).await.unwrap();
    assert_eq!(edge(&fake), 7);
    let labels = &object(&fake)["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm");
    let again = open_log(&fake, false).await.unwrap();
    assert_eq!(again.checkpoint.unwrap().position, checkpoint(7).position);
}

#[tokio::test]
async fn store_role_limited_to_one_name_without_the_object_is_held() {
    let fake = FakeKubernetes::new();
    limited_to_one_name(&fake);
    // If it started at the newest record and could not save that position, the records until the
    // next start would be skipped.
    let error = open_log(&fake, false).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let text = text(&error);
    for part in [
        "is not there",
        "kubectl -n audit create configmap eks-audit-bridge",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn store_of_several_logs_with_a_limited_role_is_held() {
    let fake = FakeKubernetes::new();
    fake.put("configmaps", "audit", NAME, json!({}));
    limited_to_one_name(&fake);
    let error = open_log(&fake, true).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(text(&error).contains("answered 403"), "{}", text(&error));
}

#[tokio::test]
async fn store_of_one_log_without_any_right_is_held() {
    let fake = FakeKubernetes::new();
    fake.put("configmaps", "audit", NAME, json!({}));
    fake.fail_always(Some(KubernetesFault::Status(403)));
    let error = open_log(&fake, false).await.unwrap_err();
    assert!(text(&error).contains("get and update"), "{}", text(&error));
}

/// The first step of a process that reads several logs.
async fn assign_slots(fake: &FakeKubernetes) -> Result<(), StoreError> {
    let dir = tempfile::tempdir().unwrap();
    let client = kube::Client::new(fake.service("a"), "audit");
    let layout = StateLayout::lock(dir.path()).await.unwrap();
    let layout = layout.with_config_maps(Cluster::new(client, "audit"), NAME, "a");
    layout.assign_slots(&[&owner().source, "another"]).await
}

#[tokio::test]
async fn store_of_one_of_several_logs_with_hidden_slots_is_held() {
    let fake = FakeKubernetes::new();
    fake.put("configmaps", "audit", NAME, json!({}));
    assign_slots(&fake).await.unwrap();
    let mut opened = open_log(&fake, true).await.unwrap();
    opened.store.save(&checkpoint(7)).await.unwrap();
    limited_to_one_name(&fake);
    let error = open_log(&fake, false).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let table = format!("{NAME}-slots");
    assert!(text(&error).contains(&table), "{}", text(&error));
    // With permission to read the old object, it continues there.
    fake.fail_by(|_| None);
    let again = open_log(&fake, false).await.unwrap();
    assert_eq!(again.checkpoint.unwrap().position, checkpoint(7).position);
}

#[tokio::test]
async fn store_several_logs_mark_is_written_before_first_slot_is_given() {
    let fake = FakeKubernetes::new();
    fake.put("configmaps", "audit", NAME, json!({}));
    let writes = |fake: &FakeKubernetes| {
        let all = fake.requests();
        let all = all.iter().filter(|request| request.method != "GET");
        all.map(|request| request.path.clone()).collect::<Vec<_>>()
    };
    open_log(&fake, true).await.unwrap();
    assert_eq!(writes(&fake), Vec::<String>::new(), "`check` opens it too");
    let mut refused = false;
    fake.fail_by(move |request| {
        let first =
            request.method == "PUT" && !std::mem::replace(&mut refused, request.method == "PUT");
        first.then_some(KubernetesFault::Status(409))
    });
    assign_slots(&fake).await.unwrap();
    let all = "/api/v1/namespaces/audit/configmaps";
    let common = format!("{all}/{NAME}");
    assert_eq!(writes(&fake), [common.clone(), common, all.to_owned()]);
    let annotations = &object(&fake)["metadata"]["annotations"];
    assert_eq!(annotations["audit-bridge/several-logs"], "slots");
}

/// The objects of the layout before slots, named after the logs.
fn earlier_layout(fake: &FakeKubernetes) -> String {
    let marked = json!({"metadata": {"annotations": {"audit-bridge/several-logs": "true"}}});
    fake.put("configmaps", "audit", NAME, marked);
    let text = checkpoint(5).write().unwrap();
    let hash = audit_bridge_tail::Identity::of(&[owner().source.as_bytes()]).to_string();
    let name = format!("{NAME}-aws-eks-a-cluster-eu-west-1-{}", &hash[..8]);
    fake.put(
        "configmaps",
        "audit",
        &name,
        json!({"data": {"checkpoint.json": text}}),
    );
    name
}

#[tokio::test]
async fn store_earlier_layout_is_read_once_and_goes_on_in_the_slot() {
    let fake = FakeKubernetes::new();
    let earlier = earlier_layout(&fake);
    assign_slots(&fake).await.unwrap();
    for _ in 0..2 {
        let opened = open_log(&fake, true).await.unwrap();
        assert_eq!(opened.checkpoint.unwrap().position, checkpoint(5).position);
    }
    let mut opened = open_log(&fake, true).await.unwrap();
    opened.store.save(&checkpoint(9)).await.unwrap();
    let slot = fake.object("configmaps", "audit", &format!("{NAME}-slot-0"));
    assert!(slot.unwrap()["data"]["checkpoint.json"].is_string());
    assert!(fake.remove("configmaps", "audit", &earlier));
    let again = open_log(&fake, true).await.unwrap();
    assert_eq!(again.checkpoint.unwrap().position, checkpoint(9).position);
}

#[tokio::test]
async fn store_earlier_layout_that_may_not_be_read_is_held() {
    let fake = FakeKubernetes::new();
    let earlier = earlier_layout(&fake);
    assign_slots(&fake).await.unwrap();
    let hidden = earlier.clone();
    fake.fail_by(move |request| {
        let named = request.path.ends_with(&hidden);
        named.then_some(KubernetesFault::Status(403))
    });
    // Starting at the newest record would skip everything since then.
    let error = open_log(&fake, true).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(text(&error).contains(&earlier), "{}", text(&error));
}
