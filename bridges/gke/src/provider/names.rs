//! The project, cluster and location that the settings name.

use audit_bridge_app::config::given;

/// Setting that stands for all names.
const ANY: &str = "*";

/// The names in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) project: Named,
    pub(crate) cluster: Named,
    pub(crate) location: Named,
}

/// The setting for one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// Not set: use what the metadata server says.
    Unset,
    /// All, even if the metadata server names one.
    Any,
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

    /// The name, if the setting is one.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Named::One(name) => Some(name.clone()),
            Named::Unset | Named::Any => None,
        }
    }
}
