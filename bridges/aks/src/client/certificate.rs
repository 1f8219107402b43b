//! Authenticates as a service principal with a certificate.
//!
//! The client library's own credential of this kind needs a second TLS stack (OpenSSL), so the
//! assertion is built here: a JWT signed with the certificate's key (Microsoft identity platform,
//! "Application authentication certificate credentials"). The file is read again for each token, so
//! that the certificate can be replaced.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_SHA256, RsaKeyPair};
use azure_core::error::ErrorKind;
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

/// How long an assertion is good, in seconds: it is used at once.
const ASSERTION_SECONDS: i64 = 600;
/// A certificate's file is small; what is larger is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a certificate cannot be used, without quoting its file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
pub struct CertificateError {
    path: PathBuf,
    problem: CertificateProblem,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateProblem {
    #[error("{0}")]
    Unreadable(std::io::Error),
    #[error(
        "is no PEM file; a PFX (PKCS #12) becomes one with: openssl pkcs12 -in FILE -nodes -out \
         certificate.pem"
    )]
    NoPem,
    #[error("is damaged: {0}")]
    Damaged(rustls_pki_types::pem::Error),
    #[error("holds no certificate of its private key")]
    NoCertificate,
    #[error("holds no private key; it must hold the certificate and its key")]
    NoKey,
    #[error(
        "its private key has a password, and is read without one only: openssl pkey -in FILE writes \
         it so; let nobody else read that file"
    )]
    Password,
    #[error("its private key is no RSA key")]
    OtherKey,
    #[error("its private key is no RSA key of 2048 bits or more: {0}")]
    InvalidKey(KeyRejected),
    #[error("its key cannot sign")]
    CannotSign,
    #[error("no random numbers are to be had")]
    NoRandomNumbers,
}

/// Makes assertions of one application in one tenant.
pub(super) struct CertificateAssertion {
    pub(super) path: PathBuf,
    /// Whether the certificates are sent along, which an application needs that trusts an issuer.
    pub(super) send_chain: bool,
    pub(super) client_id: String,
    /// The URL that gives tokens.
    pub(super) audience: String,
}

impl fmt::Debug for CertificateAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAssertion")
            .field("path", &self.path)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// A key, with its certificate first among those of the file.
struct Identity {
    key: RsaKeyPair,
    /// DER.
    certificates: Vec<Vec<u8>>,
}

#[async_trait::async_trait]
impl ClientAssertion for CertificateAssertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        self.assertion(Timestamp::now())
            .map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))
    }
}

impl CertificateAssertion {
    /// A signed assertion.
    ///
    /// # Errors
    /// The file does not serve.
    pub(super) fn assertion(&self, now: Timestamp) -> Result<String, CertificateError> {
        self.sign(now).map_err(|problem| CertificateError {
            path: self.path.clone(),
            problem,
        })
    }

    fn sign(&self, now: Timestamp) -> Result<String, CertificateProblem> {
        let identity = Identity::read(&self.path)?;
        let own = &identity.certificates[0];
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, own));
        let mut header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint});
        if self.send_chain {
            let chain = identity.certificates.iter();
            header["x5c"] = chain.map(|der| STANDARD.encode(der)).collect();
        }
        let mut id = [0; 16];
        fill(&mut id).map_err(|_| CertificateProblem::NoRandomNumbers)?;
        let now = now.as_second();
        let claims = json!({
            "aud": self.audience,
            "iss": self.client_id,
            "sub": self.client_id,
            "jti": URL_SAFE_NO_PAD.encode(id),
            "nbf": now,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; identity.key.public_modulus_len()];
        identity
            .key
            .sign(
                &RSA_PSS_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .map_err(|_| CertificateProblem::CannotSign)?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Identity {
    fn read(path: &Path) -> Result<Identity, CertificateProblem> {
        let bytes = std::fs::metadata(path).and_then(|found| match found.len() {
            _ if !found.is_file() => Err(std::io::Error::other("is no file")),
            0..=FILE_BYTES_MAX => std::fs::read(path),
            _ => Err(std::io::Error::other("is too large to be a certificate")),
        });
        let bytes = bytes.map_err(CertificateProblem::Unreadable)?;
        let text = std::str::from_utf8(&bytes).ok();
        let text = text.filter(|text| text.contains("-----BEGIN "));
        Identity::of(text.ok_or(CertificateProblem::NoPem)?)
    }

    fn of(pem: &str) -> Result<Identity, CertificateProblem> {
        let key = key(pem)?;
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            certificates.push(certificate.map_err(CertificateProblem::Damaged)?.to_vec());
        }
        // A certificate holds its public key in this very form (RFC 3279, RSAPublicKey).
        let public = key.public_key().as_ref();
        let is_own = |der: &Vec<u8>| der.windows(public.len()).any(|part| part == public);
        let own = certificates.iter().position(is_own);
        let own = own.ok_or(CertificateProblem::NoCertificate)?;
        certificates[..=own].rotate_right(1);
        Ok(Identity { key, certificates })
    }
}

/// The private key among these blocks.
fn key(pem: &str) -> Result<RsaKeyPair, CertificateProblem> {
    // PKCS #8 says so in the label, older forms in a header.
    if pem.contains("ENCRYPTED") {
        return Err(CertificateProblem::Password);
    }
    let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(key)) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
        Ok(PrivateKeyDer::Pkcs1(key)) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
        Ok(_) => return Err(CertificateProblem::OtherKey),
        Err(_) => return Err(CertificateProblem::NoKey),
    };
    key.map_err(CertificateProblem::InvalidKey)
}

#[cfg(test)]
mod tests;
