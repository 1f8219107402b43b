//! Logs that appear, end and vanish, in few slots. Replicas are killed, hang and cannot reach the
//! API server, and their Role does not allow creating anything. Time is paused; `SEED=n` runs one
//! schedule, `SCHEDULES=n` more of them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may stop at once"
)]

#[path = "../chart/mod.rs"]
mod chart;
#[path = "../simulation/mod.rs"]
mod simulation;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_bridge_app::balancer::Balancer;
use audit_bridge_app::kubernetes::Cluster;
use audit_bridge_app::lease::{Elector, Leadership, LeaseTiming};
use audit_bridge_app::slots::{SlotKeeper, SlotStore};
use audit_bridge_app::state::{AnyStore, LogState, StateLayout};
use audit_bridge_core::checkpoint::{Checkpoint, Owner, Store};
use audit_bridge_core::source::StoredPosition;
use audit_bridge_testkit::kubernetes::{FakeKubernetes, KubernetesFault, KubernetesRequest};
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::chart::{MEMBERS, NAME, NAMESPACE};
use self::simulation::{Abort, hanging, random_fault, run_schedules};
use self::world::{Saved, Shared, World};

/// Interval of a log's records.
const EVERY: Duration = Duration::from_millis(500);
/// How long everything fails, and logs come and go: long enough for one that is missing from the lists
/// to lose its slot, and to come back.
const TROUBLE: Duration = Duration::from_secs(1200);
/// How long lists leave a log out before its slot is free.
const MISSING_MIN: Duration = Duration::from_secs(300);

fn owner(log: &str) -> Owner {
    Owner {
        provider: "eks".to_owned(),
        source: log.to_owned(),
    }
}

fn position(checkpoint: Option<&Checkpoint>) -> u64 {
    let position = checkpoint.and_then(|it| it.position.get(&0)?.as_u64());
    position.unwrap_or(0)
}

/// A reader of a log in a slot, whose Lease it holds.
struct Reader {
    world: Shared,
    replica: String,
    log: String,
    lease: String,
    won: u64,
}

impl Reader {
    fn saved(&self, position: u64) -> Saved {
        Saved {
            won: self.won,
            position,
            lease: self.lease.clone(),
        }
    }

    /// Reads the log until it ends (then true), is given up, or the Lease is lost.
    async fn read(
        self,
        layout: Arc<StateLayout>,
        leadership: Leadership,
        stop: CancellationToken,
    ) -> bool {
        let mut hold = leadership.lease_hold();
        let ended = tokio::select! {
            biased;
            _ = hold.lost() => {
                self.world.lock().unwrap().saw("lease lost");
                return false;
            }
            ended = self.read_on(&layout, &leadership, &stop) => ended,
        };
        let _ = leadership.release().await;
        ended
    }

