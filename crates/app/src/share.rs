//! Which replica reads which of several logs.
//!
//! Each log has a Lease, and whoever holds it reads the log: that alone decides. So that every
//! replica gets its share, each also has a seat, one of the Leases `NAME-member-0`, `-1` and so on.
//! Who looks at the seats knows how many replicas there are and how many sit before it, and from
//! that how many logs are its own. One that reads more gives some up, in good order; one that reads
//! less takes Leases that are free. When a replica dies, its Leases run out, its seat among them.
//!
//! The counts of two replicas may differ for a moment. Then a log waits for that moment, or goes to
//! one more hand than it had to; no log is ever read by two.

use std::collections::{BTreeMap, BTreeSet};

use crate::kubernetes::ApiError;
use crate::lease::{Elector, Leadership, Sight};

/// More replicas than any event hub has partitions.
const SEATS_MAX: usize = 2048;

/// One replica among those that share logs.
#[derive(Debug)]
pub struct Balancer {
    name: String,
    /// The seats that were ever looked at, in order; the first is always there.
    seats: Vec<Elector>,
    seat: Option<(usize, Leadership)>,
    /// By the log's name.
    logs: BTreeMap<String, Elector>,
}

/// How many replicas there are, from the view of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roll {
    /// All of them, this one included.
    pub replicas: usize,
    /// How many sit before this one.
    pub rank: usize,
}

impl Roll {
    /// How many of so many logs are this replica's. All replicas' shares add up to all logs.
    pub fn share(self, logs: usize) -> usize {
        let replicas = self.replicas.max(1);
        logs / replicas + usize::from(self.rank < logs % replicas)
    }
}

/// What follows from one look around.
#[derive(Debug, Default)]
pub struct Step {
    /// Who else is there; `None` when that could not be seen.
    pub roll: Option<Roll>,
    /// Logs that are ours from now on.
    pub gained: Vec<(String, Leadership)>,
    /// Logs to stop reading and to give back.
    pub give_up: Vec<String>,
    /// Why not all could be seen, and what to do. What is held stays held.
    pub trouble: Option<String>,
}

impl Balancer {
    /// A replica that has no seat yet. `elector` is a candidate for the Lease that gives the
    /// others their names.
    pub fn new(elector: &Elector) -> Balancer {
        let name = elector.lease().to_owned();
        Balancer {
            seats: vec![elector.sibling(&seat_name(&name, 0))],
            name,
            seat: None,
            logs: BTreeMap::new(),
        }
    }

    /// There is a log to share, with a Lease of this name. One that is known already stays as it is.
    pub fn add(&mut self, log: &str, lease: &str) {
        if !self.logs.contains_key(log) {
            let elector = self.seats[0].sibling(lease);
            self.logs.insert(log.to_owned(), elector);
        }
    }

    /// A log is gone.
    pub fn remove(&mut self, log: &str) {
        self.logs.remove(log);
    }

    /// Looks around once. `reading` are the logs that this replica reads and means to keep,
    /// `leaving` those that it is giving up, or has lost and still has to stop.
    pub async fn step(&mut self, reading: &BTreeSet<String>, leaving: &BTreeSet<String>) -> Step {
        let mut step = Step::default();
        let gone = reading.iter().filter(|log| !self.logs.contains_key(*log));
        step.give_up.extend(gone.cloned());
        let roll = match self.count().await {
            Ok(roll) => roll,
            Err(error) => {
                step.trouble = Some(self.told(&error));
                return step;
            }
        };
        step.roll = Some(roll);
        let share = roll.share(self.logs.len());
        let kept = reading.len() - step.give_up.len();
        if kept > share {
            let known = reading.iter().filter(|log| self.logs.contains_key(*log));
            step.give_up
                .extend(known.rev().take(kept - share).cloned().collect::<Vec<_>>());
            return step;
        }
        // Each begins at another place, so that they do not reach for the same ones.
        let first = roll.rank * self.logs.len() / roll.replicas.max(1);
        // A Lease runs out from when its last change was seen. One that may have lost its holder
        // is looked at before its logs come to be ours.
        let overdue = self.seats.iter().any(Elector::is_overdue);
        let order: Vec<String> = {
            let (before, from) = (self.logs.keys().take(first), self.logs.keys().skip(first));
            from.chain(before)
                .filter(|log| !reading.contains(*log) && !leaving.contains(*log))
                .cloned()
                .collect()
        };
        for log in order {
            let wanted = kept + step.gained.len() < share;
            let Some(elector) = self.logs.get_mut(&log).filter(|_| wanted || overdue) else {
                continue;
            };
            let result = match wanted {
                true => elector.try_acquire().await,
                false => elector.look().await.map(|_| None),
            };
            match result {
                Ok(Some(leadership)) => step.gained.push((log, leadership)),
                Ok(None) => {}
                Err(error) => {
                    step.trouble = Some(self.told(&error));
                    break;
                }
            }
        }
        step
    }

    /// Gives the seat back, so that the others need not wait for it to run out.
    ///
    /// # Errors
    /// The Lease could not be written: it expires by itself.
    pub async fn leave(mut self) -> Result<(), ApiError> {
        match self.seat.take() {
            Some((_, seat)) => seat.release().await,
            None => Ok(()),
        }
    }

    /// Counts the seats that are taken, and takes the first free one if we have none.
    async fn count(&mut self) -> Result<Roll, ApiError> {
        // A seat that was lost may be anybody's.
        self.seat = self.seat.take().filter(|(_, seat)| seat.is_leader());
        let mut roll = Roll::default();
        for number in 0..SEATS_MAX {
            let own = self.seat.as_ref().map(|(own, _)| *own);
            if own == Some(number) {
                roll.rank = roll.replicas;
                roll.replicas += 1;
                continue;
            }
            if self.seats.len() == number {
                let elector = self.seats[0].sibling(&seat_name(&self.name, number));
                self.seats.push(elector);
            }
            let elector = &mut self.seats[number];
            match elector.look().await? {
                // A count need not be certain; that of a new replica begins with what it finds.
                Sight::Held if elector.is_forgotten() => {}
                Sight::Held => roll.replicas += 1,
                Sight::Free if own.is_some() => {}
                // Seats are made in order.
                Sight::Absent if own.is_some_and(|own| own < number) => break,
                // One behind a gap would not be found: then this is the better one.
                Sight::Free | Sight::Absent => {
                    roll.rank = roll.replicas;
                    roll.replicas += 1;
                    // If somebody was faster, that one is counted, and the next seat is tried.
                    if let Some(seat) = elector.try_acquire().await?
                        && let Some((_, before)) = self.seat.replace((number, seat))
                    {
                        before.release().await?;
                    }
                }
            }
        }
        Ok(roll)
    }

    fn told(&self, error: &ApiError) -> String {
        format!("no lease: {error}; {}", self.seats[0].remedy(error))
    }
}

/// The name of a replica's own Lease.
pub(crate) fn seat_name(name: &str, number: usize) -> String {
    format!("{name}-member-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_differ_by_one_at_most_and_add_up() {
        for logs in 0..40 {
            for replicas in 1..9 {
                let shares: Vec<usize> = (0..replicas)
                    .map(|rank| Roll { replicas, rank }.share(logs))
                    .collect();
                assert_eq!(shares.iter().sum::<usize>(), logs);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
        assert_eq!(Roll::default().share(3), 3, "alone, whatever was seen");
    }
}
