//! The bridge's identity to Google: application default credentials (a key or external account
//! file, Workload Identity through the metadata server), as headers of each request.
//!
//! Google's library refreshes tokens in a task, but gives up for good after one refusal of the
//! identity service, which GKE's sends while a binding is being created; it waits for an answer for
//! ever; and it reads a file only once. So credentials that failed, or that the API refused, are built
//! again.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};
use futures_util::FutureExt as _;
use google_cloud_auth::credentials::{
    AccessTokenCredentials, Builder, CacheableResource, CredentialsProvider as _, mds,
};
use reqwest::header::HeaderMap;
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout};

use super::endpoint::Endpoint;
use super::{metadata, principal};

/// A token comes from memory, or from a nearby server.
const TOKEN_WAIT_MAX: Duration = Duration::from_secs(15);

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoToken {
    pub(crate) detail: String,
    pub(crate) remedy: String,
}

impl NoToken {
    pub(crate) fn into_unavailable(self) -> Unavailable {
        Unavailable {
            component: Component::Identity,
            reason: self.detail,
            remedy: self.remedy,
        }
    }
}

/// Provides tokens.
#[derive(Debug)]
pub(crate) struct TokenSource {
    scope: &'static str,
    kind: Kind,
    /// Held while a token is waited for.
    built: tokio::sync::Mutex<Option<BuiltCredentials>>,
    /// The API refused a token: the next one comes from new credentials.
    refused: AtomicBool,
    /// The principal that was found last.
    principal: Mutex<Option<String>>,
}

/// Credentials, and their task.
#[derive(Debug)]
struct BuiltCredentials {
    credentials: AccessTokenCredentials,
    /// Since when a token is waited for.
    waits_since: Option<Instant>,
    _task: TaskRuntime,
}

/// The runtime of the credentials' task: the library has no other way to end a task whose request is
/// never answered.
#[derive(Debug)]
struct TaskRuntime(Option<Runtime>);

impl Drop for TaskRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The environment's default credentials.
    Default,
    /// The metadata server of a stand-in.
    Metadata,
    /// The endpoint needs no token.
    None,
}

impl TokenSource {
    /// The identity for an API, limited to this scope.
    pub(crate) fn new(endpoint: &Endpoint, scope: &'static str) -> TokenSource {
        let kind = match (endpoint.plain, metadata::host_is_named()) {
            (false, _) => Kind::Default,
            (true, true) => Kind::Metadata,
            (true, false) => Kind::None,
        };
        TokenSource {
            scope,
            kind,
            built: tokio::sync::Mutex::new(None),
            refused: AtomicBool::new(false),
            principal: Mutex::new(None),
        }
    }

    /// Headers that authorize a request: a valid token and, if set, the project whose quota it
    /// uses. Empty if the endpoint needs none.
    ///
    /// # Errors
    /// There is no token; says what to do about it.
    pub(crate) async fn headers(&self) -> Result<HeaderMap, NoToken> {
        if self.kind == Kind::None {
            return Ok(HeaderMap::new());
        }
        // A request that waits for the token of another one has begun later, so it ends later, too.
        let waited = timeout(TOKEN_WAIT_MAX, self.built.lock()).await;
        let mut built = waited.map_err(|_| self.no_token_in_time())?;
        if self.refused.swap(false, Ordering::Relaxed) {
            *built = None;
        }
        let there = match &mut *built {
            Some(there) => there,
            none => none.insert(self.build()?),
        };
        // A caller may give up before we do.
        let since = *there.waits_since.get_or_insert_with(Instant::now);
        let left = TOKEN_WAIT_MAX.saturating_sub(since.elapsed());
        let headers = there.credentials.headers(Default::default());
        let answer = timeout(left, AssertUnwindSafe(headers).catch_unwind()).await;
        there.waits_since = None;
        let (failure, is_over) = match answer {
            Ok(Ok(Ok(CacheableResource::New { data, .. }))) => return Ok(data),
            // Returned only to callers that pass the tag of an earlier answer, which we do not.
            Ok(Ok(Ok(CacheableResource::NotModified))) => return Ok(HeaderMap::new()),
            Ok(Ok(Err(error))) => (self.failure(&cause(&error)), !error.is_transient()),
            // The library's task panicked before, and so does whoever waits for it.
            Ok(Err(_)) => (self.failure("the client library failed"), true),
            Err(_) => (self.no_token_in_time(), true),
        };
        if is_over {
            *built = None;
        }
        Err(failure)
    }

    /// The domain of the cloud that the credentials are for, if they say one.
    pub(crate) async fn universe_domain(&self) -> Option<String> {
        let built = timeout(TOKEN_WAIT_MAX, self.built.lock()).await.ok()?;
        let credentials = built.as_ref()?.credentials.clone();
        drop(built);
        timeout(TOKEN_WAIT_MAX, credentials.universe_domain())
            .await
            .ok()?
    }

    /// New credentials, where tokens are needed.
    fn build(&self) -> Result<BuiltCredentials, NoToken> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("google-tokens")
            .enable_all()
            .build()
            .map_err(|error| self.failure(&cause(&error)))?;
        let handle = runtime.handle().clone();
        let task = TaskRuntime(Some(runtime));
        let _entered = handle.enter();
        let built = match self.kind {
            Kind::Metadata => mds::Builder::default()
                .with_scopes([self.scope])
                .build_access_token_credentials(),
            Kind::Default | Kind::None => Builder::default()
                .with_scopes([self.scope])
                .build_access_token_credentials(),
        };
        Ok(BuiltCredentials {
            credentials: built.map_err(|error| self.failure(&cause(&error)))?,
            waits_since: None,
            _task: task,
        })
    }

    /// The API refused the token: the next one comes from new credentials.
    pub(crate) fn renew(&self) {
        self.refused.store(true, Ordering::Relaxed);
        *self
            .principal
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The tokens' principal, for messages; `None` if unknown.
    pub(crate) async fn principal(&self) -> Option<String> {
        let known = || {
            self.principal
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(principal) = known().clone() {
            return Some(principal);
        }
        let found = match self.kind {
            Kind::None => None,
            Kind::Metadata => principal::of_metadata_server().await,
            Kind::Default => principal::of_environment().await,
        };
        known().clone_from(&found);
        found
    }

    /// Remedy for a missing or refused token.
    pub(crate) fn remedy(&self) -> String {
        let file = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS");
        match (self.kind, file.filter(|file| !file.is_empty())) {
            (Kind::Default, Some(_)) => "check the file that GOOGLE_APPLICATION_CREDENTIALS names",
            _ => {
                "on GKE, enable Workload Identity Federation and bind the pod's ServiceAccount; \
                 elsewhere, name a credentials file in GOOGLE_APPLICATION_CREDENTIALS"
            }
        }
        .to_owned()
    }

    fn no_token_in_time(&self) -> NoToken {
        let seconds = TOKEN_WAIT_MAX.as_secs();
        self.failure(&format!("no token within {seconds} s"))
    }

    fn failure(&self, detail: &str) -> NoToken {
        NoToken {
            detail: format!("no access token: {detail}"),
            remedy: self.remedy(),
        }
    }
}

/// The root cause of an error. The library's wrappers repeat themselves and say that the failure is
/// permanent, but we retry.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
