//! Which entries are asked for, in the Logging query language.

use jiff::Timestamp;

/// The entries of Kubernetes' audit logs in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Whose logs.
    pub(crate) project: String,
    /// Only this cluster's.
    pub(crate) cluster: Option<String>,
    /// Only those of clusters in this location.
    pub(crate) location: Option<String>,
    /// The Data Access log too.
    pub(crate) data_access: bool,
}

impl Selection {
    /// The logs that are read, by their short names.
    fn logs(&self) -> &'static [&'static str] {
        match self.data_access {
            true => &["activity", "data_access"],
            false => &["activity"],
        }
    }

    /// Names it, for log lines and the checkpoint. Which of the cluster's logs are read is no part
    /// of it: another choice goes on where the last one stopped.
    pub(crate) fn name(&self) -> String {
        let any = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        format!(
            "projects/{}/locations/{}/clusters/{}",
            self.project,
            any(&self.location),
            any(&self.cluster),
        )
    }

    /// The filter for entries from `start`, included, to `end`, excluded.
    pub(crate) fn between(&self, start: Timestamp, end: Timestamp) -> String {
        format!(
            "{} AND timestamp>=\"{start}\" AND timestamp<\"{end}\"",
            self.filter()
        )
    }

    fn filter(&self) -> String {
        let logs = self.logs().iter().map(|log| {
            let project = &self.project;
            quoted(&format!(
                "projects/{project}/logs/cloudaudit.googleapis.com%2F{log}"
            ))
        });
        let logs: Vec<String> = logs.collect();
        let mut filter = format!(
            "logName=({}) AND resource.type=\"k8s_cluster\" AND protoPayload.serviceName=\"k8s.io\"",
            logs.join(" OR ")
        );
        for (label, value) in [
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

/// A text as a value of the language, whatever is in it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_names_logs_cluster_and_times() {
        let mut selection = Selection {
            project: "p".to_owned(),
            cluster: Some("c\"\\".to_owned()),
            location: Some("europe-west1".to_owned()),
            data_access: false,
        };
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let start = time("2026-11-21T10:00:00Z");
        let end = time("2026-11-21T10:00:00.000000001Z");
        assert_eq!(
            selection.between(start, end),
            "logName=(\"projects/p/logs/cloudaudit.googleapis.com%2Factivity\") AND \
             resource.type=\"k8s_cluster\" AND protoPayload.serviceName=\"k8s.io\" AND \
             resource.labels.cluster_name=\"c\\\"\\\\\" AND \
             resource.labels.location=\"europe-west1\" AND \
             timestamp>=\"2026-11-21T10:00:00Z\" AND timestamp<\"2026-11-21T10:00:00.000000001Z\""
        );
        let name = selection.name();
        (selection.cluster, selection.location) = (None, None);
        selection.data_access = true;
        assert!(selection.between(start, end).starts_with(
            "logName=(\"projects/p/logs/cloudaudit.googleapis.com%2Factivity\" OR \
             \"projects/p/logs/cloudaudit.googleapis.com%2Fdata_access\") AND \
             resource.type=\"k8s_cluster\" AND protoPayload.serviceName=\"k8s.io\" AND timestamp"
        ));
        assert_eq!(selection.name(), "projects/p/locations/-/clusters/-");
        assert_ne!(selection.name(), name);
    }
}
