//! Several pipelines on one sink.

use std::sync::{Arc, Mutex};

use audit_bridge_core::sink::SharedSink;

use super::fake::{Fake, accepted};
use super::*;

#[tokio::test(start_paused = true)]
async fn deliveries_sharing_a_sink_share_its_slots_and_waiting_is_no_request_time() {
    let (fake, log) = Fake::new(|_, _, _| (Duration::from_secs(2), accepted()));
    let sink = SharedSink::new(Arc::new(fake), 3);
    let longest = Arc::new(Mutex::new(0.0_f64));
    let pipelines = (0..8_u64).map(|pipeline| {
        let (sink, longest) = (sink.clone(), Arc::clone(&longest));
        async move {
            let limit = ConcurrencyLimit {
                in_flight_batches_max: 2,
                seed: pipeline,
            };
            let mut delivery = Delivery::new(sink, limit, move |_, seconds| {
                let mut longest = longest.lock().unwrap();
                *longest = longest.max(seconds);
            });
            let batches = (0..5).map(|number| batch([pipeline * 5 + number]));
            deliver_all(&mut delivery, batches).await.sorted().delivered
        }
    });
    let delivered = futures_util::future::join_all(pipelines).await.concat();
    assert_eq!(delivered, (0..40).collect::<Vec<_>>());
    assert_eq!(log.lock().unwrap().at_once_max, 3);
    assert!((2.0..2.1).contains(&*longest.lock().unwrap()));
}
