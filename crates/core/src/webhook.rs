//! One POST to the webhook: the request, its credentials, trusted authorities, and the meaning of
//! the answer.
//!
//! In this crate only this module uses the HTTP client. Redirects are not followed (a redirected
//! POST has not arrived), and bodies are not compressed (Falco cannot read them).

mod failure;
pub mod settings;

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url};

use crate::chain::chain;
use crate::event::{Event, list};
use crate::retry;
use crate::sink::{Cause, ReceiverAnswer, RequestFailure, Sink, Verdict};
use settings::TlsFiles;
pub use settings::{WebhookError, WebhookSettings, parse_url};

/// How much of an answer's body a message quotes.
const DETAIL_BYTES_MAX: usize = 200;

/// How much of an answer's body is read so that the connection can be reused.
const DRAIN_BYTES_MAX: usize = 64 << 10;

/// How long to wait for that part once the answer's status is known.
const DRAIN_WAIT_MAX: Duration = Duration::from_millis(250);

/// A token is one line; a larger file holds something else.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Clone)]
pub struct Webhook {
    settings: Arc<WebhookSettings>,
    url: Url,
    connected: Arc<Mutex<Connected>>,
}

/// A client, and the certificate files that it was made of.
#[derive(Debug)]
struct Connected {
    client: Client,
    files: TlsFiles,
    /// Changed files that could not be used.
    refused: Option<RefusedFiles>,
}

#[derive(Debug)]
struct RefusedFiles {
    /// Their contents, if they could be read.
    files: Option<TlsFiles>,
    /// Logged once.
    why: String,
}

impl Webhook {
    /// Reads the certificates and builds the client without connecting. The token file and the
    /// certificate files are read again before each POST, because they rotate.
    ///
    /// # Errors
    /// A bad URL or certificate file: the message names the setting and the file.
    pub fn new(settings: &WebhookSettings) -> Result<Webhook, WebhookError> {
        let url = parse_url(&settings.url).map_err(WebhookError::Url)?;
        let files = TlsFiles::read(settings)?;
        let client = settings::client(settings, &url, &files)?;
        if let Some(warning) = settings.warning() {
            tracing::warn!("{warning}");
        }
        let connected = Connected {
            client,
            files,
            refused: None,
        };
        Ok(Webhook {
            settings: Arc::new(settings.clone()),
            url,
            connected: Arc::new(Mutex::new(connected)),
        })
    }

    /// Returns the client, after rebuilding it if the certificate files have changed. While they
    /// are unusable, for example between the writing of a certificate and of its key, the current
    /// client stays.
    fn client(&self) -> Client {
        let settings = &*self.settings;
        let mut connected = self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if settings.ca_file.is_none() && settings.client_cert_file.is_none() {
            return connected.client.clone();
        }
        let (files, error) = match TlsFiles::read_again(settings) {
            Ok(files) if files == connected.files => {
                connected.refused = None;
                return connected.client.clone();
            }
            Ok(files) => {
                let refused = connected.refused.as_ref();
                if refused.is_some_and(|refused| refused.files.as_ref() == Some(&files)) {
                    return connected.client.clone();
                }
                match settings::client(settings, &self.url, &files) {
                    Ok(client) => {
                        tracing::info!("webhook certificate files reloaded");
                        *connected = Connected {
                            client: client.clone(),
                            files,
                            refused: None,
                        };
                        return client;
                    }
                    Err(error) => (Some(files), error),
                }
            }
            Err(error) => (None, error),
        };
        let why = chain(&error);
        if connected.refused.as_ref().is_none_or(|it| it.why != why) {
            tracing::warn!(
                error = why,
                "webhook certificate files unusable: the former ones stay in use"
            );
        }
        connected.refused = Some(RefusedFiles { files, why });
        connected.client.clone()
    }

