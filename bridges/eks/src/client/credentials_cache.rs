//! The SDK's cache of credentials, which can be emptied.
//!
//! The SDK keeps credentials until they expire: up to 6 hours with EKS Pod Identity. AWS may refuse
//! them before, as their role was deleted and made again or its sessions were revoked, while new ones
//! would be good.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_cloudwatchlogs::config::{
    ConfigBag, IdentityCache, ResolveCachedIdentity, RuntimeComponents, SharedIdentityCache,
};
use aws_sdk_cloudwatchlogs::error::BoxError;
use aws_smithy_runtime_api::client::identity::{IdentityFuture, SharedIdentityResolver};
use tokio::time::Instant;

/// Where AWS refuses every credential, a role's lack of a right among the reasons, new ones are asked
/// for no more often than this.
const RENEW_INTERVAL: Duration = Duration::from_secs(15);

/// There are no credentials.
#[derive(Debug, thiserror::Error)]
#[error("no credentials")]
pub(super) struct NoCredentials(#[source] BoxError);

/// A cache of credentials. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct CredentialsCache(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    cache: SharedIdentityCache,
    renewed_at: Option<Instant>,
}

impl CredentialsCache {
    pub(super) fn new() -> CredentialsCache {
        CredentialsCache(Arc::new(Mutex::new(Kept {
            cache: IdentityCache::lazy().build(),
            renewed_at: None,
        })))
    }

    /// AWS refused a request: the next one gets new credentials.
    pub(super) fn renew(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |at: Instant| at.elapsed() >= RENEW_INTERVAL;
        if kept.renewed_at.is_none_or(is_due) {
            *kept = Kept {
                cache: IdentityCache::lazy().build(),
                renewed_at: Some(Instant::now()),
            };
        }
    }
}

impl ResolveCachedIdentity for CredentialsCache {
    fn resolve_cached_identity<'a>(
        &'a self,
        resolver: SharedIdentityResolver,
        components: &'a RuntimeComponents,
        config: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = kept.cache.clone();
        drop(kept);
        IdentityFuture::new(async move {
            let identity = cache.resolve_cached_identity(resolver, components, config);
            identity.await.map_err(|error| NoCredentials(error).into())
        })
    }
}
