//! Which log is meant, as far as the settings say it.

use audit_bridge_app::config::given;

/// In place of a name: all of them.
const ANY: &str = "*";

/// The names that the settings give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) project: Named,
    pub(crate) cluster: Named,
    pub(crate) location: Named,
}

/// What a setting says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nothing: whatever is found.
    Unset,
    /// All, also where one would be found.
    Any,
    /// This one.
    One(String),
}

impl Named {
    pub(crate) fn of(value: Option<&str>) -> Named {
        match given(value) {
            None => Named::Unset,
            Some(ANY) => Named::Any,
            Some(name) => Named::One(name.to_owned()),
        }
    }

    pub(crate) fn or(self, other: Named) -> Named {
        match self {
            Named::Unset => other,
            set => set,
        }
    }

    /// The name, when there is just one.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Named::One(name) => Some(name.clone()),
            Named::Unset | Named::Any => None,
        }
    }
}
