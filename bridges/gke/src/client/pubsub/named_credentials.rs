//! Credentials that say which program asks.
//!
//! Google's client takes a user agent for a single request, but makes those of a subscription by itself. The
//! headers of the credentials go with each of them.

use google_cloud_auth::credentials::{CacheableResource, Credentials, CredentialsProvider};
use google_cloud_auth::errors::CredentialsError;
use http::Extensions;
use reqwest::header::{HeaderMap, HeaderValue, USER_AGENT};

/// Credentials whose headers hold a `User-Agent`, too.
#[derive(Debug)]
pub(super) struct NamedCredentials(Credentials);

impl NamedCredentials {
    /// The name and version of this program beside these credentials.
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
