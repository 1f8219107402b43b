//! The components of readiness, and why one is unavailable: the words that `/readyz`, `check` and
//! the log share.

use std::fmt;

/// A component that has to be ready before the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
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

impl Component {
    /// All of them.
    pub const ALL: [Component; 5] = [
        Component::Identity,
        Component::Source,
        Component::Checkpoint,
        Component::Webhook,
        Component::Progress,
    ];

    /// Its name in `/readyz`.
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

/// Why a component cannot be used now. It is retried for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// The component that is not ready.
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
