//! Errors that end a command.

use audit_bridge_core::chain::chain;

/// What happened and what to do, when only a person can help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(String);

impl Fatal {
    /// An error with its causes.
    pub(crate) fn of(error: &dyn std::error::Error) -> Fatal {
        Fatal(chain(error))
    }
}

impl From<&str> for Fatal {
    fn from(what: &str) -> Fatal {
        Fatal(what.to_owned())
    }
}

impl From<String> for Fatal {
    fn from(what: String) -> Fatal {
        Fatal(what)
    }
}

impl From<Fatal> for String {
    fn from(Fatal(what): Fatal) -> String {
        what
    }
}
