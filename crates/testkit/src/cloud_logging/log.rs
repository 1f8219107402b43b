//! The log's entries, and its answers.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::filter::{Filter, log_id};
use super::permissions::{LogPermissions, is_resource_name};
use super::{CloudLoggingFault, Metadata, failure, response};

/// The API's largest page size.
pub(super) const PAGE_SIZE_MAX: u64 = 1000;
/// The default page size.
const PAGE_SIZE: u64 = 50;
/// Most resource names per request.
const RESOURCES_MAX: usize = 100;

/// A request for entries, and its result.
#[derive(Debug, Clone)]
pub struct Listed {
    /// `resourceNames`
    pub resource_names: Vec<String>,
    /// `filter`
    pub filter: String,
    /// `orderBy`
    pub order_by: String,
    /// `pageSize`, as it was sent.
    pub page_size: Option<u64>,
    /// `pageToken`; empty for a first page.
    pub page_token: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    pub at: Instant,
    /// The status of the answer; 0 until there is one.
    pub status: u16,
    /// Number of entries in the answer.
    pub entries: usize,
}

#[derive(Debug)]
pub(super) struct StoredEntry {
    pub(super) text: String,
    pub(super) value: Value,
    pub(super) time: Timestamp,
    /// Orders entries of the same time, and identifies duplicates.
    pub(super) insert_id: String,
    pub(super) visible: Instant,
    /// It is in every answer that covers its time, whatever the filter says.
    pub(super) stray: bool,
}

/// Time, insert ID and log: orders and identifies entries.
type Key = (Timestamp, String, String);

#[derive(Debug, Default)]
pub(super) struct CloudLoggingState {
    pub(super) entries: Vec<StoredEntry>,
    pub(super) requests: Vec<Listed>,
    pub(super) next: VecDeque<CloudLoggingFault>,
    pub(super) always: Option<CloudLoggingFault>,
    /// By token: the query it belongs to, and the last entry of its page.
    /// By token: its query, and the entry that it goes on behind; `None` from the start.
    pub(super) tokens: HashMap<String, (String, Option<Key>)>,
    /// Answers first pages with a token only.
    pub(super) first_pages_empty: bool,
    pub(super) tokens_issued: u64,
    pub(super) page_max: u64,
    pub(super) token_prefix: Option<String>,
    pub(super) permissions: LogPermissions,
    /// By view: IDs of the logs in it besides those that Google puts there.
    pub(super) routes: Vec<(String, Vec<String>)>,
    pub(super) clock_ahead: SignedDuration,
    pub(super) metadata: Metadata,
    /// When each issued token expires.
    pub(super) issued: HashMap<String, Instant>,
    pub(super) metadata_paths: Vec<String>,
}

impl Listed {
    /// Parses a request.
    pub(super) fn of(headers: &HeaderMap, body: &Value) -> Listed {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let names = body["resourceNames"].as_array().into_iter().flatten();
        Listed {
            resource_names: names
                .filter_map(|name| name.as_str())
                .map(str::to_owned)
                .collect(),
            filter: text("filter"),
            order_by: text("orderBy"),
            page_size: body["pageSize"].as_u64(),
            page_token: text("pageToken"),
            authorization: headers
                .get(AUTHORIZATION)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            at: Instant::now(),
            status: 0,
            entries: 0,
        }
    }
}

impl CloudLoggingState {
    /// A new page token.
    fn token(&mut self, query: String, after: Option<Key>) -> String {
        self.tokens_issued += 1;
        let token = format!("token-{}", self.tokens_issued);
        self.tokens.insert(token.clone(), (query, after));
        token
    }

    /// Records the expiry of the access token in this text, if it has one.
    pub(super) fn issue(&mut self, text: &str) {
        let body: Value = serde_json::from_str(text).unwrap_or_default();
        let seconds = body["expires_in"].as_u64().unwrap_or_default();
        if let Some(token) = body["access_token"].as_str() {
            let until = Instant::now() + Duration::from_secs(seconds);
            self.issued.insert(token.to_owned(), until);
        }
    }

    /// Whether the caller may list this.
    fn admits(&self, request: &Listed) -> Result<(), (u16, &'static str)> {
        if let Some(prefix) = &self.token_prefix {
            let bearer = request.authorization.as_deref().unwrap_or_default();
            let token = bearer.strip_prefix("Bearer ").unwrap_or_default();
            let expired = self
                .issued
                .get(token)
                .is_some_and(|until| *until <= Instant::now());
            if !token.starts_with(prefix) || expired {
                let message = "Request had invalid authentication credentials. Expected OAuth 2 \
                               access token";
                return Err((401, message));
            }
        }
        self.permissions.admit(&request.resource_names)
    }

