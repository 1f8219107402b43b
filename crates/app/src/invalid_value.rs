//! The error for a setting's invalid value.

use std::borrow::Cow;

/// What is wrong with a setting's value, never the value itself: it may be a secret that was pasted
/// into the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(Cow<'static, str>);

impl From<&'static str> for InvalidValue {
    fn from(what: &'static str) -> InvalidValue {
        InvalidValue(Cow::Borrowed(what))
    }
}

impl From<String> for InvalidValue {
    fn from(what: String) -> InvalidValue {
        InvalidValue(Cow::Owned(what))
    }
}
