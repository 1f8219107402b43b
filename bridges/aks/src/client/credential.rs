//! How we authenticate to Event Hubs: an identity of Microsoft Entra, or a shared access key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_bridge_app::config::InvalidValue;
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::{ClientOptions, UserAgentOptions};
use azure_identity::{
    ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use jiff::Timestamp;

use crate::client::certificate::{CertificateAssertion, CertificateError};
use crate::client::identity_tokens::IdentityTokens;

/// The authority that issues tokens, unless `AZURE_AUTHORITY_HOST` is set.
const AUTHORITY_HOST: &str = "https://login.microsoftonline.com";
/// The file with a certificate and its key.
const CERTIFICATE_PATH: &str = "AZURE_CLIENT_CERTIFICATE_PATH";
/// Prefix of the SDK's user agent: limited to this many characters, and without `/`.
const APPLICATION_ID: &str = concat!("aks-audit-bridge-", env!("CARGO_PKG_VERSION"));
const APPLICATION_ID_CHARS_MAX: usize = 24;

/// What is shown to Event Hubs.
#[derive(Clone)]
pub enum Credential {
    /// Tokens of an identity.
    Identity {
        /// How the identity is proved.
        kind: IdentityKind,
        /// Has the tokens.
        tokens: Arc<IdentityTokens>,
    },
    /// A connection string in a file, read again for every connection.
    ConnectionStringFile(PathBuf),
}

/// How an identity is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityKind {
    /// By the token of the pod's service account.
    WorkloadIdentity,
    ClientSecret,
    ClientCertificate,
    /// By the machine's metadata service.
    ManagedIdentity,
}

impl IdentityKind {
    /// Who gives its tokens.
    pub(super) fn authority(self) -> String {
        match self {
            IdentityKind::ManagedIdentity => "the metadata service of the machine".to_owned(),
            _ => authority_host(),
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            IdentityKind::WorkloadIdentity => "workload identity",
            IdentityKind::ClientSecret => "client secret",
            IdentityKind::ClientCertificate => "client certificate",
            IdentityKind::ManagedIdentity => "managed identity",
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Identity { kind, .. } => f.debug_tuple("Identity").field(kind).finish(),
            Credential::ConnectionStringFile(path) => {
                f.debug_tuple("ConnectionStringFile").field(path).finish()
            }
        }
    }
}

/// Why the environment's identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A variable is set without those that it needs.
    #[error("{0} is set, but AZURE_TENANT_ID or AZURE_CLIENT_ID is not")]
    Incomplete(&'static str),
    /// The certificate does not serve.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Azure's client does not take it.
    #[error("{kind}: {source}")]
    Refused {
        /// What it was to be.
        kind: &'static str,
        /// The client's words.
        source: azure_core::Error,
    },
}

impl Credential {
    /// The identity of the environment: Workload Identity if its webhook has set a token file, else
    /// a client secret or client certificate if there is one, else the machine's managed identity.
    ///
    /// # Errors
    /// What is missing in the environment, or wrong with the certificate.
    pub fn from_environment() -> Result<Credential, CredentialError> {
        let (kind, tokens) = identity()?;
        let tokens = Arc::new(IdentityTokens::new(tokens, || Ok(identity()?.1)));
        Ok(Credential::Identity { kind, tokens })
    }

    /// The kind of credential, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Credential::Identity { kind, .. } => kind.name(),
            Credential::ConnectionStringFile(_) => "connection string",
        }
    }
}

/// The client of the environment's identity, which caches its tokens until they are about to expire.
fn identity() -> Result<(IdentityKind, Arc<dyn TokenCredential>), CredentialError> {
    let (kind, tokens): (_, Tokens) = if variable("AZURE_FEDERATED_TOKEN_FILE").is_some() {
        (IdentityKind::WorkloadIdentity, workload_identity())
    } else if let Some(secret) = variable("AZURE_CLIENT_SECRET") {
        let (tenant, client) = application("AZURE_CLIENT_SECRET")?;
        let options = ClientSecretCredentialOptions {
            client_options: client_options(),
        };
        let secret = Secret::new(secret);
        let tokens = ClientSecretCredential::new(&tenant, client, secret, Some(options));
        (IdentityKind::ClientSecret, tokens.map(|it| it as _))
    } else if let Some(path) = variable(CERTIFICATE_PATH) {
        (IdentityKind::ClientCertificate, client_certificate(path)?)
    } else {
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: variable("AZURE_CLIENT_ID").map(UserAssignedId::ClientId),
            client_options: client_options(),
        };
        let tokens = ManagedIdentityCredential::new(Some(options));
        (IdentityKind::ManagedIdentity, tokens.map(|it| it as _))
    };
    match tokens {
        Ok(tokens) => Ok((kind, tokens)),
        Err(source) => Err(CredentialError::Refused {
            kind: kind.name(),
            source,
        }),
    }
}

type Tokens = azure_core::Result<Arc<dyn TokenCredential>>;

/// The value of a variable that is set and not blank.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    value.filter(|value| !value.trim().is_empty())
}

/// Tenant ID and client ID of the application that owns the secret or certificate in variable
/// `given`.
fn application(given: &'static str) -> Result<(String, String), CredentialError> {
    match (variable("AZURE_TENANT_ID"), variable("AZURE_CLIENT_ID")) {
        (Some(tenant), Some(client)) => Ok((tenant, client)),
        _ => Err(CredentialError::Incomplete(given)),
    }
}

fn authority_host() -> String {
    variable("AZURE_AUTHORITY_HOST").unwrap_or_else(|| AUTHORITY_HOST.to_owned())
}

fn workload_identity() -> Tokens {
    let options = WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions {
            client_options: client_options(),
        },
        ..WorkloadIdentityCredentialOptions::default()
    };
    WorkloadIdentityCredential::new(Some(options)).map(|it| it as _)
}

fn client_certificate(path: String) -> Result<Tokens, CredentialError> {
    let (tenant, client_id) = application(CERTIFICATE_PATH)?;
    let host = authority_host();
    let chain = variable("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN");
    let assertion = CertificateAssertion {
        path: path.into(),
        send_chain: chain.is_some_and(|it| it == "1" || it.eq_ignore_ascii_case("true")),
        client_id: client_id.clone(),
        audience: format!("{}/{tenant}/oauth2/v2.0/token", host.trim_end_matches('/')),
    };
    // Fails now if the file is invalid, and not with the first token.
    assertion.assertion(Timestamp::now())?;
    let options = ClientAssertionCredentialOptions {
        client_options: client_options(),
    };
    let tokens = ClientAssertionCredential::new(tenant, client_id, assertion, Some(options));
    Ok(tokens.map(|it| it as _))
}

/// Requests for tokens name us.
fn client_options() -> ClientOptions {
    let id = APPLICATION_ID.chars().take(APPLICATION_ID_CHARS_MAX);
    ClientOptions {
        user_agent: UserAgentOptions {
            application_id: Some(id.collect()),
        },
        ..ClientOptions::default()
    }
}

/// The text of a connection string's file. A pipe is refused: reading it may take for ever.
pub(crate) fn read_connection_string(path: &Path) -> Result<String, InvalidValue> {
    let text = std::fs::metadata(path).and_then(|found| match found.is_file() {
        true => std::fs::read_to_string(path),
        false => Err(io::Error::other("not a regular file")),
    });
    match text {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}
