//! Attacks replicas that share logs: they are killed, hang, have wrong clocks, and cannot reach the
//! API server, while people take over and delete Leases. Time is paused; `SEED=n` runs one
//! schedule, `SCHEDULES=n` more of them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may stop at once"
)]

mod simulation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_app::balancer::Balancer;
use audit_bridge_app::kubernetes::Cluster;
use audit_bridge_app::lease::{Elector, Leadership, LeaseTiming};
use audit_bridge_app::state::KubernetesStore;
use audit_bridge_core::batch;
use audit_bridge_core::checkpoint::{Checkpoint, Checkpointer, Owner, Store, StoreError};
use audit_bridge_core::convert::{Convert, Output, RecordId};
use audit_bridge_core::event::Event;
use audit_bridge_core::event::conformance::{self, EventOptions};
use audit_bridge_core::observer::Observer;
use audit_bridge_core::read_budget::ReadBudget;
use audit_bridge_core::record::{Origin, Record};
use audit_bridge_core::run::{Ended, Pipeline, RetryPolicy, run};
use audit_bridge_core::sink::{Cause, RequestFailure, Sink, Verdict};
use audit_bridge_core::source::{Page, Source};
use audit_bridge_testkit::kubernetes::{FakeKubernetes, KubernetesFault, KubernetesRequest};
use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::simulation::{Abort, hanging, random_fault, run_schedules};

const NAMESPACE: &str = "audit";
const LOGS: usize = 3;
/// Number of records per log; one arrives per `EVERY`.
const RECORDS: u64 = 400;
const EVERY: Duration = Duration::from_millis(500);
/// How long the faults last.
const TROUBLE: Duration = Duration::from_secs(200);
/// A reader notices by its next renewal that its Lease was taken.
const THEFT_KNOWN: Duration = Duration::from_secs(30);

struct World {
    random: Rng,
    fake: FakeKubernetes,
    began: Instant,
    faulty: bool,
    accepted: BTreeMap<String, u64>,
    /// Number of won Leases.
    won: u64,
    /// By log, the number of the win with which its newest reader started.
    newest: BTreeMap<usize, u64>,
    /// When a Lease was last taken away, by log.
    stolen: BTreeMap<usize, Instant>,
    hung: BTreeSet<String>,
    seen: BTreeMap<&'static str, u64>,
}

type Shared = Arc<Mutex<World>>;

impl World {
    fn saw(&mut self, state: &'static str) {
        *self.seen.entry(state).or_default() += 1;
    }

    /// A reader acts: checks that no other reader of the log started after it.
    fn act(&mut self, reader: &Reader) {
        let stolen = self.stolen.get(&reader.log);
        if stolen.is_some_and(|at| at.elapsed() < THEFT_KNOWN) {
            self.newest.remove(&reader.log);
            return;
        }
        let newest = self.newest.entry(reader.log).or_default();
        assert!(
            *newest <= reader.won,
            "{} reads log {} although another one has begun",
            reader.replica,
            reader.log
        );
        *newest = reader.won;
    }
}

fn lease(log: usize) -> String {
    format!("bridge-log-{log}")
}

fn id(log: usize, index: u64) -> String {
    format!("{log}-{index}")
}

/// A reader of a log that holds its Lease.
#[derive(Clone)]
struct Reader {
    world: Shared,
    replica: String,
    log: usize,
    won: u64,
}

struct Log {
    reader: Reader,
    next: u64,
}

impl Source for Log {
    type Position = u64;