    /// The receiver's address for messages: without path and query, which may hold secrets.
    pub fn address(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// POSTs an empty list.
    pub async fn ask(&self) -> ReceiverAnswer {
        self.exchange(list::body(&[])).await
    }

    /// POSTs one body and interprets the answer.
    pub async fn post(&self, body: Bytes) -> Verdict {
        self.exchange(body).await.verdict
    }

    async fn exchange(&self, body: Bytes) -> ReceiverAnswer {
        let unheard = |verdict| ReceiverAnswer {
            verdict,
            server_time: None,
        };
        let mut request = self
            .client()
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body);
        if let Some(path) = &self.settings.token_file {
            match bearer(path) {
                Ok(value) => request = request.header(AUTHORIZATION, value),
                Err(error) => {
                    return unheard(Verdict::Failed(RequestFailure {
                        cause: Cause::Token,
                        detail: error.to_string(),
                        remedy: Some(Cow::Borrowed(failure::TOKEN_REMEDY)),
                        after: None,
                    }));
                }
            }
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return unheard(failure::of_error(error, self.settings.timeout)),
        };
        let date = response.headers().get(DATE);
        let date = date.and_then(|date| rfc2822::parse(date.to_str().ok()?).ok());
        ReceiverAnswer {
            server_time: date.map(|date| date.timestamp()),
            verdict: answered(response).await,
        }
    }
}

/// Interprets an answer.
async fn answered(response: Response) -> Verdict {
    let status = response.status().as_u16();
    if response.status().is_success() {
        // Even if the rest of the answer fails, the receiver has the events.
        body_start(response, DRAIN_BYTES_MAX, DRAIN_BYTES_MAX).await;
        return Verdict::Accepted { status };
    }
    let header = |name| {
        let value: Option<&HeaderValue> = response.headers().get(name);
        value.and_then(|value| value.to_str().ok())
    };
    let after = header(RETRY_AFTER).and_then(|value| retry::retry_after(value, Timestamp::now()));
    let reason = response.status().canonical_reason().unwrap_or_default();
    let body = body_start(response, DETAIL_BYTES_MAX, DRAIN_BYTES_MAX).await;
    failure::of_status(status, reason, &body, after)
}

impl Sink for Webhook {
    async fn send(&self, events: &[Event]) -> Verdict {
        self.post(list::body(events)).await
    }
}

/// The first `keep` bytes of the answer's body. Stops reading after about `drain` bytes or
/// `DRAIN_WAIT_MAX`; if the body breaks off, returns what was read.
async fn body_start(mut response: Response, keep: usize, drain: usize) -> Vec<u8> {
    let mut start = Vec::new();
    let mut seen = 0;
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            seen += chunk.len();
            let room = keep.saturating_sub(start.len()).min(chunk.len());
            start.extend_from_slice(&chunk[..room]);
            if seen > drain {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_WAIT_MAX, read).await;
    start
}

/// The token file holds no usable token. Never quotes the file.
#[derive(Debug, thiserror::Error)]
#[error("the token file {} {problem}", .path.display())]
struct TokenError {
    path: PathBuf,
    problem: TokenProblem,
}

#[derive(Debug, thiserror::Error)]
enum TokenProblem {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is too large for a token")]
    TooLarge,
    #[error("is empty")]
    Empty,
    #[error("holds more than one token")]
    Several,
    #[error("does not hold a token")]
    NoToken,
}

/// The `Authorization` header, from the file as it is now: reading a small file costs less than
/// finding out whether it changed. The error never quotes the file.
fn bearer(path: &Path) -> Result<HeaderValue, TokenError> {
    let refused = |problem: TokenProblem| TokenError {
        path: path.to_owned(),
        problem,
    };
    let mut text = String::new();
    let read = settings::regular(path)
        .and_then(|()| std::fs::File::open(path))
        .and_then(|file| file.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text));
    if let Err(error) = read {
        return Err(refused(TokenProblem::Unreadable(error)));
    }
    if text.len() as u64 > TOKEN_BYTES_MAX {
        return Err(refused(TokenProblem::TooLarge));
    }
    let token = text.trim();
    if token.is_empty() {
        return Err(refused(TokenProblem::Empty));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused(TokenProblem::Several));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| refused(TokenProblem::NoToken))?;
    value.set_sensitive(true);
    Ok(value)
}
