//! The user's settings of the webhook, and the HTTP client built from them.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, Url};

use super::failure::connect_time;

/// Idle connections kept for the next POST: more than the batches in flight are of no use.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// Shorter than the idle timeout of common load balancers (60 s and more), so that a POST seldom
/// uses a connection that the other side is closing.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// Detects a peer that vanished without closing its connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

#[derive(Clone)]
pub struct WebhookSettings {
    /// Where to POST (`--webhook-url`).
    pub url: String,
    /// Certificate authorities to trust besides the system's, PEM (`--webhook-ca-file`).
    pub ca_file: Option<PathBuf>,
    /// Trust no other authorities (`--webhook-ca-only`).
    pub ca_only: bool,
    /// The client certificate for mutual TLS, PEM (`--webhook-client-cert-file`).
    pub client_cert_file: Option<PathBuf>,
    /// Its key, PEM (`--webhook-client-key-file`).
    pub client_key_file: Option<PathBuf>,
    /// The bearer token, read again before each POST (`--webhook-token-file`).
    pub token_file: Option<PathBuf>,
    /// The limit for a whole exchange, from connecting to the answer (`--webhook-timeout`).
    pub timeout: Duration,
    /// The `User-Agent` header.
    pub user_agent: String,
}

impl WebhookSettings {
    /// The default of `--webhook-timeout`.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// The given URL with defaults for everything else.
    pub fn new(url: impl Into<String>) -> WebhookSettings {
        WebhookSettings {
            url: url.into(),
            ca_file: None,
            ca_only: false,
            client_cert_file: None,
            client_key_file: None,
            token_file: None,
            timeout: WebhookSettings::TIMEOUT,
            user_agent: concat!("audit-bridge/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// A warning about usable settings: a token that anybody on the way can read.
    pub fn warning(&self) -> Option<&'static str> {
        let url = Url::parse(&self.url).ok()?;
        let stays_here = match url.host_str()? {
            "localhost" => true,
            host => host
                .trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback()),
        };
        (self.token_file.is_some() && url.scheme() == "http" && !stays_here).then_some(
            "the bearer token of --webhook-token-file goes to another machine over plain http, \
             where everybody on the way can read it: use https, or mutual TLS",
        )
    }
}

// A URL's query may hold a secret, so it is not shown.
impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = Url::parse(&self.url).map(|url| url.origin().ascii_serialization());
        f.debug_struct("WebhookSettings")
            .field("origin", &origin.ok())
            .field("ca_file", &self.ca_file)
            .field("ca_only", &self.ca_only)
            .field("client_cert_file", &self.client_cert_file)
            .field("client_key_file", &self.client_key_file)
            .field("token_file", &self.token_file)
            .field("timeout", &self.timeout)
            .field("user_agent", &self.user_agent)
            .finish()
    }
}

impl WebhookSettings {
    /// What is wrong with the content of its certificate files, all at once. [`Webhook::new`]
    /// reports the first.
    ///
    /// [`Webhook::new`]: super::Webhook::new
    pub fn wrong_files(&self) -> Vec<WebhookError> {
        let ca = self.ca_file.as_ref().map(|path| {
            let pem = read(CA_FLAG, path)?;
            authorities(path, &pem).map(drop)
        });
        let client = self
            .client_cert_file
            .as_ref()
            .zip(self.client_key_file.as_ref());
        let client = client.map(|(cert, key)| {
            let (cert, key) = (read(CERT_FLAG, cert)?, read(KEY_FLAG, key)?);
            identity(self, &cert, &key).map(drop)
        });
        let results = [ca, client].into_iter().flatten();
        results.filter_map(Result::err).collect()
    }
}

/// Why no webhook can be made of these settings.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The URL, with advice.
    #[error("--webhook-url: {0}")]
    Url(UrlError),
    /// A file that cannot be read.
    #[error("{flag}: {} cannot be read", path.display())]
    Unreadable {
        /// The setting that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file with the wrong content.
    #[error("{flag}: {} {problem}", path.display())]
    Unusable {
        /// The setting that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong and what the file should hold.
        problem: &'static str,
    },
    /// Only one of two settings that belong together.
    #[error("{given} needs {missing} too")]
    Half {
        /// The setting that is given.
        given: &'static str,
        /// The setting that is missing.
        missing: &'static str,
    },
    /// The HTTP client cannot be built.
    #[error(
        "the http client cannot be made; if the system has no certificate authorities, name some \
         with --webhook-ca-file or SSL_CERT_FILE"
    )]
    Client(#[source] reqwest::Error),
}

const CA_ONLY_FLAG: &str = "--webhook-ca-only";
const CA_FLAG: &str = "--webhook-ca-file";
const CERT_FLAG: &str = "--webhook-client-cert-file";
const KEY_FLAG: &str = "--webhook-client-key-file";

/// What is wrong with a webhook's URL and what to do, without quoting any secret in it.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It cannot be parsed.
    #[error("not a url ({0}): give it whole, like https://host:port/path")]
    Malformed(String),
    /// The scheme is not of HTTP.
    #[error("the scheme is {0:?}: it must be http or https")]
    Scheme(String),
    /// It names no host.
    #[error("it has no host")]
    NoHost,
    /// It holds a user or a password.
    #[error(
        "it holds credentials, which would show in logs and process lists: put a token in a file and \
         name it with --webhook-token-file (AUDIT_BRIDGE_WEBHOOK_TOKEN_FILE)"
    )]
    Credentials,
    /// It has a fragment, which clients never send.
    #[error("it has a fragment (#…), which no server ever sees: remove it")]
    Fragment,
}

