//! The bridge's identity to Google: application default credentials (a key or external account
//! file, Workload Identity through the metadata server), as headers of each request.
//!
//! Google's library refreshes tokens in the background, but gives up for good after one refusal of
//! the identity service, which GKE's sends while a binding is being created; and it reads a file
//! only once. So credentials that failed, or that the API refused, are built again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};
use google_cloud_auth::credentials::{
    AccessTokenCredentials, Builder, CacheableResource, CredentialsProvider as _, mds,
};
use reqwest::header::HeaderMap;

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
    made: Mutex<Option<AccessTokenCredentials>>,
    /// The principal that was found last.
    principal: Mutex<Option<String>>,
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
            made: Mutex::new(None),
            principal: Mutex::new(None),
        }
    }

    /// Headers that authorize a request: a valid token and, if set, the project whose quota it
    /// uses. Empty if the endpoint needs none.
    ///
    /// # Errors
    /// There is no token; says what to do about it.
    pub(crate) async fn headers(&self) -> Result<HeaderMap, NoToken> {
        let Some(credentials) = self.credentials()? else {
            return Ok(HeaderMap::new());
        };
        let headers = credentials.headers(Default::default());
        match tokio::time::timeout(TOKEN_WAIT_MAX, headers).await {
            Ok(Ok(CacheableResource::New { data, .. })) => Ok(data),
            // Returned only to callers that pass the tag of an earlier answer, which we do not.
            Ok(Ok(CacheableResource::NotModified)) => Ok(HeaderMap::new()),
            Ok(Err(error)) => {
                if !error.is_transient() {
                    self.renew();
                }
                Err(self.failure(&cause(&error)))
            }
            Err(_) => {
                let seconds = TOKEN_WAIT_MAX.as_secs();
                Err(self.failure(&format!("no token within {seconds} s")))
            }
        }
    }

    /// The credentials, for a client that gets tokens itself.
    ///
    /// # Errors
    /// There are none; says what to do about it.
    pub(crate) fn credentials(&self) -> Result<Option<AccessTokenCredentials>, NoToken> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credentials) = made.as_ref() {
            return Ok(Some(credentials.clone()));
        }
        let built = match self.kind {
            Kind::None => return Ok(None),
            Kind::Metadata => mds::Builder::default()
                .with_scopes([self.scope])
                .build_access_token_credentials(),
            Kind::Default => Builder::default()
                .with_scopes([self.scope])
                .build_access_token_credentials(),
        };
        let credentials = built.map_err(|error| self.failure(&cause(&error)))?;
        *made = Some(credentials.clone());
        Ok(Some(credentials))
    }

    /// Drops the credentials; the next token comes from new ones.
    pub(crate) fn renew(&self) {
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
