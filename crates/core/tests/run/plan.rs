//! What a schedule has in it, all of it from the seed.

/// Small, seeded, good enough (`SplitMix64`).
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

/// On what the receiver always fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poison {
    None,
    /// It calls the bodies bad: the events are refused.
    Bodies,
    /// Whatever else it may do: they are parked first.
    All,
}

impl Poison {
    /// What goes on when the log is read, so that poison can be told from an outage: an event every
    /// 20 seconds, so many times.
    pub(crate) fn fillers(self) -> u64 {
        match self {
            Poison::None => 0,
            Poison::Bodies => 15,
            Poison::All => 120,
        }
    }
}

/// What a schedule has in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) partitions: u32,
    pub(crate) records: u64,
    /// Partitions are split and followed by others while they are read.
    pub(crate) resharded: bool,
    /// Percent of requests that fail in some way while faults last.
    pub(crate) faults: u64,
    /// Some failing requests were accepted all the same.
    pub(crate) lost_answers: bool,
    pub(crate) poison: Poison,
    /// The receiver's time for each event while faults last.
    pub(crate) each: u64,
    pub(crate) crashes: u64,
    /// Percent of a checkpoint's steps that fail while faults last.
    pub(crate) store_faults: u64,
    /// A crash takes the power away too: what was not brought to the disk may be gone, or torn.
    pub(crate) power_losses: bool,
    /// Percent of syncs that say they were done and were not.
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
