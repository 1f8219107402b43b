//! The content of messages: all categories, clusters and kinds of damage that share a hub.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_any_content_have_their_outcome_and_block_nothing() {
    let stage = Stage::new(1).await;
    let whole = event(1, 1000);
    // Cut within the request's object, and cut before the event can be recognised.
    let cut = &event(2, 3000)[..1500];
    let stump = &event(3, 1000)[..60];
    let klog = "I1121 10:00:00.000000       1 controller.go:1] hello\n";
    stage.hubs.publish(
        HUB,
        0,
        message(&[
            record_of("kube-audit", "prod", &whole),
            record_of("kube-apiserver", "prod", klog),
            record_of("kube-controller-manager", "prod", klog),
            record_of("kube-audit", "prod", cut),
            record_of("kube-audit", "prod", stump),
            record_of("kube-audit", "prod", "not an event"),
        ]),
    );
    stage.hubs.publish(HUB, 0, "this is no message at all");
    stage.hubs.publish(HUB, 0, "{\"records\":[{\"category\":");
    stage.hubs.publish(HUB, 0, "{\"records\":[]}");
    stage.publish(10..20, 1);
    let mut bridge = stage.start(&["--start", "earliest"]);
    stage.until_accepted(&bridge, 10..20);
    stage.until_accepted(&bridge, 1..3);
    assert_eq!(stage.webhook.accepted_ids().len(), 12);
    bridge.until_metric("audit_bridge_events_truncated_total", 1.0);
    bridge.until_sample("records_skipped_total{reason=\"other_category\"} 2");
    let truncated = stage.webhook.received().into_iter().find_map(|request| {
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        body.contains("audit.k8s.io/truncated").then_some(body)
    });
    assert!(truncated.is_some_and(|body| body.contains(&audit_id(2))));
    assert_eq!(bridge.terminate(), 0);

    let kept = stage.dead_letter();
    let reasons: Vec<_> = kept
        .iter()
        .map(|line| line["reason"].as_str().unwrap())
        .collect();
    assert_eq!(
        reasons,
        ["truncated", "unparsable", "unparsable", "unparsable"],
        "{kept:#?}"
    );
    assert!(
        kept[0]["payload"]["properties"]["log"] == stump,
        "{}",
        kept[0]
    );
    assert_eq!(kept[2]["payload"], "this is no message at all");
    let source = &kept[0]["source"];
    assert_eq!(source["stream"], format!("{HUB}/0"));
    assert_eq!(source["id"], "0:5");

    // The dead letter can be replayed like any dump.
    let path = stage.path("state").join("dead-letter.jsonl");
    let again = audit_bridge_tests::run("aks", &["replay", path.to_str().unwrap()]);
    assert_eq!(again.status, 3, "{}", again.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_in_both_categories_is_delivered_once() {
    let stage = Stage::new(2).await;
    let copies = ["kube-audit", "kube-audit-admin"];
    let mut bridge = stage.start(&["--start", "earliest"]);
    // Duplicates are only looked for once both categories have arrived.
    for (n, category) in [(40, copies[0]), (41, copies[1])] {
        let record = record_of(category, "prod", &event(n, 1000));
        stage.hubs.publish(HUB, 0, message(&[record]));
    }
    stage.until_accepted(&bridge, 40..42);
    for n in 0..40 {
        let text = event(n, 1000);
        // The copies come in either order, in the same partition or different ones.
        for (at, category) in copies.iter().enumerate() {
            let partition = (n / 2 + at * (n % 2)) % 2;
            let record = record_of(category, "prod", &text);
            stage.hubs.publish(HUB, partition, message(&[record]));
        }
    }
    stage.until_accepted(&bridge, 0..42);
    bridge.until_metric("audit_bridge_records_skipped_total", 40.0);
    stage.assert_no_duplicates();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_selected_of_several_is_delivered_alone() {
    let stage = Stage::new(1).await;
    for n in 0..30 {
        let cluster = ["prod", "stage", "test"][n % 3];
        let record = record_of("kube-audit-admin", cluster, &event(n, 1000));
        stage.hubs.publish(HUB, 0, message(&[record]));
    }
    let mut bridge = stage.start(&[
        "--start",
        "earliest",
        "--cluster-name",
        "prod,test",
        "--annotate-cluster",
    ]);
    let wanted: BTreeSet<_> = (0..30).filter(|n| n % 3 != 1).map(audit_id).collect();
    let done = wait(|| {
        let accepted: BTreeSet<_> = stage.webhook.accepted_ids().into_iter().collect();
        (accepted == wanted).then_some(())
    });
    assert!(done.is_some(), "{}", bridge.log());
    bridge.until_sample("records_skipped_total{reason=\"other_cluster\"} 10");
    let items: Vec<serde_json::Value> = stage
        .webhook
        .received()
        .iter()
        .filter_map(|request| serde_json::from_slice::<serde_json::Value>(&request.body).ok())
        .flat_map(|body| body["items"].as_array().cloned().unwrap_or_default())
        .collect();
    assert_eq!(items.len(), 20);
    for item in items {
        let cluster = &item["annotations"]["audit-bridge/cluster"];
        let n = usize::from_str_radix(&item["auditID"].as_str().unwrap()[..8], 16).unwrap();
        let name = ["prod", "stage", "test"][n % 3];
        let of = record_of("kube-audit-admin", name, "");
        assert_eq!(*cluster, of["resourceId"], "the whole ID");
    }
}

/// An event hub never loses a partition, so a list without one is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partition_missing_from_the_list_at_a_start_is_read_on() {
    let stage = Stage::new(2).await;
    stage.publish(0..20, 2);
    let bridge = stage.start(&["--start", "earliest"]);
    stage.until_accepted(&bridge, 0..20);
    assert_eq!(bridge.terminate(), 0);
    stage.hubs.leave_out([1]);
    stage.publish(20..40, 2);
    let mut bridge = stage.start(&[]);
    stage.until_accepted(&bridge, 0..40);
    bridge.until_ready();
    assert!(bridge.log().contains("list lacks partitions that it has"));
    assert_eq!(bridge.terminate(), 0);
    stage.assert_no_duplicates();
}