    async fn read(&mut self) -> Option<Page<u64>> {
        loop {
            let wait = {
                let mut world = self.reader.world.lock().unwrap();
                let issued = world.began.elapsed().as_millis() / EVERY.as_millis();
                let issued = u64::try_from(issued).unwrap().min(RECORDS);
                if self.next < issued {
                    world.act(&self.reader);
                    let to = issued.min(self.next + world.random.u64(1..20));
                    let text = |index| {
                        format!(
                            "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\
                             \"level\":\"Metadata\",\"auditID\":\"{}\",\"verb\":\"get\",\
                             \"stage\":\"ResponseComplete\",\
                             \"stageTimestamp\":\"2026-11-21T10:00:00.000000Z\"}}",
                            id(self.reader.log, index)
                        )
                    };
                    let records = (self.next..to).map(|index| {
                        let origin = Origin::Stream {
                            stream: "log".into(),
                            id: index.to_string(),
                        };
                        Record::new(text(index), origin)
                    });
                    let page = Page {
                        records: records.collect(),
                        position: Some(to),
                        ..Page::default()
                    };
                    self.next = to;
                    return Some(page);
                }
                world.random.u64(100..1500)
            };
            sleep(Duration::from_millis(wait)).await;
        }
    }
}

struct Native(EventOptions);

impl Convert for Native {
    fn convert(&mut self, id: RecordId, record: &Record, out: &mut Output) {
        let event = conformance::event(&record.payload, &self.0.context());
        out.settle(id, record, event);
    }
}

impl Sink for Reader {
    async fn send(&self, events: &[Event]) -> Verdict {
        let wait = {
            let mut world = self.world.lock().unwrap();
            world.act(self);
            world.random.u64(0..300)
        };
        sleep(Duration::from_millis(wait)).await;
        let mut world = self.world.lock().unwrap();
        if world.faulty && world.random.u32(0..100) < 20 {
            return Verdict::Failed(RequestFailure {
                cause: Cause::Status(503),
                detail: "the webhook failed".to_owned(),
                remedy: None,
                after: None,
            });
        }
        for event in events {
            let text = String::from_utf8(event.text().to_vec()).unwrap();
            let id = text.split("auditID\":\"").nth(1);
            let id = id.and_then(|id| id.split('"').next()).unwrap();
            *world.accepted.entry(id.to_owned()).or_default() += 1;
        }
        Verdict::Accepted { status: 200 }
    }
}

/// The real store; checks that what it saves is true.
struct Checked(KubernetesStore, Reader);

impl Store for Checked {
    async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        self.0.load().await
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        {
            let world = self.1.world.lock().unwrap();
            let upto = checkpoint.position[&0].as_u64().unwrap();
            let lost =
                (0..upto).find(|&index| !world.accepted.contains_key(&id(self.1.log, index)));
            assert_eq!(lost, None, "of log {}, written down as settled", self.1.log);
        }
        let saved = self.0.save(checkpoint).await;
        if let Err(error) = &saved
            && error.to_string().contains("two bridges")
        {
            self.1.world.lock().unwrap().saw("two writers told apart");
        }
        saved
    }
}

struct Quiet;

impl Observer for Quiet {}

impl Reader {
    /// Reads the log until it is released or its Lease is lost.
    async fn read(self, cluster: Cluster, leadership: Leadership, stop: CancellationToken) {
        let owner = Owner {
            provider: "aks".to_owned(),
            source: lease(self.log),
        };
        let (replica, name) = (&self.replica, lease(self.log));
        let mut store = KubernetesStore::new(&cluster, &name, replica, owner.clone());
        let mut lease_hold = leadership.lease_hold();
        let loaded = loop {
            tokio::select! {
                biased;
                _ = lease_hold.lost() => return,
                loaded = store.load() => match loaded {
                    Ok(loaded) => break loaded,
                    Err(_) => sleep(Duration::from_secs(1)).await,
                },
            }
        };
        let position = loaded.as_ref().and_then(|it| it.position.get(&0)?.as_u64());
        let pipeline = Pipeline {
            source: Log {
                reader: self.clone(),
                next: position.unwrap_or(0),
            },
            converter: Native(EventOptions::default()),
            sink: self.clone(),
            dead_letter: None,
            checkpoint: Some(Checkpointer::new(
                Checked(store, self.clone()),
                owner,
                loaded,
                Duration::from_secs(1),
            )),
            lease_hold: Some(lease_hold),
            observer: Quiet,
            on_request: Box::new(|_, _| {}),
            batch: batch::BatchLimits {
                events_max: 7,
                bytes_max: 4000,
                wait_max: Duration::from_millis(500),
            },
            in_flight_batches_max: 2,
            in_flight_bytes: ReadBudget::new(20_000),
            retry_policy: RetryPolicy::Forever,
            stop,
            grace: Duration::from_secs(25),
        };
        match run(pipeline).await.ended {
            Ended::LostLease(_) => self.world.lock().unwrap().saw("lease lost"),
            Ended::Stopped => {
                self.world.lock().unwrap().saw("given up");
                let _ = leadership.release().await;
            }
            other => unreachable!("{other:?}"),
        }
    }
}

