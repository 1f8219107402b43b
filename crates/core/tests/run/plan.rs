//! The parameters of a schedule, all derived from the seed.

/// A small seeded generator (`SplitMix64`).
#[derive(Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// The poison on which the receiver always fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poison {
    None,
    /// Answers that call the body bad: the events are refused.
    Bodies,
    /// Any failures: the events are parked first.
    All,
}

impl Poison {
    /// Number of events after the log was read, one every 20 seconds, by which poison can be told
    /// from an outage.
    pub(crate) fn fillers(self) -> u64 {
        match self {
            Poison::None => 0,
            Poison::Bodies => 15,
            Poison::All => 120,
        }
    }
}

/// The parameters of a schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) partitions: u32,
    pub(crate) records: u64,
    /// Whether partitions are split and followed by others while they are read.
    pub(crate) resharded: bool,
    /// Percentage of requests that fail in some way while faults last.
    pub(crate) faults: u64,
    /// Whether some failing requests were accepted nevertheless.
    pub(crate) lost_answers: bool,
    pub(crate) poison: Poison,
    /// The receiver's time per event while faults last.
    pub(crate) each: u64,
    pub(crate) crashes: u64,
    /// Percentage of a checkpoint's steps that fail while faults last.
    pub(crate) store_faults: u64,
    /// Whether a crash is a power loss too: data that was not synced may be absent or torn.
    pub(crate) power_losses: bool,
    /// Percentage of syncs that report success falsely.
    pub(crate) lost_syncs: u64,
    pub(crate) in_flight: usize,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Plan {
        let mut dice = Dice(seed);
        let power_losses = dice.chance(60);
        Plan {
            seed,
            partitions: 1 + u32::try_from(dice.below(4)).unwrap(),
            records: 20 + dice.below(300),
            resharded: dice.chance(40),
            faults: dice.pick(&[0, 10, 40]),
            lost_answers: dice.chance(40),
            poison: dice.pick(&[
                Poison::None,
                Poison::None,
                Poison::Bodies,
                Poison::Bodies,
                Poison::All,
            ]),
            each: dice.pick(&[0, 0, 200, 2000]),
            crashes: dice.below(5),
            store_faults: dice.pick(&[0, 10]),
            power_losses,
            lost_syncs: if power_losses {
                dice.pick(&[0, 0, 20])
            } else {
                0
            },
            in_flight: 1 + usize::try_from(dice.below(4)).unwrap(),
        }
    }
}
