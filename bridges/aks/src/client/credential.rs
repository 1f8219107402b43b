//! Who we are towards Event Hubs: an identity of Microsoft Entra, or a shared access key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::{ClientOptions, UserAgentOptions};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};

/// What the SDK puts before its own user agent: at most so many characters, of which `/` is none.
const APPLICATION_ID: &str = concat!("aks-audit-bridge-", env!("CARGO_PKG_VERSION"));
const APPLICATION_ID_CHARS_MAX: usize = 24;

/// What is shown to Event Hubs.
#[derive(Clone)]
pub enum Credential {
    /// Tokens of an identity, which it caches and renews.
    Identity {
        /// How the identity is proved.
        kind: IdentityKind,
        /// Who gives the tokens.
        tokens: Arc<dyn TokenCredential>,
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
    /// By the machine's metadata service.
    ManagedIdentity,
}

impl IdentityKind {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            IdentityKind::WorkloadIdentity => "workload identity",
            IdentityKind::ClientSecret => "client secret",
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

impl Credential {
    /// The identity that the environment names: Workload Identity where its webhook left a token
    /// file, a client secret where there is one, else the managed identity of the machine.
    ///
    /// # Errors
    /// What is missing in the environment.
    pub fn from_environment() -> Result<Credential, String> {
        let variable = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let (kind, tokens): (_, azure_core::Result<Arc<dyn TokenCredential>>) =
            if variable("AZURE_FEDERATED_TOKEN_FILE").is_some() {
                let options = WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions {
                        client_options: client_options(),
                    },
                    ..WorkloadIdentityCredentialOptions::default()
                };
                let tokens = WorkloadIdentityCredential::new(Some(options));
                (IdentityKind::WorkloadIdentity, tokens.map(|it| it as _))
            } else if let Some(secret) = variable("AZURE_CLIENT_SECRET") {
                let (Some(tenant), Some(client)) =
                    (variable("AZURE_TENANT_ID"), variable("AZURE_CLIENT_ID"))
                else {
                    return Err(
                        "AZURE_CLIENT_SECRET is set, but AZURE_TENANT_ID or AZURE_CLIENT_ID is not"
                            .to_owned(),
                    );
                };
                let secret = Secret::new(secret);
                let options = ClientSecretCredentialOptions {
                    client_options: client_options(),
                };
                let tokens = ClientSecretCredential::new(&tenant, client, secret, Some(options));
                (IdentityKind::ClientSecret, tokens.map(|it| it as _))
            } else {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: variable("AZURE_CLIENT_ID").map(UserAssignedId::ClientId),
                    client_options: client_options(),
                };
                let tokens = ManagedIdentityCredential::new(Some(options));
                (IdentityKind::ManagedIdentity, tokens.map(|it| it as _))
            };
        match tokens {
            Ok(tokens) => Ok(Credential::Identity { kind, tokens }),
            Err(error) => Err(format!("{}: {error}", kind.name())),
        }
    }

    /// How we show who we are, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Credential::Identity { kind, .. } => kind.name(),
            Credential::ConnectionStringFile(_) => "connection string",
        }
    }
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

/// The text of a connection string's file.
pub(crate) fn read_connection_string(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}