/// Whether a process hangs.
fn hung(world: &Shared, replica: &str) -> impl Fn() -> bool + use<> {
    let (world, replica) = (world.clone(), replica.to_owned());
    move || world.lock().unwrap().hung.contains(&replica)
}

/// A process: rebalances, and reads its logs.
async fn replica(world: Shared, name: String) {
    let fake = world.lock().unwrap().fake.clone();
    let client = kube::Client::new(fake.service(&name), NAMESPACE);
    let cluster = Cluster::new(client, NAMESPACE);
    let elector = Elector::new(&cluster, "bridge", &name, LeaseTiming::default()).unwrap();
    let mut balancer = Balancer::new(&elector);
    for log in 0..LOGS {
        balancer.add(&log.to_string(), &lease(log));
    }
    let mut reading = BTreeMap::<String, (CancellationToken, JoinHandle<()>)>::new();
    let mut leaving = BTreeMap::<String, JoinHandle<()>>::new();
    // Its tasks end with it.
    let _abort = Abort(Arc::default());
    loop {
        reading.retain(|_, (_, task)| !task.is_finished());
        leaving.retain(|_, task| !task.is_finished());
        let (kept, left) = (
            reading.keys().cloned().collect(),
            leaving.keys().cloned().collect(),
        );
        let step = balancer.step(&kept, &left).await;
        for log in step.give_up {
            if let Some((stop, task)) = reading.remove(&log) {
                stop.cancel();
                leaving.insert(log, task);
            }
        }
        for (log, leadership) in step.gained {
            let stop = CancellationToken::new();
            let won = {
                let mut world = world.lock().unwrap();
                world.saw("gained");
                world.won += 1;
                world.won
            };
            let reader = Reader {
                world: world.clone(),
                replica: name.clone(),
                log: log.parse().unwrap(),
                won,
            };
            let read = reader.read(cluster.clone(), leadership, stop.clone());
            let task = tokio::spawn(hanging(hung(&world, &name), read));
            _abort.0.lock().unwrap().push(task.abort_handle());
            reading.insert(log, (stop, task));
        }
        sleep(Duration::from_secs(2)).await;
    }
}

/// The API server's faults, which mostly hit a process that hangs.
fn api_faults(world: &Shared, seed: u64) {
    let fake = world.lock().unwrap().fake.clone();
    let (world, mut random) = (world.clone(), Rng::with_seed(seed));
    fake.fail_by(move |request: &KubernetesRequest| {
        let world = world.lock().unwrap();
        if world.hung.contains(&request.client) {
            return Some(KubernetesFault::Silence);
        }
        world.faulty.then(|| random_fault(&mut random)).flatten()
    });
}

