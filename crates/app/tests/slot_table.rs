//! The table of slots, and a slot that is reused by another log.
#![allow(clippy::unwrap_used, reason = "tests, with their helpers")]

mod chart;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use audit_bridge_app::kubernetes::Cluster;
use audit_bridge_app::slots::{Listing, SlotKeeper, SlotStore, SlotTable};
use audit_bridge_app::state::{KubernetesStore, StateLayout};
use audit_bridge_core::checkpoint::{Checkpoint, Owner, Store};
use audit_bridge_core::source::StoredPosition;
use audit_bridge_testkit::kubernetes::FakeKubernetes;
use serde_json::json;
use tokio::time::Instant;

use self::chart::{MEMBERS, NAME, NAMESPACE, SLOTS};

fn owner(log: &str) -> Owner {
    Owner {
        provider: "eks".to_owned(),
        source: log.to_owned(),
    }
}

fn slot_store(fake: &FakeKubernetes) -> SlotStore {
    let client = kube::Client::new(fake.service("a"), NAMESPACE);
    SlotStore::new(&Cluster::new(client, NAMESPACE), NAME)
}

#[tokio::test(start_paused = true)]
async fn slot_table_lost_is_made_anew_from_the_slots() {
    let fake = FakeKubernetes::new();
    chart::make(&fake);
    for (slot, log) in [(1, "b"), (3, "d")] {
        let text = Checkpoint::new(&owner(log), [].into()).write().unwrap();
        let data = json!({"data": {"checkpoint.json": text}});
        fake.put(
            "configmaps",
            NAMESPACE,
            &format!("bridge-slot-{slot}"),
            data,
        );
    }
    let store = slot_store(&fake);
    let assign = |table: &mut SlotTable| {
        for log in ["a", "b", "c", "d"] {
            table.assign(log);
        }
    };
    let table = store.update(assign).await.unwrap();
    assert_eq!(
        ["a", "b", "c", "d"].map(|log| table.slot(log)),
        [Some(0), Some(1), Some(2), Some(3)]
    );
    let before = fake.requests().len();
    assert_eq!(store.update(assign).await.unwrap(), table);
    assert_eq!(fake.requests().len(), before + 1, "nothing to write");
}

#[tokio::test(start_paused = true)]
async fn slot_table_changed_meanwhile_is_changed_over_that() {
    let fake = FakeKubernetes::new();
    chart::make(&fake);
    let (one, two) = (slot_store(&fake), slot_store(&fake));
    let first = one.update(|table| _ = table.assign("a")).await.unwrap();
    assert_eq!(first.slot("a"), Some(0));
    let mut other = Some(
        fake.object("configmaps", NAMESPACE, "bridge-slots")
            .unwrap(),
    );
    let behind = fake.clone();
    let table = two
        .update(|table| {
            // Between our read and our write.
            if let Some(mut object) = other.take() {
                object["data"]["slots.json"] = r#"{"version":1,"slots":{"0":"a","1":"b"}}"#.into();
                behind.put("configmaps", NAMESPACE, "bridge-slots", object);
            }
            table.assign("c");
        })
        .await
        .unwrap();
    assert_eq!(
        ["a", "b", "c"].map(|log| table.slot(log)),
        [Some(0), Some(1), Some(2)]
    );
    let (slots, members) = (table.slots_max(), table.members_max());
    assert_eq!((slots, members), (Some(SLOTS), Some(MEMBERS)));
}

#[tokio::test(start_paused = true)]
async fn slot_table_damaged_or_newer_is_left_alone() {
    for text in ["{", r#"{"version":9,"slots":{}}"#] {
        let fake = FakeKubernetes::new();
        let data = json!({"data": {"slots.json": text}});
        fake.put("configmaps", NAMESPACE, "bridge-slots", data);
        let error = slot_store(&fake)
            .update(|table| _ = table.assign("a"))
            .await;
        let error = error.unwrap_err();
        assert!(!error.is_unavailable(), "{error}");
        assert!(error.to_string().contains("bridge-slots"), "{error}");
        let object = fake
            .object("configmaps", NAMESPACE, "bridge-slots")
            .unwrap();
        assert_eq!(object["data"]["slots.json"], text);
    }
}

#[tokio::test(start_paused = true)]
async fn slot_of_another_log_is_overwritten_only_as_it_was_found() {
    let fake = FakeKubernetes::new();
    let store = |writer: &str, log: &str| {
        let client = kube::Client::new(fake.service(writer), NAMESPACE);
        let cluster = Cluster::new(client, NAMESPACE);
        KubernetesStore::new(&cluster, "bridge-slot-0", writer, owner(log)).in_slot()
    };
    let checkpoint = |log: &str, next: u64| {
        Checkpoint::new(&owner(log), [(0, StoredPosition::from(next))].into())
    };
    let mut before = store("one", "a");
    assert_eq!(before.load().await.unwrap(), None);
    before.save(&checkpoint("a", 7)).await.unwrap();
    let mut after = store("two", "b");
    assert_eq!(after.load().await.unwrap(), None, "another log's");
    after.save(&checkpoint("b", 1)).await.unwrap();
    // The former log's store must not overwrite that.
    let error = before.save(&checkpoint("a", 8)).await.unwrap_err();
    assert!(error.to_string().contains("same slot"), "{error}");
    after.save(&checkpoint("b", 2)).await.unwrap();
    let found = store("three", "b").load().await.unwrap();
    assert_eq!(found.unwrap().position[&0], 2);
}

