//! What lists of the stream's shards say: failures, a stream that was created again, shards that
//! expired.

use super::*;

#[tokio::test(start_paused = true)]
async fn stream_created_again_is_read_from_its_oldest_record() {
    for ended in [false, true] {
        let mut world = World::new(1, Start::Earliest);
        world.write(0, 1);
        world.read(Duration::from_secs(1)).await;
        world.keep();
        world.read(Duration::from_secs(3)).await;
        if ended {
            world.kinesis.split(STREAM, "shardId-000000000000");
            world.read(Duration::from_secs(5)).await;
        }
        world.keep();
        assert_eq!(world.came, [0]);
        world.crash();
        world.kinesis.advance(Duration::from_secs(60));
        world.kinesis.delete_stream(STREAM);
        world.kinesis.create_stream(STREAM, 1);
        world.write(0, 1);
        world.read(Duration::from_secs(60)).await;
        assert_eq!(world.came, [0, 1], "{ended}: {:?}", world.kept);
    }
}

/// A shard's children are found by the list only, and no reader fails while they are unknown.
#[tokio::test(start_paused = true)]
async fn shard_list_that_fails_makes_the_source_not_ready_until_it_works() {
    for splits in [true, false] {
        let mut world = World::new(2, Start::Earliest);
        world.read(Duration::from_secs(2)).await;
        world.keep();
        world.read(Duration::from_secs(5)).await;
        assert!(world.telemetry.is_ready(Component::Source));
        world.kinesis.refuse("ListShards", internal_failure());
        if splits {
            world.kinesis.split(STREAM, "shardId-000000000000");
            world.read(Duration::from_secs(3)).await;
            world.keep();
            world.read(Duration::from_secs(1)).await;
        } else {
            world.read(Duration::from_secs(59)).await;
            assert!(
                world.telemetry.is_ready(Component::Source),
                "a failed list is normal"
            );
            world.read(Duration::from_secs(10)).await;
        }
        assert!(!world.telemetry.is_ready(Component::Source), "{splits}");
        let metrics = world.telemetry.render();
        let counted = r#"audit_bridge_source_requests_total{status="error"}"#;
        assert!(metrics.contains(counted), "{metrics}");
        for n in 0..10 {
            world.write(n, 1);
        }
        world.finish().await;
        world.read(Duration::from_secs(60)).await;
        assert!(world.telemetry.is_ready(Component::Source), "{splits}");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_created_again_while_it_is_read_is_read_from_its_oldest_record() {
    let mut world = World::new(1, Start::Earliest);
    world.write(0, 1);
    world.read(Duration::from_secs(1)).await;
    world.keep();
    world.read(Duration::from_secs(3)).await;
    world.kinesis.split(STREAM, "shardId-000000000000");
    for _ in 0..5 {
        world.read(Duration::from_secs(5)).await;
        world.keep();
    }
    assert_eq!(world.came, [0]);
    world.kinesis.advance(Duration::from_secs(60));
    world.kinesis.delete_stream(STREAM);
    world.read(Duration::from_secs(30)).await;
    world.kinesis.create_stream(STREAM, 1);
    world.write(0, 1);
    world.finish().await;
    assert_eq!(world.came, [0, 1], "{:?}", world.kept);
    // The new shard can end as the old one did, and its children are found.
    world.kinesis.split(STREAM, "shardId-000000000000");
    world.write(0, 1);
    world.finish().await;
    assert_eq!(world.came, [0, 1, 2], "{:?}", world.kept);
    // The readers of the old stream's shards wait before they try again.
    for _ in 0..5 {
        world.read(Duration::from_secs(60)).await;
        world.keep();
    }
    assert!(world.telemetry.is_ready(Component::Source));
}

#[tokio::test(start_paused = true)]
async fn shard_that_expired_unread_while_nobody_read_is_reported_once() {
    let mut world = World::with_one_read().await;
    world.crash();
    world.write(0, 1);
    world.kinesis.split(STREAM, "shardId-000000000000");
    world.kinesis.advance(Duration::from_secs(60));
    world.kinesis.trim(STREAM, world.kinesis.now_ms());
    assert_eq!(world.kinesis.shards(STREAM).len(), 2, "the parent is gone");
    world.write(0, 1);
    for _ in 0..5 {
        world.read(Duration::from_secs(60)).await;
        world.keep();
    }
    assert_eq!(world.came, [0, 2]);
    let metrics = world.telemetry.render();
    let counted = "audit_bridge_records_expired_total 1\n";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(!world.kept.contains_key(&0), "{:?}", world.kept);
}
