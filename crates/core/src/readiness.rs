//! The components of readiness, and why one is unavailable: shared by `/readyz`, `check` and the
//! log.

use std::fmt;

/// A component that has to be ready before the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The credentials for the provider.
    Identity,
    /// The provider's log.
    Source,
    /// The checkpoint's store and the dead letter.
    Checkpoint,
    /// The receiver.
    Webhook,
    /// Progress: the log is read and settled, or there is nothing more to read.
    Progress,
}

impl Component {
    pub const ALL: [Component; 5] = [
        Component::Identity,
        Component::Source,
        Component::Checkpoint,
        Component::Webhook,
        Component::Progress,
    ];

    /// The component's name in `/readyz`.
    pub fn name(self) -> &'static str {
        match self {
            Component::Identity => "identity",
            Component::Source => "source",
            Component::Checkpoint => "checkpoint",
            Component::Webhook => "webhook",
            Component::Progress => "progress",
        }
    }
}

/// Why a component is unavailable now. It is retried for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    pub component: Component,
    /// What is wrong, in the provider's own words.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}