/// The provider's list after this many seconds: each log, and whether it is closed.
fn listing(begun: Instant, seconds: u64, logs: &[(&str, bool)]) -> Listing {
    let logs = logs
        .iter()
        .map(|(log, closed)| ((*log).to_owned(), *closed));
    Listing {
        logs: logs.collect::<BTreeMap<_, _>>(),
        at: begun + Duration::from_secs(seconds),
    }
}

#[tokio::test(start_paused = true)]
async fn slot_of_log_that_is_gone_is_kept_until_lists_said_so_for_long() {
    let fake = FakeKubernetes::new();
    chart::make(&fake);
    let mut keeper = SlotKeeper::new(slot_store(&fake));
    let (begun, none) = (Instant::now(), BTreeSet::new());
    let both = [("a", false), ("b", false)];
    for (seconds, logs, want) in [
        (0, &both[..], Some(1)),
        (10, &both[..1], Some(1)),
        // Its absence was a mistake: from here on it is counted again.
        (200, &both[..], Some(1)),
        (210, &both[..1], Some(1)),
        (500, &both[..1], Some(1)),
        (511, &both[..1], None),
    ] {
        let listing = listing(begun, seconds, logs);
        let table = keeper.update(&listing, &none).await.unwrap();
        assert_eq!(table.slot("b"), want, "after {seconds} s");
        assert_eq!(table.slot("a"), Some(0));
    }
}

#[tokio::test(start_paused = true)]
async fn log_that_has_ended_keeps_no_slot_and_begins_anew_only_if_open_for_long() {
    let fake = FakeKubernetes::new();
    chart::make(&fake);
    let mut keeper = SlotKeeper::new(slot_store(&fake));
    let (begun, none) = (Instant::now(), BTreeSet::new());
    let ended = BTreeSet::from(["a".to_owned()]);
    // Another replica's list may be older than the end.
    for (seconds, closed, ended, has_ended) in [
        (0, false, &none, false),
        (10, false, &ended, true),
        (20, false, &none, true),
        (30, true, &none, true),
        (40, false, &none, true),
        (341, false, &none, false),
    ] {
        let listing = listing(begun, seconds, &[("a", closed)]);
        let table = keeper.update(&listing, ended).await.unwrap();
        assert_eq!(table.is_ended("a"), has_ended, "after {seconds} s");
        assert_eq!(table.slot("a").is_some(), !has_ended, "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn log_that_moved_to_another_slot_is_not_opened_under_the_old_lease() {
    let fake = FakeKubernetes::new();
    chart::make(&fake);
    let mut keeper = SlotKeeper::new(slot_store(&fake));
    let dir = tempfile::tempdir().unwrap();
    let layout = StateLayout::lock(dir.path()).await.unwrap();
    let cluster = Cluster::new(kube::Client::new(fake.service("a"), NAMESPACE), NAMESPACE);
    let layout = layout.with_config_maps(cluster, NAME, "a");
    let (begun, none) = (Instant::now(), BTreeSet::new());
    let lease = |slot: usize| format!("{NAME}-slot-{slot}");
    for (seconds, logs, slot) in [
        (0, &[("a", false)][..], Some(0)),
        (10, &[("b", false)], Some(0)),
        (400, &[("b", false)], None),
        // Another log is given its slot before it is listed again.
        (410, &[("b", false), ("c", false)], None),
        (420, &[("a", false), ("b", false), ("c", false)], Some(2)),
    ] {
        let table = keeper.update(&listing(begun, seconds, logs), &none).await;
        assert_eq!(table.unwrap().slot("a"), slot, "after {seconds} s");
        for held in 0..SLOTS {
            let opened = layout.open_slot(&owner("a"), &lease(held)).await.unwrap();
            assert_eq!(opened.is_some(), slot == Some(held), "{held}, {seconds} s");
            if let Some(mut opened) = opened {
                let checkpoint =
                    Checkpoint::new(&owner("a"), [(0, StoredPosition::from(7))].into());
                let position = opened.checkpoint.map(|it| it.position[&0].clone());
                assert!(
                    position.is_none_or(|position| position == 7),
                    "where it stood, or where the whole began"
                );
                opened.store.save(&checkpoint).await.unwrap();
            }
        }
    }
}
