//! Shared parts of the simulations of replicas: processes that hang, an API server that fails, and
//! seeded schedules.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use audit_bridge_testkit::kubernetes::KubernetesFault;
use audit_bridge_testkit::repeat;
use fastrand::Rng;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// Runs a future, but makes no progress while its process hangs.
pub(crate) async fn hanging<T>(is_hung: impl Fn() -> bool, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut wait = None;
    poll_fn(move |context| {
        if is_hung() {
            let nap = wait.insert(Box::pin(sleep(Duration::from_millis(100))));
            let _ = nap.as_mut().poll(context);
            return Poll::Pending;
        }
        future.as_mut().poll(context)
    })
    .await
}

/// Aborts tasks when it is dropped.
#[derive(Default)]
pub(crate) struct Abort(pub(crate) Arc<Mutex<Vec<AbortHandle>>>);

impl Drop for Abort {
    fn drop(&mut self) {
        for task in self.0.lock().unwrap().iter() {
            task.abort();
        }
    }
}

/// A random fault of the API server for one request.
pub(crate) fn random_fault(random: &mut Rng) -> Option<KubernetesFault> {
    let seconds = |random: &mut Rng, range| Duration::from_secs(random.u64(range));
    match random.u32(0..100) {
        0..3 => Some(KubernetesFault::Status(500)),
        3 => Some(KubernetesFault::Silence),
        4 => Some(KubernetesFault::NoAnswer),
        5 => Some(KubernetesFault::Late(seconds(random, 1..12))),
        6 => Some(KubernetesFault::SlowAnswer(seconds(random, 1..9))),
        _ => None,
    }
}

/// Runs the schedule of `SEED`, or `SCHEDULES` of them, each with paused time. If at least the
/// default number runs, each of the `wanted` states must be reached by some schedule.
pub(crate) fn run_schedules<F>(by_default: u64, wanted: &[&str], attack: impl Fn(u64) -> F)
where
    F: Future<Output = BTreeMap<&'static str, u64>>,
{
    let seeds = repeat::schedules(by_default);
    let many = seeds.end - seeds.start >= by_default;
    let mut seen = BTreeMap::<&str, u64>::new();
    for seed in seeds {
        println!("SEED={seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        for (state, times) in runtime.block_on(attack(seed)) {
            *seen.entry(state).or_default() += times;
        }
    }
    println!("{seen:#?}");
    for state in wanted.iter().filter(|_| many) {
        assert!(seen.contains_key(state), "{state} never: {seen:?}");
    }
}
