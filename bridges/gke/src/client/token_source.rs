//! Who the bridge is to Google: application default credentials (a key or external account file,
//! Workload Identity through the metadata server), as the headers of each request.
//!
//! The client library keeps a token fresh in the background, but gives up for good when the
//! identity service refuses once, as GKE's does while a binding is being made; and it reads a file
//! only once. So credentials that failed, or that the API refused, are made anew.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};
use google_cloud_auth::credentials::{
    AccessTokenCredentials, Builder, CacheableResource, CredentialsProvider as _, mds,
};
use reqwest::header::HeaderMap;

use super::endpoint::Endpoint;
use super::{metadata, principal};

/// A token comes from memory, or from a server nearby.
const TOKEN_WAIT_MAX: Duration = Duration::from_secs(15);

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoToken {
    /// What went wrong.
    pub(crate) detail: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

impl NoToken {
    /// As whoever waits for it is told.
    pub(crate) fn into_unavailable(self) -> Unavailable {
        Unavailable {
            component: Component::Identity,
            reason: self.detail,
            remedy: self.remedy,
        }
    }
}

/// Makes tokens.
#[derive(Debug)]
pub(crate) struct TokenSource {
    scope: &'static str,
    kind: Kind,
    made: Mutex<Option<AccessTokenCredentials>>,
    /// As it was last found out.
    principal: Mutex<Option<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What the environment has.
    Default,
    /// A stand-in's metadata server.
    Metadata,
    /// Nobody asks.
    None,
}

impl TokenSource {
    /// The identity for an API, with rights of this scope at most.
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

    /// What a request says of who asks: a token that is good now, and whose quota it draws on
    /// where that is set. Nothing where nobody wants to know.
    ///
    /// # Errors
    /// There is no token, and what to do about it.
    pub(crate) async fn headers(&self) -> Result<HeaderMap, NoToken> {
        let Some(credentials) = self.credentials()? else {
            return Ok(HeaderMap::new());
        };
        let headers = credentials.headers(Default::default());
        match tokio::time::timeout(TOKEN_WAIT_MAX, headers).await {
            Ok(Ok(CacheableResource::New { data, .. })) => Ok(data),
            // Only who names an earlier answer is told so.
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

    /// The credentials themselves, for a client that asks for tokens by itself.
    ///
    /// # Errors
    /// There are none, and what to do about it.
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

    /// Forgets the credentials: the next token comes from new ones.
    pub(crate) fn renew(&self) {
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self
            .principal
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Who the tokens are of, for people; `None` where nothing says it.
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

    /// What to do when there is no token, or it is refused.
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

/// What is behind an error. What the client library wraps around it says the same again and again,
/// and that all is lost, which it is not: it is tried anew.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