/// Takes the Lease of a log away.
fn steal(world: &mut World, log: usize) {
    let Some(mut object) = world.fake.object("leases", NAMESPACE, &lease(log)) else {
        return;
    };
    match world.random.u32(0..3) {
        0 => {
            world.fake.remove("leases", NAMESPACE, &lease(log));
            world.saw("lease deleted");
        }
        1 => {
            object["spec"]["holderIdentity"] = json!("");
            world.fake.put("leases", NAMESPACE, &lease(log), object);
            world.saw("lease cleared");
        }
        _ => {
            object["spec"]["holderIdentity"] = json!("thief");
            world.fake.put("leases", NAMESPACE, &lease(log), object);
            world.saw("lease stolen");
        }
    }
    world.stolen.insert(log, Instant::now());
}

async fn attack(seed: u64) -> BTreeMap<&'static str, u64> {
    fastrand::seed(seed);
    let mut random = Rng::with_seed(seed);
    let world = Arc::new(Mutex::new(World {
        random: random.fork(),
        fake: FakeKubernetes::new(),
        began: Instant::now(),
        faulty: true,
        accepted: BTreeMap::new(),
        won: 0,
        newest: BTreeMap::new(),
        stolen: BTreeMap::new(),
        hung: BTreeSet::new(),
        seen: BTreeMap::new(),
    }));
    api_faults(&world, seed ^ 0xfa);
    let (mut replicas, mut born) = (BTreeMap::<String, JoinHandle<()>>::new(), 0);
    let mut start = |replicas: &mut BTreeMap<String, JoinHandle<()>>, skew: i64| {
        born += 1;
        let name = format!("replica-{born}");
        world.lock().unwrap().fake.skew_clock(&name, skew);
        let life = hanging(hung(&world, &name), replica(world.clone(), name.clone()));
        replicas.insert(name, tokio::spawn(life));
    };
    let began = Instant::now();
    while began.elapsed() < TROUBLE {
        while replicas.len() < 2 || replicas.len() < 4 && random.u32(0..10) == 0 {
            start(&mut replicas, random.i64(-7200..7200));
        }
        let names: Vec<String> = replicas.keys().cloned().collect();
        let name = names[random.usize(0..names.len())].clone();
        match random.u32(0..10) {
            0 => {
                replicas.remove(&name).unwrap().abort();
                world.lock().unwrap().saw("killed");
            }
            1 | 2 => {
                let mut world = world.lock().unwrap();
                if !world.hung.remove(&name) {
                    world.hung.insert(name);
                    world.saw("hung");
                }
            }
            3 => {
                let log = random.usize(0..LOGS);
                steal(&mut world.lock().unwrap(), log);
            }
            _ => {}
        }
        sleep(Duration::from_millis(random.u64(200..8000))).await;
    }
    {
        let mut world = world.lock().unwrap();
        world.faulty = false;
        world.hung.clear();
    }
    // From here on there must be progress without faults.
    let settled = async {
        loop {
            let done = (0..LOGS).all(|log| {
                let fake = world.lock().unwrap().fake.clone();
                let object = fake.object("configmaps", NAMESPACE, &lease(log));
                let text =
                    object.and_then(|it| it["data"]["checkpoint.json"].as_str().map(str::to_owned));
                text.is_some_and(|text| text.contains(&format!("{{\"0\":{RECORDS}}}")))
            });
            if done {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    let bound = Duration::from_secs(600);
    let settled = tokio::time::timeout(bound, settled).await;
    let mut world = world.lock().unwrap();
    assert!(settled.is_ok(), "progress resumes");
    for log in 0..LOGS {
        for index in 0..RECORDS {
            assert!(
                world.accepted.contains_key(&id(log, index)),
                "{log} {index}"
            );
        }
    }
    if world.accepted.values().any(|&times| times > 1) {
        world.saw("sent again");
    }
    world.seen.clone()
}

#[test]
fn replicas_sharing_logs_random_faults_lose_nothing() {
    let wanted = [
        "gained",
        "given up",
        "hung",
        "killed",
        "lease cleared",
        "lease deleted",
        "lease lost",
        "lease stolen",
        "sent again",
        "two writers told apart",
    ];
    run_schedules(60, &wanted, attack);
}
