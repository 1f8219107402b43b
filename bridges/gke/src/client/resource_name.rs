//! Where log entries are read from: `resourceNames` of `entries.list`.
//!
//! A name is a project, folder, organization or billing account (the entries that originate there
//! and are in its buckets `_Required` and `_Default`), or a view of a bucket (whatever is routed
//! there). Source: the reference of `entries.list`, and "Configure log views on a log bucket" of
//! Cloud Logging's documentation.

use std::fmt;

use audit_bridge_app::config::InvalidValue;

/// Most names in one request.
pub(crate) const RESOURCE_NAMES_MAX: usize = 100;

/// Kinds of owners, and gcloud's flag for each.
const OWNERS: [(&str, &str); 4] = [
    ("projects", "--project"),
    ("folders", "--folder"),
    ("organizations", "--organization"),
    ("billingAccounts", "--billing-account"),
];

/// A validated name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResourceName(String);

/// A view of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogView<'a> {
    pub(crate) location: &'a str,
    pub(crate) bucket: &'a str,
    pub(crate) view: &'a str,
}

impl ResourceName {
    /// The name of a project.
    pub(crate) fn project(id: &str) -> ResourceName {
        ResourceName(format!("projects/{id}"))
    }

    /// Parses a setting.
    ///
    /// # Errors
    /// The text is no such name; says what it looks like, and how to write it.
    pub(crate) fn read(text: &str) -> Result<ResourceName, InvalidValue> {
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, id) = match parts.as_slice() {
            [kind, id, ..] if OWNERS.iter().any(|(owner, _)| owner == kind) => (*kind, *id),
            _ => {
                return Err(
                    "must begin with projects/ID, folders/NUMBER, organizations/NUMBER or \
                            billingAccounts/ID"
                        .into(),
                );
            }
        };
        let fits = |part: &&str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
            !part.is_empty() && part.bytes().all(allowed)
        };
        if !parts.iter().all(fits) {
            return Err(
                "has a part that is empty, or has other characters than letters, digits, \
                        dashes, underscores, dots and colons"
                    .into(),
            );
        }
        let numbered = matches!(kind, "folders" | "organizations");
        if numbered && !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("must have the number of the {}", singular(kind)).into());
        }
        match &parts[2..] {
            [] | ["locations", _, "buckets", _, "views", _] => Ok(ResourceName(text.to_owned())),
            ["locations", _, "buckets", _] => Err(
                "is a bucket: name one of its views, with /views/VIEW behind it (_AllLogs is \
                 everything in it)"
                    .into(),
            ),
            ["logs", ..] => {
                Err("is a log: which logs are read is fixed, so leave out /logs/…".into())
            }
            _ => Err(
                "must end there, or go on with /locations/LOCATION/buckets/BUCKET/views/VIEW"
                    .into(),
            ),
        }
    }

    /// The name in the API's form.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The view, if this is one.
    pub(crate) fn view(&self) -> Option<LogView<'_>> {
        let mut parts = self.0.split('/').skip(3).step_by(2);
        Some(LogView {
            location: parts.next()?,
            bucket: parts.next()?,
            view: parts.next()?,
        })
    }

    /// The owner as a gcloud flag: `--project my-project`.
    pub(crate) fn owner_flag(&self) -> String {
        let mut parts = self.0.split('/');
        let (kind, id) = (parts.next(), parts.next().unwrap_or_default());
        let flag = OWNERS.iter().find(|(owner, _)| Some(*owner) == kind);
        format!("{} {id}", flag.map_or("--project", |(_, flag)| flag))
    }

    /// Whether it shows only entries that are routed to it: a cluster's entries originate in its
    /// project.
    pub(crate) fn is_above_projects(&self) -> bool {
        self.view().is_none() && !self.0.starts_with("projects/")
    }

    /// Whether it never shows Data Access logs, whatever the caller's roles: a bucket `_Required`
    /// has none, and the view `_Default` of a bucket `_Default` excludes them.
    pub(crate) fn excludes_data_access(&self) -> bool {
        self.view().is_some_and(|view| {
            view.bucket == "_Required" || (view.bucket, view.view) == ("_Default", "_Default")
        })
    }
}

/// For messages: `project p`, `folder 1`, `log view projects/p/…`.
impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once('/') {
            Some((kind, id)) if self.view().is_none() => write!(f, "{} {id}", singular(kind)),
            _ => write!(f, "log view {}", self.0),
        }
    }
}

fn singular(kind: &str) -> &str {
    match kind {
        "billingAccounts" => "billing account",
        kind => kind.trim_end_matches('s'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_name_valid_is_kept_and_described() {
        for (text, described, flag) in [
            ("projects/p-1", "project p-1", "--project p-1"),
            (
                "projects/example.com:p",
                "project example.com:p",
                "--project example.com:p",
            ),
            ("folders/123", "folder 123", "--folder 123"),
            ("organizations/7", "organization 7", "--organization 7"),
            (
                "billingAccounts/01AB-2",
                "billing account 01AB-2",
                "--billing-account 01AB-2",
            ),
            (
                "folders/123/locations/global/buckets/b/views/v",
                "log view folders/123/locations/global/buckets/b/views/v",
                "--folder 123",
            ),
        ] {
            let name = ResourceName::read(text).unwrap();
            assert_eq!(name.as_str(), text);
            assert_eq!(name.to_string(), described);
            assert_eq!(name.owner_flag(), flag);
        }
    }

    #[test]
    fn resource_name_invalid_is_refused_with_its_remedy() {
        for (text, says) in [
            ("", "must begin with projects/ID"),
            ("p", "must begin with projects/ID"),
            ("project/p", "must begin with projects/ID"),
            ("projects/", "has a part that is empty"),
            ("projects/*", "other characters"),
            ("projects/p/", "has a part that is empty"),
            ("folders/audit", "the number of the folder"),
            (
                "organizations/example.com",
                "the number of the organization",
            ),
            ("projects/p/locations/global/buckets/b", "/views/VIEW"),
            ("projects/p/locations/global", "must end there"),
            ("projects/p/logs/cloudaudit.googleapis.com", "is a log"),
            (
                "projects/p/locations/l/buckets/b/views/v/more",
                "must end there",
            ),
        ] {
            let error = ResourceName::read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn resource_name_without_data_access_is_known() {
        for (text, excludes) in [
            ("projects/p", false),
            (
                "projects/p/locations/global/buckets/_Required/views/_AllLogs",
                true,
            ),
            (
                "projects/p/locations/global/buckets/_Default/views/_Default",
                true,
            ),
            (
                "projects/p/locations/global/buckets/_Default/views/_AllLogs",
                false,
            ),
            (
                "projects/p/locations/global/buckets/b/views/_Default",
                false,
            ),
        ] {
            let name = ResourceName::read(text).unwrap();
            assert_eq!(name.excludes_data_access(), excludes, "{text}");
        }
    }
}
