//! Credentials that add this program's user agent.
//!
//! Google's client lets callers set a user agent for single requests, but makes those of a
//! subscription itself. It adds the credentials' headers to each of them.

use google_cloud_auth::credentials::{CacheableResource, Credentials, CredentialsProvider};
use google_cloud_auth::errors::CredentialsError;
use http::Extensions;
use reqwest::header::{HeaderMap, HeaderValue, USER_AGENT};

/// Credentials whose headers include a `User-Agent`.
#[derive(Debug)]
pub(super) struct NamedCredentials(Credentials);

impl NamedCredentials {
    /// Adds this program's name and version to credentials.
    pub(super) fn wrap(credentials: Credentials) -> Credentials {
        NamedCredentials(credentials).into()
    }
}

impl CredentialsProvider for NamedCredentials {
    async fn headers(
        &self,
        extensions: Extensions,
    ) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let mut headers = self.0.headers(extensions).await?;
        if let CacheableResource::New { data, .. } = &mut headers {
            let agent = HeaderValue::from_static(crate::client::USER_AGENT);
            data.insert(USER_AGENT, agent);
        }
        Ok(headers)
    }

    async fn universe_domain(&self) -> Option<String> {
        self.0.universe_domain().await
    }
}