    async fn read_on(
        &self,
        layout: &StateLayout,
        leadership: &Leadership,
        stop: &CancellationToken,
    ) -> bool {
        let owner = owner(&self.log);
        let opened = loop {
            match layout.open_slot(&owner, &self.lease).await {
                Ok(opened) => break opened,
                Err(_) if stop.is_cancelled() => return false,
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
        };
        let Some(LogState {
            mut store,
            checkpoint,
            ..
        }) = opened
        else {
            self.world.lock().unwrap().saw("slot was another log's");
            return false;
        };
        let is_own = matches!(&store, AnyStore::Kubernetes(slot) if slot.name() == self.lease);
        let log = &self.log;
        assert!(is_own, "{log} is opened in a slot of which it has no Lease");
        let mut next = position(checkpoint.as_ref());
        if leadership.is_leader() {
            self.world.lock().unwrap().begin(self, next);
        }
        loop {
            // Like the run loop, look at the clock before doing anything.
            if !leadership.is_leader() {
                return std::future::pending().await;
            }
            let (wait, end) = {
                let world = &mut *self.world.lock().unwrap();
                world.act(self);
                let log = world.logs.get_mut(&self.log).unwrap();
                let upto = log.issued().min(next + world.random.u64(1..20));
                next = upto.max(next);
                log.delivered = log.delivered.max(next);
                (world.random.u64(100..1500), log.end)
            };
            let checkpoint = Checkpoint::new(&owner, [(0, StoredPosition::from(next))].into());
            let saved = store.save(&checkpoint).await;
            if saved.is_ok() {
                let log = &mut *self.world.lock().unwrap();
                let log = log.logs.get_mut(&self.log).unwrap();
                log.saved = log.saved.clone().max(self.saved(next));
            }
            match (saved.is_ok(), end == Some(next)) {
                (true, true) => return true,
                (true, false) if stop.is_cancelled() => return false,
                _ => sleep(Duration::from_millis(wait)).await,
            }
        }
    }
}

/// What one process knows.
struct View {
    layout: Arc<StateLayout>,
    keeper: SlotKeeper,
    balancer: Balancer,
    ended_lately: BTreeSet<String>,
}

impl View {
    /// Writes the provider's list to the table, and takes over the table; returns whether that
    /// worked.
    async fn list(&mut self, world: &Shared, reading: &BTreeSet<String>) -> bool {
        let listing = world.lock().unwrap().listing();
        // The list may be stale when it is used.
        let wait = world.lock().unwrap().random.u64(0..1500);
        sleep(Duration::from_millis(wait)).await;
        let Ok(table) = self.keeper.store().read().await else {
            return false;
        };
        for (log, _) in listing.logs.iter().filter(|(_, is_closed)| **is_closed) {
            if table.is_ended(log) || reading.contains(log) {
                continue;
            }
            let end = world.lock().unwrap().logs[log].end;
            if let Ok(found) = self.layout.peek(&owner(log), &table).await
                && found.is_some()
                && Some(position(found.as_ref())) == end
            {
                world.lock().unwrap().saw("end found by another");
                self.ended_lately.insert(log.clone());
            }
        }
        let Ok(table) = self.keeper.update(&listing, &self.ended_lately).await else {
            return false;
        };
        self.ended_lately.clear();
        self.balancer.limit_members(table.members_max().unwrap());
        for log in world.lock().unwrap().logs.keys() {
            match table.slot(log).filter(|_| listing.logs.contains_key(log)) {
                Some(slot) => self
                    .balancer
                    .add(log, &self.keeper.store().object_name(slot)),
                None => self.balancer.remove(log),
            }
        }
        let without = |log: &&String| table.slot(log).is_none() && !table.is_ended(log);
        let is_full = listing.logs.keys().any(|log| without(&log));
        if is_full {
            world.lock().unwrap().saw("no slot free");
        }
        true
    }
}

/// Whether a process hangs.
fn hung(world: &Shared, replica: &str) -> impl Fn() -> bool + use<> {
    let (world, replica) = (world.clone(), replica.to_owned());
    move || world.lock().unwrap().is_hung(&replica)
}

/// A process: rebalances, and reads its logs.
async fn replica(world: Shared, name: String) {
    let fake = world.lock().unwrap().fake.clone();
    let client = kube::Client::new(fake.service(&name), NAMESPACE);
    let cluster = Cluster::new(client, NAMESPACE);
    let dir = tempfile::tempdir().unwrap();
    let layout = StateLayout::lock(dir.path()).await.unwrap();
    let elector = Elector::new(&cluster, NAME, &name, LeaseTiming::default()).unwrap();
    let mut view = View {
        layout: Arc::new(layout.with_config_maps(cluster.clone(), NAME, &name)),
        keeper: SlotKeeper::new(SlotStore::new(&cluster, NAME)),
        balancer: Balancer::new(&elector),
        ended_lately: BTreeSet::new(),
    };
    let mut reading = BTreeMap::<String, (CancellationToken, JoinHandle<bool>)>::new();
    let mut leaving = BTreeMap::<String, JoinHandle<bool>>::new();
    let abort = Abort::default();
    let mut next_list = Instant::now();
    while !view.list(&world, &BTreeSet::new()).await {
        sleep(Duration::from_secs(1)).await;
    }
    loop {
        let mut done = Vec::new();
        for (log, (_, task)) in &mut reading {
            if task.is_finished() {
                done.push((log.clone(), task.await.unwrap()));
            }
        }
        for (log, task) in &mut leaving {
            if task.is_finished() {
                done.push((log.clone(), task.await.unwrap()));
            }
        }
        for (log, ended) in done {
            reading.remove(&log);
            leaving.remove(&log);
            if ended {
                world.lock().unwrap().saw("read to its end");
                view.balancer.remove(&log);
                view.ended_lately.insert(log);
                next_list = Instant::now();
            }
        }
        let kept = reading.keys().cloned().collect();
        let left = leaving.keys().cloned().collect();
        if next_list <= Instant::now() {
            next_list = Instant::now() + Duration::from_secs(10);
            view.list(&world, &kept).await;
        }
        let step = view.balancer.step(&kept, &left).await;
        if step.membership.is_some_and(|it| it.rank.is_none()) {
            world.lock().unwrap().saw("stood by");
        }
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
                world.won += 1;
                world.won
            };
            let reader = Reader {
                world: world.clone(),
                replica: name.clone(),
                lease: view.balancer.lease(&log).unwrap().to_owned(),
                log: log.clone(),
                won,
            };
            let read = reader.read(Arc::clone(&view.layout), leadership, stop.clone());
            let task = tokio::spawn(hanging(hung(&world, &name), read));
            abort.0.lock().unwrap().push(task.abort_handle());
            reading.insert(log, (stop, task));
        }
        sleep(Duration::from_secs(2)).await;
    }
}

