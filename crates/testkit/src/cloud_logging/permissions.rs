//! What a caller may read, and where Google keeps which audit log.
//!
//! `entries.list` wants one or more of `logging.logEntries.list`, `logging.privateLogEntries.list` and
//! `logging.views.access` on what it is asked for (its reference, "IAM permissions"): who has one of
//! them gets an answer, from which everything that takes another one is missing without a word.

/// The log of reads.
const DATA_ACCESS: &str = "cloudaudit.googleapis.com/data_access";

/// The caller's permissions.
#[derive(Debug, Clone)]
pub struct LogPermissions {
    /// The only projects, folders, organizations and views on which it has any; `None`: all.
    pub resources: Option<Vec<String>>,
    /// `logging.logEntries.list`: what is not private of projects, folders and organizations.
    pub entries: bool,
    /// `logging.privateLogEntries.list`: their Data Access logs.
    pub private_entries: bool,
}

impl Default for LogPermissions {
    /// Everything.
    fn default() -> LogPermissions {
        LogPermissions {
            resources: None,
            entries: true,
            private_entries: true,
        }
    }
}

impl LogPermissions {
    /// Whether these may be asked for at all.
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

    /// Whether entries of this log show in an answer about this place.
    pub(super) fn shows(&self, name: &str, log: &str) -> bool {
        match log {
            // `logging.views.access` opens all that is in a view, and this one is without it.
            _ if is_view(name) => log != DATA_ACCESS || !name.ends_with("/_Default/views/_Default"),
            DATA_ACCESS => self.private_entries,
            _ => self.entries,
        }
    }

    /// Whether Google itself puts entries of this log of a project into this view of it
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

/// Whether this may stand in `resourceNames`: a project, folder, organization or billing account, or
/// a view of one's bucket (the reference of `entries.list`).
pub(super) fn is_resource_name(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let filled = parts.iter().all(|part| !part.is_empty());
    let owner = ["projects", "folders", "organizations", "billingAccounts"];
    let rest = parts.get(2..).unwrap_or_default();
    let place = matches!(rest, [] | ["locations", _, "buckets", _, "views", _]);
    filled && parts.len() > 1 && owner.contains(&parts[0]) && place
}
