//! The members of an audit event that Kubernetes knows, and their types.
//!
//! A receiver in Go decodes either a whole body or none of it, so one member of a wrong type loses
//! every event beside it (`k8s.io/apiserver/pkg/apis/audit/v1/types.go`,
//! `k8s.io/api/authentication/v1.UserInfo`, `metav1.Status`). An API server never writes one; a
//! forged record can contain one.

use std::fmt::Write as _;

use super::super::json::{Edits, Raw, ValueKind, integral};

macro_rules! members {
    ($($variant:ident = $name:literal: $type:expr;)*) => {
        /// A member of `audit.k8s.io/v1.Event` (and two of v1beta1's), in the order in which the
        /// API server writes them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Member {
            $(#[doc = $name] $variant,)*
        }

        impl Member {
            pub(super) const ALL: &[Member] = &[$(Member::$variant),*];

            /// The member's key.
            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Member::$variant => $name,)*
                }
            }

            /// The key as written between another member and its value: `,"verb":`.
            pub(super) const fn led_by_comma(self) -> &'static str {
                match self {
                    $(Member::$variant => concat!(",\"", $name, "\":"),)*
                }
            }

            /// The member with this key.
            #[inline(always)]
            pub(super) fn of(key: &str) -> Option<Member> {
                match key {
                    $($name => Some(Member::$variant),)*
                    _ => None,
                }
            }

            /// The member's type in Kubernetes.
            pub(super) fn kind(self) -> &'static Type {
                match self {
                    $(Member::$variant => $type,)*
                }
            }
        }
    };
}

members! {
    Kind = "kind": &Type::String;
    ApiVersion = "apiVersion": &Type::String;
    Level = "level": &Type::String;
    AuditId = "auditID": &Type::String;
    Stage = "stage": &Type::String;
    RequestUri = "requestURI": &Type::String;
    Verb = "verb": &Type::String;
    User = "user": &USER;
    ImpersonatedUser = "impersonatedUser": &USER;
    AuthenticationMetadata = "authenticationMetadata": &Type::Struct(&[("impersonationConstraint", Type::String)]);
    SourceIps = "sourceIPs": &Type::Strings;
    UserAgent = "userAgent": &Type::String;
    ObjectRef = "objectRef": &OBJECT_REF;
    ResponseStatus = "responseStatus": &STATUS;
    RequestObject = "requestObject": &Type::Any;
    ResponseObject = "responseObject": &Type::Any;
    RequestReceivedTimestamp = "requestReceivedTimestamp": &Type::Any;
    StageTimestamp = "stageTimestamp": &Type::Any;
    Annotations = "annotations": &Type::MapOfString;
    // Only in v1beta1, not in v1.
    Metadata = "metadata": &Type::Any;
    Timestamp = "timestamp": &Type::Any;
}

/// How many [`Member`]s there are.
pub(super) const MEMBERS: usize = Member::ALL.len();

/// A type of Kubernetes' API in JSON. `null` is valid for each: it means absent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Anything: `runtime.Unknown`, or a value that is checked elsewhere.
    Any,
    String,
    Int32,
    Int64,
    Strings,
    MapOfString,
    MapOfStrings,
    /// An object whose members with these keys have these types; others are not checked.
    Struct(&'static [(&'static str, Type)]),
    /// A list of structs.
    Structs(&'static [(&'static str, Type)]),
}

const USER: Type = Type::Struct(&[
    ("username", Type::String),
    ("uid", Type::String),
    ("groups", Type::Strings),
    ("extra", Type::MapOfStrings),
]);

const OBJECT_REF: Type = Type::Struct(&[
    ("resource", Type::String),
    ("namespace", Type::String),
    ("name", Type::String),
    ("uid", Type::String),
    ("apiGroup", Type::String),
    ("apiVersion", Type::String),
    ("resourceVersion", Type::String),
    ("subresource", Type::String),
]);

const STATUS: Type = Type::Struct(&[
    ("kind", Type::String),
    ("apiVersion", Type::String),
    (
        "metadata",
        Type::Struct(&[
            ("selfLink", Type::String),
            ("resourceVersion", Type::String),
            ("continue", Type::String),
            ("remainingItemCount", Type::Int64),
        ]),
    ),
    ("status", Type::String),
    ("message", Type::String),
    ("reason", Type::String),
    (
        "details",
        Type::Struct(&[
            ("name", Type::String),
            ("group", Type::String),
            ("kind", Type::String),
            ("uid", Type::String),
            (
                "causes",
                Type::Structs(&[
                    ("reason", Type::String),
                    ("message", Type::String),
                    ("field", Type::String),
                ]),
            ),
            ("retryAfterSeconds", Type::Int32),
        ]),
    ),
    ("code", Type::Int32),
]);

/// A known member whose value has a wrong type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WrongType {
    /// The member's path: `user.groups[0]`.
    pub(super) path: String,
    is: ValueKind,
    wanted: &'static str,
}

impl std::fmt::Display for WrongType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {}, not {}", self.path, self.is, self.wanted)
    }
}

