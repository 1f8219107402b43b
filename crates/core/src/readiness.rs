//! What can keep a bridge from being ready, and why it does: the words that `/readyz`, `check` and
//! the log share.

use std::fmt;

/// A part of the bridge that can keep it from being ready.
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

/// Why the provider cannot be used now. It is tried again for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// What is not ready because of it.
    pub component: Component,
    /// What is wrong, with the provider's own words.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}