/// Parses a webhook's URL.
///
/// # Errors
/// Events cannot be sent to the URL.
pub fn parse_url(text: &str) -> Result<Url, UrlError> {
    let url = Url::parse(text.trim()).map_err(|error| UrlError::Malformed(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlError::Scheme(url.scheme().to_owned()));
    }
    if !url.has_host() {
        return Err(UrlError::NoHost);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Credentials);
    }
    if url.fragment().is_some() {
        return Err(UrlError::Fragment);
    }
    Ok(url)
}

/// The content of the certificate files.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TlsFiles {
    ca: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

// Hides the contents, which include a private key.
impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}

impl TlsFiles {
    /// As [`TlsFiles::read`], but never waits, as reading a pipe may.
    pub(super) fn read_again(settings: &WebhookSettings) -> Result<TlsFiles, WebhookError> {
        let files = [
            (CA_FLAG, &settings.ca_file),
            (CERT_FLAG, &settings.client_cert_file),
            (KEY_FLAG, &settings.client_key_file),
        ];
        for (flag, path) in files {
            if let Some(path) = path {
                regular(path).map_err(|source| unreadable(flag, path, source))?;
            }
        }
        TlsFiles::read(settings)
    }

    pub(super) fn read(settings: &WebhookSettings) -> Result<TlsFiles, WebhookError> {
        let ca = match &settings.ca_file {
            Some(path) => Some(read(CA_FLAG, path)?),
            None => None,
        };
        let client = match (&settings.client_cert_file, &settings.client_key_file) {
            (Some(cert), Some(key)) => Some((read(CERT_FLAG, cert)?, read(KEY_FLAG, key)?)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(WebhookError::Half {
                    given: CERT_FLAG,
                    missing: KEY_FLAG,
                });
            }
            (None, Some(_)) => {
                return Err(WebhookError::Half {
                    given: KEY_FLAG,
                    missing: CERT_FLAG,
                });
            }
        };
        Ok(TlsFiles { ca, client })
    }
}

pub(super) fn client(
    settings: &WebhookSettings,
    url: &Url,
    files: &TlsFiles,
) -> Result<Client, WebhookError> {
    let mut builder = Client::builder()
        .user_agent(&settings.user_agent)
        .timeout(settings.timeout)
        .connect_timeout(connect_time(settings.timeout))
        .redirect(Policy::none())
        .referer(false)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(IDLE_MAX)
        .tcp_nodelay(true)
        .tcp_keepalive(KEEPALIVE);
    let extra_roots = match (&settings.ca_file, &files.ca) {
        (Some(path), Some(pem)) => authorities(path, pem)?,
        _ if settings.ca_only => {
            return Err(WebhookError::Half {
                given: CA_ONLY_FLAG,
                missing: CA_FLAG,
            });
        }
        _ => Vec::new(),
    };
    builder = if settings.ca_only || (url.scheme() == "http" && extra_roots.is_empty()) {
        // An image without certificate authorities must not fail when they are never needed.
        builder.tls_certs_only(extra_roots)
    } else {
        builder.tls_certs_merge(extra_roots)
    };
    if let Some((cert, key)) = &files.client {
        builder = builder.identity(identity(settings, cert, key)?);
    }
    builder.build().map_err(WebhookError::Client)
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, WebhookError> {
    std::fs::read(path).map_err(|source| unreadable(flag, path, source))
}

/// Refuses what is no regular file: reading it may take for ever.
pub(super) fn regular(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path)?.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("not a regular file")),
    }
}

fn unreadable(flag: &'static str, path: &Path, source: io::Error) -> WebhookError {
    WebhookError::Unreadable {
        flag,
        path: path.to_owned(),
        source,
    }
}

fn unusable(flag: &'static str, path: &Path, problem: &'static str) -> WebhookError {
    WebhookError::Unusable {
        flag,
        path: path.to_owned(),
        problem,
    }
}

fn authorities(path: &Path, pem: &[u8]) -> Result<Vec<Certificate>, WebhookError> {
    match Certificate::from_pem_bundle(pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(unusable(
            CA_FLAG,
            path,
            "holds no certificate: it must be pem, with -----BEGIN CERTIFICATE-----",
        )),
    }
}

fn identity(settings: &WebhookSettings, cert: &[u8], key: &[u8]) -> Result<Identity, WebhookError> {
    const MARK: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let named = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
    if memchr::memmem::find(cert, MARK).is_none() {
        return Err(unusable(
            CERT_FLAG,
            &named(&settings.client_cert_file),
            "holds no certificate: it must be pem, with -----BEGIN CERTIFICATE-----",
        ));
    }
    let pem = [cert, b"\n", key].concat();
    Identity::from_pem(&pem).map_err(|_| {
        unusable(
            KEY_FLAG,
            &named(&settings.client_key_file),
            "holds no key that can be used: it must be pem, not encrypted, with -----BEGIN \
             PRIVATE KEY-----, and belong to the client certificate",
        )
    })
}
