//! `entries.list` of Cloud Logging, page by page.
//!
//! Uses REST and not Google's client library. The library decodes a page completely or not at all,
//! so an entry that it does not understand would block the log forever; it also re-encodes entries.
//! Nothing is retried here: the tail counts, paces and repeats requests.

mod error;

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use audit_bridge_core::record::{Origin, Record};
use audit_bridge_tail::{LogPage, PageEntry, QueryError, ServerClock, TimeLog, Window};
use bytes::{Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderValue};
use serde_json::json;
use tokio::task::JoinSet;

use super::USER_AGENT;
use super::endpoint::Endpoint;
use super::page::{EntriesAnswer, IdentifiedEntry};
use super::token_source::{NoToken, TokenSource};
use crate::client::filter::{Selection, times};
use crate::client::resource_name::ResourceName;

/// The API's largest page size.
const PAGE_SIZE_MAX: usize = 1000;
/// After so many pages it is clear enough that there are no newest entries; 60 requests a minute are
/// all that a project has.
const NEWEST_PAGES_MAX: usize = 10;
/// Each cursor holds a whole page. An entry has 512 KiB at most, so some always fit.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Time limit of one request for a page.
const ATTEMPT_MAX: Duration = Duration::from_secs(45);
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Scope of reading logs; roles decide what may be read.
const SCOPE: &str = "https://www.googleapis.com/auth/logging.read";

/// The audit log of some clusters.
#[derive(Debug)]
pub struct CloudLoggingClient {
    http: reqwest::Client,
    url: String,
    identity: TokenSource,
    selection: Selection,
    filter: String,
    name: String,
    /// Page size in entries, reduced while entries are so large that a full page would exceed the
    /// limit.
    page_size: AtomicUsize,
    /// The API's clock, from the dates of its answers.
    clock: ServerClock,
    /// Background tasks that end with the client.
    beside: JoinSet<()>,
}

/// A page of entries, and the token of the next page.
#[derive(Debug)]
pub(crate) struct EntriesPage {
    pub(crate) entries: Vec<IdentifiedEntry>,
    pub(crate) next: Option<String>,
}

