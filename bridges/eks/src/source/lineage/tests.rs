use jiff::Timestamp;
use serde_json::json;

use super::*;

fn id(index: u32) -> String {
    format!("shardId-{index:012}")
}

fn shard(index: u32, parents: &[u32], is_closed: bool) -> StreamShard {
    StreamShard {
        id: id(index),
        parents: parents.iter().map(|&parent| id(parent)).collect(),
        first: None,
        is_closed,
    }
}

fn started(lineage: &mut Lineage) -> Vec<u32> {
    let started = lineage.start().into_iter();
    started.map(|(index, _, _)| index).collect()
}

/// Takes a list at this second.
fn list(lineage: &mut Lineage, second: u64, listed: &[StreamShard]) -> ShardChanges {
    let now = Duration::from_secs(second);
    let listed = lineage.list(listed.to_vec(), now, Duration::from_secs(10));
    listed.unwrap()
}

fn keep_all(lineage: &mut Lineage) {
    for (index, begin) in lineage.unkept() {
        lineage.committed(index, &begin);
    }
}

#[test]
fn shard_whose_beginning_is_not_kept_is_not_read() {
    let all = vec![shard(0, &[], false), shard(1, &[], false)];
    let mut lineage = Lineage::new(all, &StoredPositions::new(), Start::Earliest).unwrap();
    assert!(started(&mut lineage).is_empty());
    let begin = ShardPosition::at(Start::Earliest);
    lineage.committed(1, &begin);
    assert_eq!(started(&mut lineage), [1]);
    lineage.committed(0, &begin);
    assert_eq!(started(&mut lineage), [0]);
    assert!(started(&mut lineage).is_empty());
}

#[test]
fn merged_shard_waits_for_the_kept_ends_of_both_parents() {
    let all = vec![
        shard(0, &[], true),
        shard(1, &[], true),
        shard(2, &[0, 1], false),
    ];
    let mut lineage = Lineage::new(all, &StoredPositions::new(), Start::Earliest).unwrap();
    keep_all(&mut lineage);
    assert_eq!(started(&mut lineage), [0, 1]);
    lineage.committed(0, &ShardPosition::ENDED);
    assert!(started(&mut lineage).is_empty());
    lineage.committed(1, &ShardPosition::ENDED);
    let started = lineage.start();
    assert_eq!(started.len(), 1);
    // A shard of the first list begins at `start`, whatever its parents are.
    assert_eq!(started[0].2, ShardPosition::at(Start::Earliest));
}

#[test]
fn shard_unknown_to_the_checkpoint_begins_at_its_oldest_record() {
    let now = Timestamp::now();
    let all = vec![shard(0, &[], true), shard(1, &[0], false)];
    let positions = [(0, json!({"shard_end": true}))].into();
    let mut lineage = Lineage::new(all, &positions, Start::Latest(now)).unwrap();
    assert!(lineage.unkept().is_empty());
    let started = lineage.start();
    assert_eq!(started[0].0, 1);
    assert_eq!(started[0].2, ShardPosition::at(Start::Earliest));
}

#[test]
fn shard_unlisted_is_forgotten_once_its_end_is_kept() {
    let all = vec![shard(0, &[], true), shard(1, &[0], false)];
    let positions = StoredPositions::from([(0, json!({"shard_end": true}))]);
    let mut lineage = Lineage::new(all.clone(), &positions, Start::Earliest).unwrap();
    started(&mut lineage);
    assert_eq!(list(&mut lineage, 0, &[]), ShardChanges::default());
    list(&mut lineage, 1, &all[1..]);
    let changes = list(&mut lineage, 11, &all[1..]);
    assert_eq!(changes.forgotten, [0]);
    assert!(changes.lost.is_empty());
    // A waiting shard whose records are gone is reported as lost.
    let positions = StoredPositions::from([(7, json!({"shard_end": true}))]);
    let mut lineage = Lineage::new(all, &positions, Start::Earliest).unwrap();
    assert_eq!(started(&mut lineage), [0]);
    let others = [shard(2, &[1], false)];
    assert_eq!(list(&mut lineage, 0, &others).added, [2]);
    let changes = list(&mut lineage, 10, &others);
    assert_eq!(changes.lost, [(1, id(1))]);
    assert_eq!(started(&mut lineage), [2]);
}

