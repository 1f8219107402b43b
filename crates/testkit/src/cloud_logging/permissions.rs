//! The caller's permissions, and the places in which Google stores each audit log.
//!
//! `entries.list` needs one or more of `logging.logEntries.list`, `logging.privateLogEntries.list`
//! and `logging.views.access` on the requested resource (its reference, "IAM permissions"). A
//! caller with one of them gets an answer, in which everything that needs another is missing
//! without an error.

/// The audit log of reads.
const DATA_ACCESS: &str = "cloudaudit.googleapis.com/data_access";

/// The caller's permissions.
#[derive(Debug, Clone)]
pub struct LogPermissions {
    /// The projects, folders, organizations and views on which it has permissions; `None`: all.
    pub resources: Option<Vec<String>>,
    /// `logging.logEntries.list`: non-private entries of projects, folders and organizations.
    pub entries: bool,
    /// `logging.privateLogEntries.list`: their Data Access logs.
    pub private_entries: bool,
}

impl Default for LogPermissions {
    /// All permissions.
    fn default() -> LogPermissions {
        LogPermissions {
            resources: None,
            entries: true,
            private_entries: true,
        }
    }
}

impl LogPermissions {
    /// Whether the caller may query these at all.
    pub(super) fn admit(&self, names: &[String]) -> Result<(), (u16, &'static str)> {
        let admitted = |name: &String| {
            let known = self.resources.as_ref();
            let known = known.is_none_or(|resources| resources.contains(name));
            known && (is_view(name) || self.entries || self.private_entries)
        };
        match names.iter().all(admitted) {
            true => Ok(()),
            false => Err((
                403,
                "Permission denied for all log views (or the resource may not exist)",
            )),
        }
    }

    /// Whether answers for this place contain entries of this log.
    pub(super) fn shows(&self, name: &str, log: &str) -> bool {
        match log {
            // `logging.views.access` shows everything in a view, but this one has no Data Access
            // entries.
            _ if is_view(name) => log != DATA_ACCESS || !name.ends_with("/_Default/views/_Default"),
            DATA_ACCESS => self.private_entries,
            _ => self.entries,
        }
    }

    /// Whether Google itself puts a project's entries of this log into this view of it
    /// (`global/buckets/B/views/V`): Admin Activity into the bucket `_Required`, Data Access into
    /// `_Default`.
    pub(super) fn view_of(log: &str, view: &str) -> bool {
        match log {
            "cloudaudit.googleapis.com/activity" => {
                view == "global/buckets/_Required/views/_AllLogs"
            }
            _ => view.starts_with("global/buckets/_Default/views/_"),
        }
    }
}

fn is_view(name: &str) -> bool {
    name.contains("/views/")
}

/// Whether this is valid in `resourceNames`: a project, folder, organization or billing account, or
/// a view of one's bucket (the reference of `entries.list`).
pub(super) fn is_resource_name(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let filled = parts.iter().all(|part| !part.is_empty());
    let owner = ["projects", "folders", "organizations", "billingAccounts"];
    let rest = parts.get(2..).unwrap_or_default();
    let place = matches!(rest, [] | ["locations", _, "buckets", _, "views", _]);
    filled && parts.len() > 1 && owner.contains(&parts[0]) && place
}