impl CloudLoggingClient {
    /// A client for the log of this selection.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub(crate) fn new(
        endpoint: &Endpoint,
        selection: Selection,
    ) -> Result<CloudLoggingClient, reqwest::Error> {
        let mut http = reqwest::Client::builder()
            .timeout(ATTEMPT_MAX)
            .connect_timeout(CONNECT_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(USER_AGENT);
        if endpoint.plain {
            http = http.no_proxy();
        }
        Ok(CloudLoggingClient {
            http: http.build()?,
            // Not pretty-printed: indentation makes entries half as large again.
            url: format!("{}/v2/entries:list?prettyPrint=false", endpoint.url),
            identity: TokenSource::new(endpoint, SCOPE),
            name: selection.name(),
            filter: selection.filter(),
            selection,
            page_size: AtomicUsize::new(PAGE_SIZE_MAX),
            clock: ServerClock::default(),
            beside: JoinSet::new(),
        })
    }

    /// Runs a task in the background, until the client is dropped.
    pub(crate) fn accompany(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.beside.spawn(work);
    }

    /// Gets a token. Returns false if the endpoint needs none.
    ///
    /// # Errors
    /// There is no token; says what to do about it.
    pub(crate) async fn identify(&self) -> Result<bool, NoToken> {
        let headers = self.identity.headers().await?;
        Ok(!headers.is_empty())
    }

    /// The principal that makes the requests, for messages; `None` if unknown.
    pub(crate) async fn principal(&self) -> Option<String> {
        self.identity.principal().await
    }

    /// The newest entries of a filter, at most `entries` of them and no older than `back`. A page
    /// without entries says nothing while it has a token.
    ///
    /// # Errors
    /// As [`TimeLog::query`].
    pub(crate) async fn newest(
        &self,
        filter: &str,
        back: SignedDuration,
        entries: usize,
    ) -> Result<Vec<IdentifiedEntry>, QueryError> {
        let now = Timestamp::now();
        let start = now.checked_sub(back).unwrap_or(Timestamp::MIN);
        let end = now.checked_add(back).unwrap_or(Timestamp::MAX);
        let filter = format!("{filter} AND {}", times(start, end));
        let mut newest = Vec::new();
        let mut token = None;
        for _ in 0..NEWEST_PAGES_MAX {
            let token_of_last = token.as_deref();
            let answer = self
                .list(&filter, "timestamp desc", entries, token_of_last)
                .await?;
            newest.extend(answer.entries.into_iter().map(IdentifiedEntry::read));
            token = answer.next;
            if newest.len() >= entries || token.is_none() {
                break;
            }
        }
        newest.truncate(entries);
        Ok(newest)
    }

    /// A page of the selected entries that match `condition` too, ordered by time.
    ///
    /// # Errors
    /// As [`TimeLog::query`].
    pub(crate) async fn page(
        &self,
        condition: &str,
        token: Option<&str>,
    ) -> Result<EntriesPage, QueryError> {
        let filter = format!("{} AND {condition}", self.filter);
        let page_size = self.page_size.load(Ordering::Relaxed);
        let answer = self
            .list(&filter, "timestamp asc", page_size, token)
            .await?;
        self.fitted(page_size, answer.entries.iter().map(Bytes::len).sum());
        let entries = answer.entries.into_iter().map(IdentifiedEntry::read);
        Ok(EntriesPage {
            entries: entries.collect(),
            next: answer.next,
        })
    }

    fn resource_names(&self) -> Vec<&str> {
        let names = &self.selection.resource_names;
        names.iter().map(ResourceName::as_str).collect()
    }

    async fn list(
        &self,
        filter: &str,
        order: &str,
        page_size: usize,
        token: Option<&str>,
    ) -> Result<EntriesAnswer, QueryError> {
        let authorization =
            self.identity
                .headers()
                .await
                .map_err(|missing| QueryError::Unauthenticated {
                    detail: missing.detail,
                    remedy: missing.remedy,
                })?;
        let mut body = json!({
            "resourceNames": self.resource_names(),
            "filter": filter,
            "orderBy": order,
            "pageSize": page_size,
        });
        if let Some(token) = token {
            body["pageToken"] = token.into();
        }
        let json = HeaderValue::from_static("application/json");
        let request = self
            .http
            .post(&self.url)
            .headers(authorization)
            .header(CONTENT_TYPE, json)
            .body(body.to_string());
        let mut response = request.send().await.map_err(error::transport)?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let date = headers.get(DATE).and_then(|value| value.to_str().ok());
        // An error may come from a proxy, whose clock is not the API's.
        if let Some(date) = date.filter(|_| status.is_success()) {
            self.clock.told_by_header(date);
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(error::transport)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.too_large(page_size));
            }
            body.extend_from_slice(&chunk);
        }
        let body = body.freeze();
        if status.is_success() {
            return EntriesAnswer::read(&body).map_err(|error| QueryError::Transient {
                detail: format!("cloud logging answered {status}, but {error}"),
            });
        }
        // A binding that was made or changed since gives new credentials another identity.
        if matches!(status.as_u16(), 401 | 403) {
            self.identity.renew();
        }
        let principal = match status {
            reqwest::StatusCode::FORBIDDEN => self.identity.principal().await,
            _ => None,
        };
        Err(
            error::ApiErrorBody::read(status, &headers, &body).into_query_error(
                &self.selection,
                token.is_some(),
                principal.as_deref(),
                &self.identity.remedy(),
            ),
        )
    }

    /// Reduces the page size.
    fn too_large(&self, page_size: usize) -> QueryError {
        let smaller = (page_size / 2).max(1);
        self.page_size.fetch_min(smaller, Ordering::Relaxed);
        QueryError::Transient {
            detail: format!(
                "a page of {page_size} entries is larger than {} MiB; {smaller} are asked for",
                ANSWER_BYTES_MAX >> 20
            ),
        }
    }

    /// Increases the page size again once pages are small.
    fn fitted(&self, page_size: usize, bytes: usize) {
        if page_size < PAGE_SIZE_MAX && bytes < ANSWER_BYTES_MAX / 4 {
            let larger = (page_size * 2).min(PAGE_SIZE_MAX);
            self.page_size.fetch_max(larger, Ordering::Relaxed);
        }
    }
}

impl TimeLog for CloudLoggingClient {
    type Raw = IdentifiedEntry;

    fn name(&self) -> &str {
        &self.name
    }

    /// Google's times have nanoseconds, and filters compare all of them.
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn server_time(&self) -> Option<Timestamp> {
        self.clock.now()
    }

    fn server_time_at_least(&self) -> Option<Timestamp> {
        self.clock.at_least()
    }

    async fn query(
        &self,
        window: &Window,
        token: Option<&str>,
    ) -> Result<LogPage<IdentifiedEntry>, QueryError> {
        let times = times(window.start, window.end);
        let page = self.page(&times, token).await?;
        let entries = page.entries.into_iter();
        let entries = entries.map(|entry| PageEntry {
            // An unreadable entry has no time of its own, so take a time of the window that found
            // it.
            time: entry.time.unwrap_or(window.start),
            identity: entry.identity(),
            raw: entry,
        });
        Ok(LogPage {
            entries: entries.collect(),
            next: page.next,
        })
    }

    fn record(&self, entry: IdentifiedEntry) -> Record {
        let id = match entry.insert_id.is_empty() {
            true => entry.identity().to_string(),
            false => entry.insert_id,
        };
        Record {
            // A copy, because a slice would keep the whole page in memory.
            payload: Bytes::copy_from_slice(&entry.text),
            origin: Origin::Stream {
                stream: match entry.log.is_empty() {
                    true => self.name.as_str().into(),
                    false => entry.log.into(),
                },
                id,
            },
            time: entry.time,
            damaged: entry.damaged,
            oversized: false,
        }
    }
}
