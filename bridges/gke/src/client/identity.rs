//! Who the bridge is to Google: application default credentials (a key or external account file,
//! Workload Identity through the metadata server), as a bearer token for each request.
//!
//! The client library keeps a token fresh in the background, but gives up for good when the
//! identity service refuses once, as GKE's does while a binding is being made; and it reads a file
//! only once. So credentials that failed, or that the API refused, are made anew.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use audit_bridge_core::config::chain;
use google_cloud_auth::credentials::{AccessTokenCredentials, Builder, mds};

use super::endpoint::Endpoint;
use super::metadata;

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

/// Makes tokens.
#[derive(Debug)]
pub(crate) struct Identity {
    scope: &'static str,
    kind: Kind,
    made: Mutex<Option<AccessTokenCredentials>>,
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

impl Identity {
    /// The identity for an API, with rights of this scope at most.
    pub(crate) fn new(endpoint: &Endpoint, scope: &'static str) -> Identity {
        let kind = match (endpoint.plain, metadata::host_is_named()) {
            (false, _) => Kind::Default,
            (true, true) => Kind::Metadata,
            (true, false) => Kind::None,
        };
        Identity {
            scope,
            kind,
            made: Mutex::new(None),
        }
    }

    /// A token that is good now; `None` where none is needed.
    ///
    /// # Errors
    /// There is none, and what to do about it.
    pub(crate) async fn token(&self) -> Result<Option<String>, NoToken> {
        let Some(credentials) = self.credentials()? else {
            return Ok(None);
        };
        match tokio::time::timeout(TOKEN_WAIT_MAX, credentials.access_token()).await {
            Ok(Ok(token)) => Ok(Some(token.token)),
            Ok(Err(error)) => {
                if !error.is_transient() {
                    self.renew();
                }
                Err(self.failure(&chain(&error)))
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
        let credentials = built.map_err(|error| self.failure(&chain(&error)))?;
        *made = Some(credentials.clone());
        Ok(Some(credentials))
    }

    /// Forgets the credentials: the next token comes from new ones.
    pub(crate) fn renew(&self) {
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