/// Whether a value as written has this type; if not, [`check`] decides.
pub(super) fn is_typed(value: Raw<'_>, wanted: &Type) -> bool {
    let members = |members: &[(&str, Type)], value: Raw<'_>| {
        value.members().is_some_and(|mut all| {
            all.all(|(key, value)| {
                let known = members.iter().find(|(name, _)| key == *name);
                known.is_none_or(|(_, wanted)| is_typed(value, wanted))
            })
        })
    };
    match wanted {
        Type::Any => true,
        Type::String => matches!(value.kind(), ValueKind::String | ValueKind::Null),
        Type::Int32 | Type::Int64 => {
            // Numbers of few digits are in the range of both types.
            let text = value.text();
            let digits = text.strip_prefix('-').unwrap_or(text);
            digits.len() <= 9 && digits.bytes().all(|digit| digit.is_ascii_digit()) && text != "-0"
        }
        Type::Strings => value
            .elements()
            .is_some_and(|mut all| all.all(|value| is_typed(value, &Type::String))),
        Type::MapOfString => value
            .members()
            .is_some_and(|mut all| all.all(|(_, value)| is_typed(value, &Type::String))),
        Type::MapOfStrings => value
            .members()
            .is_some_and(|mut all| all.all(|(_, value)| is_typed(value, &Type::Strings))),
        Type::Struct(known) => members(known, value),
        Type::Structs(known) => value
            .elements()
            .is_some_and(|mut all| all.all(|value| members(known, value))),
    }
}

/// Checks a value's type. An integer written with a fraction or an exponent (`200.0`) is added to
/// `edits`, by its range in `text`, of which `value` is a slice.
pub(super) fn check(
    text: &str,
    value: Raw<'_>,
    wanted: &'static Type,
    path: &str,
    edits: &mut Edits,
) -> Result<(), WrongType> {
    let wrong = |wanted| {
        Err(WrongType {
            path: path.to_owned(),
            is: value.kind(),
            wanted,
        })
    };
    let below = |name: &str| format!("{path}.{name}");
    match (wanted, value.kind()) {
        (Type::Any, _) | (_, ValueKind::Null) | (Type::String, ValueKind::String) => Ok(()),
        (Type::String, _) => wrong("a string"),
        (Type::Int32 | Type::Int64, ValueKind::Number) => {
            let (min, max) = match wanted {
                Type::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
                _ => (i64::MIN, i64::MAX),
            };
            if let Ok(number) = value.text().parse::<i64>()
                && (min..=max).contains(&number)
                && value.text() != "-0"
            {
                return Ok(());
            }
            match integer_of(value.text()).filter(|number| (min..=max).contains(number)) {
                Some(number) => {
                    edits.replace(place_of(text, value), number.to_string());
                    Ok(())
                }
                None => wrong("an integer in range"),
            }
        }
        (Type::Int32 | Type::Int64, _) => wrong("an integer"),
        (Type::Strings, ValueKind::Array) => {
            for (index, element) in value.elements().into_iter().flatten().enumerate() {
                if !matches!(element.kind(), ValueKind::String | ValueKind::Null) {
                    let path = format!("{path}[{index}]");
                    return check(text, element, &Type::String, &path, edits);
                }
            }
            Ok(())
        }
        (Type::Strings, _) => wrong("a list of strings"),
        (Type::MapOfString | Type::MapOfStrings, ValueKind::Object) => {
            let wanted = match wanted {
                Type::MapOfString => &Type::String,
                _ => &Type::Strings,
            };
            for (key, value) in value.members().into_iter().flatten() {
                check(text, value, wanted, &below(&short(&key)), edits)?;
            }
            Ok(())
        }
        (Type::MapOfString, _) => wrong("a map of strings"),
        (Type::MapOfStrings, _) => wrong("a map of lists of strings"),
        (Type::Struct(members), ValueKind::Object) => {
            for (key, value) in value.members().into_iter().flatten() {
                if let Some((name, wanted)) = members.iter().find(|(name, _)| key == *name) {
                    check(text, value, wanted, &below(name), edits)?;
                }
            }
            Ok(())
        }
        (Type::Struct(_), _) => wrong("an object"),
        (Type::Structs(members), ValueKind::Array) => {
            for (index, element) in value.elements().into_iter().flatten().enumerate() {
                let mut path = path.to_owned();
                let _ = write!(path, "[{index}]");
                match element.kind() {
                    ValueKind::Null => {}
                    ValueKind::Object => {
                        for (key, value) in element.members().into_iter().flatten() {
                            if let Some((name, wanted)) =
                                members.iter().find(|(name, _)| key == *name)
                            {
                                check(text, value, wanted, &format!("{path}.{name}"), edits)?;
                            }
                        }
                    }
                    _ => return check(text, element, &Type::Struct(&[]), &path, edits),
                }
            }
            Ok(())
        }
        (Type::Structs(_), _) => wrong("a list of objects"),
    }
}

/// The range of `value` in `text`, of which it is a slice.
fn place_of(text: &str, value: Raw<'_>) -> std::ops::Range<usize> {
    let from = (value.text().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    from..from + value.text().len()
}

/// A key short enough for a message.
fn short(key: &str) -> String {
    match key.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key.to_owned(),
    }
}

/// The integer value of a number in any notation; `None` when it has a fraction or is out of range.
fn integer_of(text: &str) -> Option<i64> {
    integral(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_in_any_notation_is_read() {
        for (text, want) in [
            ("200", Some(200)),
            ("200.0", Some(200)),
            ("2e2", Some(200)),
            ("2E+2", Some(200)),
            ("0.2e3", Some(200)),
            ("-0", Some(0)),
            ("-20.00e1", Some(-200)),
            ("0e999", Some(0)),
            ("200.5", None),
            ("2e-1", None),
            ("1e400", None),
            ("9223372036854775807.0", Some(i64::MAX)),
            ("9223372036854775808.0", None),
        ] {
            assert_eq!(integer_of(text), want, "{text}");
        }
    }
}
