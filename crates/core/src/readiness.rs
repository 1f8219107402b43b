//! What can keep a bridge from being ready, and why it does: the words that `/readyz`, `check` and
//! the log share.

use std::fmt;

/// A part of the bridge that can keep it from being ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The credentials towards the provider.
    Identity,
    /// The provider's log.
    Source,
    /// The checkpoint's store and the dead letter.
    Checkpoint,
    /// The receiver.
    Webhook,
    /// The trail itself: it moves on, or there is nothing more.
    Progress,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 5] = [
        Part::Identity,
        Part::Source,
        Part::Checkpoint,
        Part::Webhook,
        Part::Progress,
    ];

    /// Its name in `/readyz`.
    pub fn name(self) -> &'static str {
        match self {
            Part::Identity => "identity",
            Part::Source => "source",
            Part::Checkpoint => "checkpoint",
            Part::Webhook => "webhook",
            Part::Progress => "progress",
        }
    }
}

/// Why the provider cannot be used now. It is tried again for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is not ready because of it.
    pub part: Part,
    /// What is wrong, with the provider's own words.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}
