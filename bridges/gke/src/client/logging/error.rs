//! Classifies refusals of the API, with remedies.

use std::borrow::Cow;

use audit_bridge_core::chain::chain;
use audit_bridge_core::retry::retry_after;
use audit_bridge_tail::QueryError;
use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;
use std::time::Duration;

use crate::client::filter::Selection;
use crate::client::resource_name::ResourceName;

/// Longest message of the API that is passed on.
const MESSAGE_CHARS_MAX: usize = 400;

/// No answer came.
pub(super) fn transport(error: reqwest::Error) -> QueryError {
    // The URL is known from the settings, and may be long.
    let error = error.without_url();
    QueryError::Transient {
        detail: format!("cloud logging cannot be reached: {}", chain(&error)),
    }
}

/// A refusal: Google's error object, or the answer of a proxy.
#[derive(Debug)]
pub(super) struct ApiErrorBody {
    status: StatusCode,
    message: String,
    retry_after: Option<Duration>,
}

impl ApiErrorBody {
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ApiErrorBody {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let message = match json["error"]["message"].as_str() {
            Some(message) => Cow::Borrowed(message),
            None => String::from_utf8_lossy(body),
        };
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after(value, Timestamp::now()));
        ApiErrorBody {
            status,
            message: one_line(&message),
            retry_after,
        }
    }

    /// The error for the tail. `paged`: the request had a page token; `principal`: who made it.
    pub(super) fn into_query_error(
        self,
        selection: &Selection,
        paged: bool,
        principal: Option<&str>,
        identity_remedy: &str,
    ) -> QueryError {
        let lower = self.message.to_lowercase();
        let about_token = ["page_token", "page token", "pagetoken"]
            .iter()
            .any(|word| lower.contains(word));
        let detail = format!("cloud logging answered {}: {}", self.status, self.message);
        let denied = |detail, remedy| QueryError::Denied { detail, remedy };
        match self.status.as_u16() {
            429 => QueryError::Throttled {
                after: self.retry_after,
            },
            401 => QueryError::Unauthenticated {
                detail,
                remedy: identity_remedy.to_owned(),
            },
            403 if lower.contains("has not been used") || lower.contains("is disabled") => {
                let places = &selection.resource_names;
                let project = places.first().map(ResourceName::owner_flag);
                let project = project.filter(|flag| flag.starts_with("--project"));
                let project = project.unwrap_or_else(|| "--project PROJECT".to_owned());
                denied(
                    detail,
                    format!(
                        "enable the API: gcloud services enable logging.googleapis.com {project}"
                    ),
                )
            }
            403 => denied(detail, grant(selection, principal)),
            400 if paged && about_token => QueryError::TokenExpired,
            400 | 404 => denied(
                detail,
                "check --resource-name, --project-id, --cluster-name, --location and \
                 --logging-endpoint"
                    .to_owned(),
            ),
            300..400 => denied(detail, "check --logging-endpoint".to_owned()),
            _ => QueryError::Transient { detail },
        }
    }
}

/// The command that grants `principal` the roles to read a selection.
fn grant(selection: &Selection, principal: Option<&str>) -> String {
    let role = match selection.data_access() {
        true => "roles/logging.privateLogViewer",
        false => "roles/logging.viewer",
    };
    let grants: Vec<String> = selection
        .resource_names
        .iter()
        .map(|place| match place.view() {
            Some(_) => format!("roles/logging.viewAccessor on {place}"),
            None => format!("{role} on {place}"),
        })
        .collect();
    let whom = principal.map(|principal| format!(" ({principal})"));
    format!(
        "grant {} to the identity of the bridge{}, and check --project-id and --resource-name",
        grants.join(", "),
        whom.unwrap_or_default(),
    )
}

/// The message in one line, cut to a length that fits a log line.
fn one_line(message: &str) -> String {
    let mut words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(MESSAGE_CHARS_MAX) {
        words.truncate(end);
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn into_query_error(status: u16, body: &str, paged: bool, data_access: bool) -> QueryError {
        let selection = Selection {
            resource_names: vec![ResourceName::project("p")],
            project: Some("p".to_owned()),
            cluster: None,
            location: None,
            logs: Selection::logs(data_access),
        };
        let status = StatusCode::from_u16(status).unwrap();
        let headers = [(RETRY_AFTER, "7".parse().unwrap())].into_iter().collect();
        ApiErrorBody::read(status, &headers, body.as_bytes()).into_query_error(
            &selection,
            paged,
            Some("me@example.com"),
            "log in",
        )
    }

    fn remedy(error: QueryError) -> String {
        match error {
            QueryError::Denied { remedy, .. } | QueryError::Unauthenticated { remedy, .. } => {
                remedy
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn api_error_names_the_remedy() {
        let said = |text: &str| format!(r#"{{"error":{{"message":"{text}"}}}}"#);
        let denied = said("Permission denied");
        let viewer = remedy(into_query_error(403, &denied, false, false));
        assert!(
            viewer.contains("roles/logging.viewer on project p"),
            "{viewer}"
        );
        assert!(viewer.contains("bridge (me@example.com)"), "{viewer}");
        let private = remedy(into_query_error(403, &denied, false, true));
        assert!(
            private.contains("roles/logging.privateLogViewer on project p"),
            "{private}"
        );
        let disabled = said("Cloud Logging API has not been used in project 7 before");
        let enable = remedy(into_query_error(403, &disabled, false, false));
        assert!(enable.contains("gcloud services enable"), "{enable}");
        assert_eq!(
            remedy(into_query_error(401, &denied, false, false)),
            "log in"
        );
        for status in [400, 404] {
            let check = remedy(into_query_error(status, &denied, false, false));
            assert!(check.contains("--project-id"), "{check}");
        }
        assert!(remedy(into_query_error(302, "", false, false)).contains("--logging-endpoint"));
    }

    #[test]
    fn api_error_of_views_names_the_role_on_each() {
        let view = "folders/1/locations/global/buckets/audit/views/gke";
        let place = |text| ResourceName::read(text).unwrap();
        let selection = Selection {
            resource_names: vec![place(view), place("organizations/7")],
            project: None,
            cluster: None,
            location: None,
            logs: Selection::logs(false),
        };
        let said = grant(&selection, None);
        let viewer = format!("roles/logging.viewAccessor on log view {view}");
        assert!(said.contains(&viewer), "{said}");
        assert!(
            said.contains("roles/logging.viewer on organization 7"),
            "{said}"
        );
    }

    #[test]
    fn api_error_transient_is_retried() {
        let after = Some(Duration::from_secs(7));
        assert_eq!(
            into_query_error(429, "", false, false),
            QueryError::Throttled { after }
        );
        let token = r#"{"error":{"message":"The page_token is invalid"}}"#;
        assert_eq!(
            into_query_error(400, token, true, false),
            QueryError::TokenExpired
        );
        assert!(matches!(
            into_query_error(400, token, false, false),
            QueryError::Denied { .. }
        ));
        for status in [408, 500, 502, 503, 504] {
            let error = into_query_error(status, "<html>\n  <b>Sorry", false, false);
            let QueryError::Transient { detail } = &error else {
                panic!("{error:?}");
            };
            assert!(detail.ends_with("<html> <b>Sorry"), "{detail}");
        }
        let long = into_query_error(500, &"ä".repeat(5000), false, false).to_string();
        assert!(long.len() < 1000, "{}", long.len());
    }
}
