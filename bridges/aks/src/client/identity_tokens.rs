//! An identity's tokens, also when those that are at hand serve no more.
//!
//! The client library keeps a token until it is about to expire, a day with some identities, and its
//! connections and trusted certificates for as long as it lives. A token may be refused before: the
//! identity was made again, or its sessions were revoked. Then the client is made anew.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit_bridge_core::chain::chain;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use tokio::time::Instant;

/// The time between two clients: a role that is not granted is refused with each of them.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(15);

/// Makes a client of the identity.
type MakeClient = fn() -> Result<Arc<dyn TokenCredential>, Box<dyn Error + Send + Sync>>;

/// The tokens of an identity.
pub struct IdentityTokens {
    make: MakeClient,
    current: Mutex<Current>,
}

struct Current {
    client: Arc<dyn TokenCredential>,
    made: Instant,
}

impl IdentityTokens {
    /// Those of `client`, and later those of clients that `make` makes.
    pub fn new(client: Arc<dyn TokenCredential>, make: MakeClient) -> IdentityTokens {
        let made = Instant::now();
        IdentityTokens {
            make,
            current: Mutex::new(Current { client, made }),
        }
    }

    /// What the client gave was refused, or it gave nothing: the next token comes from another one.
    pub(super) fn renew(&self) {
        {
            let mut current = self.current();
            if current.made.elapsed() < RENEWAL_INTERVAL {
                return;
            }
            current.made = Instant::now();
        }
        // It reads files, and others may ask for a token meanwhile.
        match (self.make)() {
            Ok(client) => self.current().client = client,
            Err(error) => tracing::warn!(error = chain(&*error), "identity cannot be read again"),
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for IdentityTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityTokens").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl TokenCredential for IdentityTokens {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let client = Arc::clone(&self.current().client);
        client.get_token(scopes, options).await
    }
}
