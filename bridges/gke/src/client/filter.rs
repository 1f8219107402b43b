//! Selects entries, in the Logging query language.

use jiff::Timestamp;

use super::resource_name::ResourceName;

/// The audit logs that hold Kubernetes API requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditLog {
    /// Changes; always written.
    Activity,
    /// Reads, and exec by GET; written where Data Read is enabled.
    DataAccess,
}

impl AuditLog {
    /// The filter for its entries, in any project. `log_id` takes the ID as it is; in `logName` its
    /// slash is `%2F`, after the project's name.
    pub(crate) fn filter(self) -> &'static str {
        match self {
            AuditLog::Activity => r#"log_id("cloudaudit.googleapis.com/activity")"#,
            AuditLog::DataAccess => r#"log_id("cloudaudit.googleapis.com/data_access")"#,
        }
    }

    /// Its name in Google's documentation.
    pub(crate) fn name(self) -> &'static str {
        match self {
            AuditLog::Activity => "Admin Activity",
            AuditLog::DataAccess => "Data Access",
        }
    }
}

/// Which entries to read: where from, and of which clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Where to read.
    pub(crate) resource_names: Vec<ResourceName>,
    /// Restricts the selection to clusters of this project.
    pub(crate) project: Option<String>,
    /// Restricts it to this cluster.
    pub(crate) cluster: Option<String>,
    /// Restricts it to clusters in this location.
    pub(crate) location: Option<String>,
    pub(crate) logs: &'static [AuditLog],
}

impl Selection {
    /// The logs to read, with or without Data Access.
    pub(crate) fn logs(data_access: bool) -> &'static [AuditLog] {
        match data_access {
            true => &[AuditLog::Activity, AuditLog::DataAccess],
            false => &[AuditLog::Activity],
        }
    }

    /// The log's name in log lines and the checkpoint. It leaves out where to read and which logs,
    /// so that a change of those continues from the same position.
    pub(crate) fn name(&self) -> String {
        let any = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        format!(
            "projects/{}/locations/{}/clusters/{}",
            any(&self.project),
            any(&self.location),
            any(&self.cluster),
        )
    }

    /// Whether Data Access is read too.
    pub(crate) fn data_access(&self) -> bool {
        self.logs.contains(&AuditLog::DataAccess)
    }

    /// The places to read, for messages.
    pub(crate) fn places(&self) -> String {
        let places: Vec<String> = self
            .resource_names
            .iter()
            .map(ToString::to_string)
            .collect();
        places.join(", ")
    }

    /// The filter, without times.
    pub(crate) fn filter(&self) -> String {
        let logs: Vec<&str> = self.logs.iter().map(|log| log.filter()).collect();
        let logs = match logs.as_slice() {
            [one] => (*one).to_owned(),
            several => format!("({})", several.join(" OR ")),
        };
        let mut filter = format!(
            "{logs} AND resource.type=\"k8s_cluster\" AND protoPayload.serviceName=\"k8s.io\""
        );
        for (label, value) in [
            ("project_id", &self.project),
            ("cluster_name", &self.cluster),
            ("location", &self.location),
        ] {
            if let Some(value) = value {
                let value = quoted(value);
                filter.push_str(&format!(" AND resource.labels.{label}={value}"));
            }
        }
        filter
    }
}

/// The filter for entries from `start` (inclusive) to `end` (exclusive).
pub(crate) fn times(start: Timestamp, end: Timestamp) -> String {
    format!("timestamp>=\"{start}\" AND timestamp<\"{end}\"")
}

/// Quotes any text as a value of the query language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_names_logs_cluster_and_times() {
        let mut selection = Selection {
            resource_names: vec![ResourceName::project("p")],
            project: Some("p".to_owned()),
            cluster: Some("c\"\\".to_owned()),
            location: Some("europe-west1".to_owned()),
            logs: Selection::logs(false),
        };
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let start = time("2026-11-21T10:00:00Z");
        let end = time("2026-11-21T10:00:00.000000001Z");
        assert_eq!(
            format!("{} AND {}", selection.filter(), times(start, end)),
            "log_id(\"cloudaudit.googleapis.com/activity\") AND \
             resource.type=\"k8s_cluster\" AND protoPayload.serviceName=\"k8s.io\" AND \
             resource.labels.project_id=\"p\" AND \
             resource.labels.cluster_name=\"c\\\"\\\\\" AND \
             resource.labels.location=\"europe-west1\" AND \
             timestamp>=\"2026-11-21T10:00:00Z\" AND timestamp<\"2026-11-21T10:00:00.000000001Z\""
        );
        let name = selection.name();
        (selection.cluster, selection.location) = (None, None);
        (selection.project, selection.logs) = (None, Selection::logs(true));
        assert_eq!(
            selection.filter(),
            "(log_id(\"cloudaudit.googleapis.com/activity\") OR \
             log_id(\"cloudaudit.googleapis.com/data_access\")) AND \
             resource.type=\"k8s_cluster\" AND protoPayload.serviceName=\"k8s.io\""
        );
        assert_eq!(selection.name(), "projects/-/locations/-/clusters/-");
        assert_ne!(selection.name(), name);
    }

    /// The name that a checkpoint of the first version has must not change.
    #[test]
    fn selection_name_is_the_first_versions() {
        for (project, location, cluster, want) in [
            ("p", None, None, "projects/p/locations/-/clusters/-"),
            (
                "p",
                Some("l"),
                Some("c"),
                "projects/p/locations/l/clusters/c",
            ),
        ] {
            let view = "projects/central/locations/global/buckets/b/views/v";
            for place in [
                ResourceName::project(project),
                ResourceName::read(view).unwrap(),
            ] {
                let selection = Selection {
                    resource_names: vec![place],
                    project: Some(project.to_owned()),
                    location: location.map(str::to_owned),
                    cluster: cluster.map(str::to_owned),
                    logs: Selection::logs(true),
                };
                assert_eq!(selection.name(), want);
            }
        }
    }
}