/// Lists of the service may be stale for a moment.
#[test]
fn shard_missing_from_lists_for_a_moment_stays_as_it_is() {
    let all = vec![
        shard(0, &[], true),
        shard(1, &[0], false),
        shard(2, &[1], false),
    ];
    let positions = StoredPositions::from([(0, json!({"shard_end": true}))]);
    let mut lineage = Lineage::new(all[1..].to_vec(), &positions, Start::Earliest).unwrap();
    assert!(
        lineage.is_ended(0),
        "its position is known, although it is not listed"
    );
    assert_eq!(started(&mut lineage), [1]);
    for time in [0, 20, 40] {
        for missing in [&all[1..2], &all[1..2], &all] {
            let changes = list(&mut lineage, time, missing);
            assert_eq!(changes, ShardChanges::default());
            assert!(lineage.is_ended(0) && started(&mut lineage).is_empty());
        }
    }
    lineage.committed(1, &ShardPosition::ENDED);
    assert_eq!(started(&mut lineage), [2]);
}

#[test]
fn shard_unread_and_no_longer_listed_is_tried_before_its_children() {
    let positions = StoredPositions::from([(0, json!({"sequence_number": "7"}))]);
    let all = vec![shard(1, &[0], false)];
    let mut lineage = Lineage::new(all, &positions, Start::Earliest).unwrap();
    let started = lineage.start();
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].1.id, id(0));
    assert!(matches!(started[0].2, ShardPosition::After { .. }));
    lineage.gone(0);
    assert_eq!(lineage.start()[0].0, 1);
}

#[test]
fn shard_end_kept_but_listed_open_for_long_is_begun_again() {
    let closed = [shard(0, &[], true)];
    let open = [shard(0, &[], false)];
    let positions = StoredPositions::from([(0, json!({"shard_end": true}))]);
    let mut lineage = Lineage::new(closed.to_vec(), &positions, Start::Earliest).unwrap();
    for (time, listed) in [
        (0, &open),
        (9, &open),
        (10, &closed),
        (11, &open),
        (20, &open),
    ] {
        assert_eq!(list(&mut lineage, time, listed), ShardChanges::default());
        assert!(started(&mut lineage).is_empty());
    }
    assert_eq!(list(&mut lineage, 21, &open).reborn, [0]);
    assert_eq!(started(&mut lineage), [0]);
    assert_eq!(list(&mut lineage, 60, &open), ShardChanges::default());
}

#[test]
fn shard_end_kept_but_open_shows_a_stream_created_again() {
    let positions = StoredPositions::from([(0, json!({"shard_end": true}))]);
    let all = vec![shard(0, &[], false)];
    let lineage = Lineage::new(all, &positions, Start::Earliest).unwrap();
    assert_eq!(lineage.reborn(), [0]);
    let all = vec![shard(0, &[], true)];
    let lineage = Lineage::new(all, &positions, Start::Earliest).unwrap();
    assert!(lineage.reborn().is_empty() && lineage.is_ended(0));
}

#[test]
fn job_is_done_when_what_is_left_came_after_its_end() {
    let all = vec![
        shard(0, &[], true),
        shard(1, &[0], false),
        shard(2, &[], false),
    ];
    let mut lineage = Lineage::new(all, &StoredPositions::new(), Start::Earliest).unwrap();
    keep_all(&mut lineage);
    assert_eq!(started(&mut lineage), [0, 2]);
    lineage.reached(2);
    assert!(!lineage.is_done());
    lineage.reached(0);
    assert!(lineage.is_done(), "the child of a reached shard is later");
    assert!(started(&mut lineage).is_empty());
}

#[test]
fn shard_or_position_of_another_form_is_refused() {
    for wrong in [
        "",
        "shardId-1",
        "shard-000000000001",
        "shardId-99999999999999",
    ] {
        assert!(index_of(wrong).is_err(), "{wrong}");
    }
    assert_eq!(index_of("shardId-000000000012"), Ok(12));
    let positions = StoredPositions::from([(0, json!({"sequence_number": 7}))]);
    let refused = Lineage::new(vec![shard(0, &[], false)], &positions, Start::Earliest);
    assert_eq!(refused.unwrap_err().component, Component::Checkpoint);
}
