//! Our tokens as credentials of Google's client.
//!
//! The client adds the credentials' headers to each request, so this is also where they get this
//! program's user agent: it lets callers set one for single requests, but makes those of a subscription
//! itself.

use std::sync::Arc;

use google_cloud_auth::credentials::{
    CacheableResource, Credentials, CredentialsProvider, EntityTag,
};
use google_cloud_auth::errors::CredentialsError;
use http::Extensions;
use reqwest::header::{HeaderMap, HeaderValue, USER_AGENT};

use crate::client::token_source::TokenSource;

/// Credentials whose headers are those of a [`TokenSource`], and a `User-Agent`.
#[derive(Debug)]
pub(super) struct TokenCredentials(Arc<TokenSource>);

impl TokenCredentials {
    /// The credentials of these tokens.
    pub(super) fn of(tokens: &Arc<TokenSource>) -> Credentials {
        TokenCredentials(Arc::clone(tokens)).into()
    }
}

impl CredentialsProvider for TokenCredentials {
    async fn headers(
        &self,
        _: Extensions,
    ) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let headers = self.0.headers().await;
        let mut data =
            headers.map_err(|no_token| CredentialsError::from_msg(true, no_token.detail))?;
        let agent = HeaderValue::from_static(crate::client::USER_AGENT);
        data.insert(USER_AGENT, agent);
        Ok(CacheableResource::New {
            entity_tag: EntityTag::new(),
            data,
        })
    }

    async fn universe_domain(&self) -> Option<String> {
        self.0.universe_domain().await
    }
}