    /// Whether an entry is in one of these places, and the caller may see it there.
    fn shows(&self, entry: &StoredEntry, resource_names: &[String]) -> bool {
        let Some((parent, log)) = entry.log().and_then(|name| name.split_once("/logs/")) else {
            return entry.stray;
        };
        let log = log_id(log);
        resource_names.iter().any(|name| {
            let routed = |(view, logs): &(String, Vec<String>)| view == name && logs.contains(&log);
            let there = match name.split_once("/locations/") {
                None => name == parent,
                Some((owner, view)) => {
                    owner == parent && LogPermissions::view_of(&log, view)
                        || self.routes.iter().any(routed)
                }
            };
            there && self.permissions.shows(name, &log)
        })
    }

    pub(super) fn list(&mut self, number: usize) -> Response {
        let request = self.requests[number].clone();
        if request.resource_names.is_empty() {
            return failure(400, "resource_names must not be empty");
        }
        if request.resource_names.len() > RESOURCES_MAX {
            return failure(400, "resource_names must not exceed 100");
        }
        if !request
            .resource_names
            .iter()
            .all(|name| is_resource_name(name))
        {
            return failure(400, "The resource name is invalid");
        }
        let filter = match Filter::parse(&request.filter) {
            Ok(filter) => filter,
            Err(error) => return failure(400, &format!("Unparseable filter: {error}")),
        };
        if let Err((status, message)) = self.admits(&request) {
            return failure(status, message);
        }
        let descending = match request.order_by.as_str() {
            "" | "timestamp asc" => false,
            "timestamp desc" => true,
            other => return failure(400, &format!("Unsupported order_by {other:?}")),
        };
        let size = request.page_size.unwrap_or(PAGE_SIZE);
        if size > PAGE_SIZE_MAX {
            return failure(400, "page_size must not exceed 1000");
        }
        let size = if size == 0 { PAGE_SIZE } else { size };
        // Only the page size may change between two pages of a query.
        let query = json!([request.resource_names, request.filter, descending]).to_string();
        let after = match self.tokens.get(&request.page_token) {
            Some((of, after)) if *of == query => after.clone(),
            Some(_) => return failure(400, "page_token doesn't match arguments from the request"),
            None if request.page_token.is_empty() => None,
            None => return failure(400, "The page_token is invalid or has expired"),
        };
        if self.first_pages_empty && request.page_token.is_empty() {
            let token = self.token(query, None);
            let body = json!({"nextPageToken": token}).to_string();
            return response(StatusCode::OK, &body);
        }
        let now = Instant::now();
        let mut found: Vec<&StoredEntry> = self
            .entries
            .iter()
            .filter(|entry| entry.visible <= now && self.shows(entry, &request.resource_names))
            .filter(|entry| {
                // A stray has no members: only conditions on time apply.
                let time_only = |filter: &Filter| match filter {
                    Filter::Compare { path, .. } if *path != ["timestamp"] => true,
                    Filter::Any(_) | Filter::Not(_) | Filter::LogId(_) => true,
                    other => other.matches(&Value::Null, entry.time),
                };
                match (&filter, entry.stray) {
                    // It has no time of receipt.
                    (filter, true) if filter.is_about("receiveTimestamp") => false,
                    (Filter::All(all), true) => all.iter().all(time_only),
                    (filter, _) => filter.matches(&entry.value, entry.time),
                }
            })
            .collect();
        found.sort_by(|a, b| {
            let order = a.key().cmp(&b.key());
            if descending { order.reverse() } else { order }
        });
        found.dedup_by(|a, b| !a.insert_id.is_empty() && a.key() == b.key());
        let mut rest = found.into_iter().skip_while(|entry| match &after {
            None => false,
            Some(after) if descending => entry.key() >= *after,
            Some(after) => entry.key() <= *after,
        });
        let size = usize::try_from(size.min(self.page_max)).unwrap();
        let page: Vec<&StoredEntry> = rest.by_ref().take(size).collect();
        let more = rest.next().is_some();
        let last = page.last().map(|entry| entry.key());
        let texts: Vec<&str> = page.iter().map(|entry| entry.text.as_str()).collect();
        let mut body = match texts.is_empty() {
            true => "{".to_owned(),
            false => format!("{{\"entries\":[{}]", texts.join(",")),
        };
        let entries = texts.len();
        if let (true, Some(last)) = (more, last) {
            let token = self.token(query, Some(last));
            let comma = if entries == 0 { "" } else { "," };
            body.push_str(&format!("{comma}\"nextPageToken\":\"{token}\""));
        }
        body.push('}');
        self.requests[number].entries = entries;
        response(StatusCode::OK, &body)
    }
}

impl StoredEntry {
    fn log(&self) -> Option<&str> {
        self.value["logName"].as_str()
    }

    fn key(&self) -> Key {
        let log = self.log().unwrap_or_default().to_owned();
        (self.time, self.insert_id.clone(), log)
    }
}
