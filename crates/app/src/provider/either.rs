//! One of two providers, chosen by the settings, for a bridge that can read in two ways.

use audit_bridge_core::readiness::Unavailable;
use audit_bridge_core::source::{Page, Position, Positions, Source};

use super::{Finding, JobWindow, Provider, ProviderLog, Resume, SharedLogs, Start};

/// One of two providers, of their logs, or of their sources.
#[derive(Debug)]
pub enum Either<A, B> {
    A(A),
    B(B),
}

/// Applies the same expression to either variant.
macro_rules! of {
    ($either:expr, $it:ident => $do:expr) => {
        match $either {
            Either::A($it) => $do,
            Either::B($it) => $do,
        }
    };
}

impl<A: Provider, B: Provider> Provider for Either<A, B> {
    type Log = Either<A::Log, B::Log>;

    fn has_ends(&self) -> bool {
        of!(self, it => it.has_ends())
    }

    fn window(&self) -> Option<JobWindow> {
        of!(self, it => it.window())
    }

    fn shared(&self) -> Option<SharedLogs> {
        of!(self, it => it.shared())
    }

    fn is_queue(&self) -> bool {
        of!(self, it => it.is_queue())
    }

    async fn connect(&self) -> Result<Vec<Self::Log>, Unavailable> {
        Ok(match self {
            Either::A(it) => it.connect().await?.into_iter().map(Either::A).collect(),
            Either::B(it) => it.connect().await?.into_iter().map(Either::B).collect(),
        })
    }
}

impl<A: ProviderLog, B: ProviderLog> ProviderLog for Either<A, B> {
    type Source = Either<A::Source, B::Source>;

    fn name(&self) -> &str {
        of!(self, it => it.name())
    }

    fn annotations(&self) -> Vec<(String, String)> {
        of!(self, it => it.annotations())
    }

    fn silence_remedy(&self) -> String {
        of!(self, it => it.silence_remedy())
    }

    fn beginning(&self, start: Start) -> Positions {
        of!(self, it => it.beginning(start))
    }

    fn is_further(&self, this: &Position, other: &Position) -> bool {
        of!(self, it => it.is_further(this, other))
    }

    fn after(&self) -> Vec<String> {
        of!(self, it => it.after())
    }

    fn is_closed(&self) -> bool {
        of!(self, it => it.is_closed())
    }

    fn is_at_end(&self, positions: &Positions) -> bool {
        of!(self, it => it.is_at_end(positions))
    }

    async fn open(&self, resume: Resume) -> Result<Self::Source, Unavailable> {
        Ok(match self {
            Either::A(it) => Either::A(it.open(resume).await?),
            Either::B(it) => Either::B(it.open(resume).await?),
        })
    }

    async fn check(&self) -> Vec<Finding> {
        of!(self, it => it.check().await)
    }
}

impl<A: Source, B: Source> Source for Either<A, B> {
    const HEARS_OF_EACH: bool = A::HEARS_OF_EACH || B::HEARS_OF_EACH;

    async fn read(&mut self) -> Option<Page> {
        of!(self, it => it.read().await)
    }

    fn commit(&mut self, partition: u32, position: &Position) {
        of!(self, it => it.commit(partition, position));
    }

    fn settled(&mut self, partition: u32, number: u64) {
        of!(self, it => it.settled(partition, number));
    }

    async fn close(&mut self) {
        of!(self, it => it.close().await);
    }
}