/// The API server's faults; nothing can be created.
fn api_faults(world: &Shared, seed: u64) {
    let fake = world.lock().unwrap().fake.clone();
    let (world, mut random) = (world.clone(), Rng::with_seed(seed));
    fake.fail_by(move |request: &KubernetesRequest| {
        let world = world.lock().unwrap();
        assert_ne!(
            request.method, "POST",
            "{} is not made beforehand",
            request.body
        );
        if world.is_hung(&request.client) {
            return Some(KubernetesFault::Silence);
        }
        world.faulty.then(|| random_fault(&mut random)).flatten()
    });
}

fn table(fake: &FakeKubernetes) -> Value {
    let object = fake
        .object("configmaps", NAMESPACE, "bridge-slots")
        .unwrap();
    serde_json::from_str(object["data"]["slots.json"].as_str().unwrap()).unwrap()
}

async fn attack(seed: u64) -> BTreeMap<&'static str, u64> {
    fastrand::seed(seed);
    let mut random = Rng::with_seed(seed);
    let world = Arc::new(Mutex::new(World {
        random: random.fork(),
        fake: FakeKubernetes::new(),
        faulty: true,
        logs: BTreeMap::new(),
        won: 0,
        newest: BTreeMap::new(),
        had: BTreeMap::new(),
        hung: BTreeMap::new(),
        seen: BTreeMap::new(),
    }));
    {
        let mut world = world.lock().unwrap();
        chart::make(&world.fake);
        for _ in 0..3 {
            world.bear();
        }
    }
    api_faults(&world, seed ^ 0xfa);
    let (mut replicas, mut born) = (BTreeMap::<String, JoinHandle<()>>::new(), 0);
    let mut start = |replicas: &mut BTreeMap<String, JoinHandle<()>>| {
        born += 1;
        let name = format!("replica-{born}");
        let life = replica(world.clone(), name.clone());
        let life = hanging(hung(&world, &name), life);
        replicas.insert(name, tokio::spawn(life));
    };
    let began = Instant::now();
    while began.elapsed() < TROUBLE {
        while replicas.len() < 2 || replicas.len() < MEMBERS + 1 && random.u32(0..6) == 0 {
            start(&mut replicas);
        }
        let names: Vec<String> = replicas.keys().cloned().collect();
        let name = names[random.usize(0..names.len())].clone();
        match random.u32(0..40) {
            0 => {
                replicas.remove(&name).unwrap().abort();
                world.lock().unwrap().saw("killed");
            }
            1..5 => {
                let mut world = world.lock().unwrap();
                if !world.is_hung(&name) {
                    world.hang(name);
                }
            }
            5..8 => world.lock().unwrap().hide(),
            _ => world.lock().unwrap().turn(),
        }
        assert!(
            replicas.values().all(|task| !task.is_finished()),
            "a replica broke"
        );
        sleep(Duration::from_millis(random.u64(200..6000))).await;
    }
    let fake = {
        let mut world = world.lock().unwrap();
        world.faulty = false;
        world.hung.clear();
        for log in world.logs.values_mut() {
            log.end = log.end.or(Some(log.issued()));
            log.missing_until = None;
        }
        world.fake.clone()
    };
    // From here on everything must settle without faults: logs that end free slots for those that
    // have none.
    let settled = async {
        loop {
            let ended = table(&fake)["ended"].clone();
            let ended: BTreeSet<String> = serde_json::from_value(ended).unwrap_or_default();
            let is_read = {
                let world = world.lock().unwrap();
                let mut there = world.logs.iter().filter(|(_, log)| !log.gone);
                there.all(|(name, _)| ended.contains(name))
            };
            if is_read {
                return;
            }
            assert!(
                replicas.values().all(|task| !task.is_finished()),
                "a replica broke"
            );
            sleep(Duration::from_secs(1)).await;
        }
    };
    let settled = timeout(Duration::from_secs(900), settled).await;
    assert!(settled.is_ok(), "all is read: {}", table(&fake));
    for log in world.lock().unwrap().logs.values_mut() {
        assert!(log.lost || Some(log.delivered) == log.end);
        log.gone = true;
    }
    // After a while none of their entries are left.
    sleep(Duration::from_secs(400)).await;
    assert_eq!(table(&fake), json!({"version": 1, "slots": {}}));
    let world = &mut *world.lock().unwrap();
    let slots_reused = world.had.values().filter(|logs| logs.len() > 1).count();
    if slots_reused > 0 {
        world.saw("slot used again");
    }
    world.seen.clone()
}

#[test]
fn slots_random_faults_keep_positions_and_one_reader() {
    let wanted = [
        "end found by another",
        "gone unread",
        "hung",
        "killed",
        "lease lost",
        "log moved to another slot",
        "no slot free",
        "read to its end",
        "slot used again",
        "slot was another log's",
        "stood by",
    ];
    run_schedules(20, &wanted, attack);
}
