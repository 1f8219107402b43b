//! A provider that cannot be read live yet.

use super::{Finding, Live, LiveLog, Resume, Trouble};
use crate::source::{Page, Source};
use crate::telemetry::Part;

/// Says so, and reads nothing.
#[derive(Debug, Clone, Copy)]
pub struct NotYet;

impl Live for NotYet {
    type Log = NotYet;

    async fn connect(&self) -> Result<Vec<NotYet>, Trouble> {
        Err(Trouble {
            part: Part::Source,
            what: "this bridge cannot read live yet".to_owned(),
            remedy: "use replay".to_owned(),
        })
    }
}

impl LiveLog for NotYet {
    type Source = NotYet;

    fn name(&self) -> &'static str {
        "none"
    }

    async fn open(&self, _: Resume) -> Result<NotYet, Trouble> {
        Ok(NotYet)
    }

    async fn check(&self) -> Vec<Finding> {
        Vec::new()
    }
}

impl Source for NotYet {
    async fn read(&mut self) -> Option<Page> {
        None
    }
}
