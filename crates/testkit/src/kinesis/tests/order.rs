//! A reader that follows the order of shards gets every record once, however they are resharded.

use proptest::prelude::*;

use super::*;

#[tokio::test(start_paused = true)]
async fn child_read_before_its_parents_end_is_a_breach() {
    let kinesis = stand_in(1);
    kinesis.put(STREAM, "k", "parent");
    let parent = "shardId-000000000000";
    kinesis.split(STREAM, parent);
    let (child, _) = kinesis.put(STREAM, "k", "child");
    let of_child = iterator(&kinesis, &child, "TRIM_HORIZON", json!({})).await;
    records(&kinesis, &of_child).await;
    let breach = OrderBreach {
        child,
        parent: parent.to_owned(),
        unserved: 1,
    };
    assert_eq!(
        kinesis.order_breaches(STREAM),
        std::slice::from_ref(&breach)
    );
    let of_parent = iterator(&kinesis, parent, "TRIM_HORIZON", json!({})).await;
    records(&kinesis, &of_parent).await;
    records(&kinesis, &of_child).await;
    assert_eq!(kinesis.order_breaches(STREAM), [breach]);
}

/// A step of a writer, a resharding, or time that passes.
#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Reshard(u64),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Put),
        2 => any::<u64>().prop_map(Step::Reshard),
        1 => any::<u16>().prop_map(Step::Pass),
    ]
}

fn apply(kinesis: &Kinesis, step: &Step, number: usize) {
    match step {
        Step::Put(key) => {
            let data = format!("{key}/{number:06}");
            kinesis.put(STREAM, &format!("key-{key}"), data);
        }
        Step::Reshard(choice) => {
            kinesis.reshard(STREAM, *choice, 16);
        }
        Step::Pass(ms) => kinesis.advance(Duration::from_millis(u64::from(*ms))),
    }
}

/// Reads like a correct consumer: a shard's children after all of its parents.
async fn read_in_order(kinesis: &Kinesis) -> Vec<String> {
    let mut read = Vec::new();
    let mut done = std::collections::HashSet::new();
    loop {
        let shards = kinesis.shards(STREAM);
        let ready = |it: &&ShardStatus| {
            !done.contains(&it.shard_id) && it.parents.iter().all(|it| done.contains(it))
        };
        let Some(shard) = shards.iter().find(ready) else {
            return read;
        };
        let iterator = iterator(kinesis, &shard.shard_id, "TRIM_HORIZON", json!({})).await;
        let (records, children) = drain(kinesis, iterator).await;
        assert_eq!(children.is_none(), shard.open, "{shard:?}");
        read.extend(records);
        done.insert(shard.shard_id.clone());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn reader_in_order_gets_each_record_once_and_each_key_in_order(
        steps in prop::collection::vec(step(), 1..120),
        shards in 1u32..4,
        records_max in 1usize..5,
        empty in 0usize..2,
        apart in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { let mut it = runtime; it.enable_time().start_paused(true).build().unwrap() };
        runtime.block_on(async {
            let kinesis = stand_in(shards);
            kinesis.answer_records_max(records_max);
            kinesis.empty_answers(empty);
            kinesis.end_apart(apart);
            for (number, step) in steps.iter().enumerate() {
                apply(&kinesis, step, number);
            }
            let open: Vec<_> = kinesis.shards(STREAM).into_iter().filter(|it| it.open).collect();
            let width: u128 = open.iter().map(|it| it.hash_keys.1 - it.hash_keys.0).sum();
            assert_eq!(width, u128::MAX - (open.len() as u128 - 1), "the open shards are a partition");

            let read = read_in_order(&kinesis).await;
            let mut written: Vec<String> = kinesis
                .written(STREAM)
                .iter()
                .map(|it| String::from_utf8(it.data.to_vec()).unwrap())
                .collect();
            let of_key = |all: &[String], key: u8| -> Vec<String> {
                let prefix = format!("{key}/");
                all.iter().filter(|it| it.starts_with(&prefix)).cloned().collect()
            };
            for key in 0..=u8::MAX {
                assert_eq!(of_key(&read, key), of_key(&written, key));
            }
            let mut read = read;
            read.sort();
            written.sort();
            assert_eq!(read, written);
            assert!(kinesis.unserved(STREAM).is_empty());
            assert!(kinesis.order_breaches(STREAM).is_empty());
            assert!(kinesis.served(STREAM).values().all(|times| *times == 1));
        });
    }
}
