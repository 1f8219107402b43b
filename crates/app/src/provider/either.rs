//! One of two providers, chosen by the settings, for a bridge that can read in two ways.

use audit_bridge_core::readiness::Unavailable;
use audit_bridge_core::source::{Page, Position, Source, StoredPosition, StoredPositions};

use super::{Finding, JobWindow, Provider, ProviderLog, Resume, SharedLogs, Start};

/// One of two providers, of their logs, of their sources, or of their positions.
#[derive(Debug, Clone, PartialEq)]
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

    fn beginning(&self, start: Start) -> StoredPositions {
        of!(self, it => it.beginning(start))
    }

    fn is_further(&self, this: &StoredPosition, other: &StoredPosition) -> bool {
        of!(self, it => it.is_further(this, other))
    }

    fn after(&self) -> Vec<String> {
        of!(self, it => it.after())
    }

    fn is_closed(&self) -> bool {
        of!(self, it => it.is_closed())
    }

    fn is_at_end(&self, positions: &StoredPositions) -> bool {
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

impl<A: Position, B: Position> Position for Either<A, B> {
    fn to_stored(&self) -> StoredPosition {
        of!(self, it => it.to_stored())
    }
}

impl<A: Source, B: Source> Source for Either<A, B> {
    type Position = Either<A::Position, B::Position>;

    const HEARS_OF_EACH: bool = A::HEARS_OF_EACH || B::HEARS_OF_EACH;

    async fn read(&mut self) -> Option<Page<Self::Position>> {
        Some(match self {
            Either::A(it) => it.read().await?.map_position(Either::A),
            Either::B(it) => it.read().await?.map_position(Either::B),
        })
    }

    fn commit(&mut self, partition: u32, position: &Self::Position) {
        match (self, position) {
            (Either::A(it), Either::A(position)) => it.commit(partition, position),
            (Either::B(it), Either::B(position)) => it.commit(partition, position),
            // The other source's: this one has not handed it out.
            _ => {}
        }
    }

    fn settled(&mut self, partition: u32, number: u64) {
        of!(self, it => it.settled(partition, number));
    }

    async fn close(&mut self) {
        of!(self, it => it.close().await);
    }
}
