use std::io::Write as _;

use audit_bridge_testkit::tls::{Pair, rsa_pair};
use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

use super::*;

const AUDIENCE: &str = "https://login.microsoftonline.com/t/oauth2/v2.0/token";

fn file(content: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_ref()).unwrap();
    file
}

fn of(file: &tempfile::NamedTempFile) -> CertificateAssertion {
    CertificateAssertion {
        path: file.path().to_owned(),
        send_chain: false,
        client_id: "application".to_owned(),
        audience: AUDIENCE.to_owned(),
    }
}

fn der(pem: &str) -> Vec<u8> {
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(key) => key.secret_der().to_vec(),
        Err(_) => CertificateDer::from_pem_slice(pem.as_bytes())
            .unwrap()
            .to_vec(),
    }
}

fn json(part: &str) -> serde_json::Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The header and the claims, after verifying the signature with the pair's key.
fn verified(assertion: &str, pair: &Pair) -> (serde_json::Value, serde_json::Value) {
    let (text, signature) = assertion.rsplit_once('.').unwrap();
    let key = RsaKeyPair::from_pkcs8(&der(&pair.key_pem)).unwrap();
    let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.public_key().as_ref());
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    key.verify(text.as_bytes(), &signature).unwrap();
    let (header, claims) = text.split_once('.').unwrap();
    (json(header), json(claims))
}

#[test]
fn assertion_is_signed_by_the_key_of_the_certificate() {
    let (pair, other) = (rsa_pair(), rsa_pair());
    let [key, cert] = [&pair.key_pem, &pair.cert_pem];
    let now = Timestamp::from_second(1_760_000_000).unwrap();
    // In any order, with bags' attributes between, and with an authority's certificate.
    for content in [
        format!("{key}{cert}"),
        format!("{cert}{key}"),
        format!(
            "Bag Attributes\n  localKeyID: 01\n{cert}{}\n{key}",
            other.cert_pem
        ),
        format!("{}{key}{cert}", other.cert_pem),
        format!("{key}{cert}").replace('\n', "\r\n"),
    ] {
        let file = file(&content);
        let mut assertion = of(&file);
        let (header, claims) = verified(&assertion.assertion(now).unwrap(), &pair);
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, &der(cert)));
        assert_eq!(header["alg"], "PS256");
        assert_eq!(header["x5t#S256"], thumbprint.as_str());
        assert_eq!(header["x5c"], serde_json::Value::Null);
        assert_eq!(claims["aud"], AUDIENCE);
        assert_eq!(claims["iss"], "application");
        assert_eq!(claims["sub"], "application");
        assert_eq!(claims["nbf"], 1_760_000_000);
        assert_eq!(claims["exp"], 1_760_000_600);
        assertion.send_chain = true;
        let again = assertion.assertion(now).unwrap();
        let (header, next) = verified(&again, &pair);
        assert_eq!(header["x5c"][0], STANDARD.encode(der(cert)).as_str());
        assert_ne!(claims["jti"], next["jti"], "each is good once");
    }
}

#[test]
fn certificate_file_unusable_is_named_with_remedy_and_without_content() {
    let (pair, other) = (rsa_pair(), rsa_pair());
    let Pair { cert_pem, key_pem } = &pair;
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old = key_pem.replacen(
        '\n',
        "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0\n\n",
        1,
    );
    for (content, says) in [
        (String::new(), "openssl pkcs12"),
        ("\u{0}\u{1}".to_owned(), "openssl pkcs12"),
        (cert_pem.clone(), "holds no private key"),
        (key_pem.clone(), "holds no certificate of its private key"),
        (
            format!("{key_pem}{}", other.cert_pem),
            "holds no certificate of",
        ),
        (format!("{encrypted}{cert_pem}"), "openssl pkey"),
        (format!("{old}{cert_pem}"), "openssl pkey"),
        (
            format!("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n{cert_pem}"),
            "no RSA key",
        ),
    ] {
        let file = file(&content);
        let error = of(&file)
            .assertion(Timestamp::now())
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert!(
            error.starts_with(&file.path().display().to_string()),
            "{error}"
        );
        assert!(!error.contains("MII") && error.len() < 400, "{error}");
    }
    let missing = CertificateAssertion {
        path: "/does/not/exist.pem".into(),
        ..of(&file(""))
    };
    let error = missing.assertion(Timestamp::now()).unwrap_err().to_string();
    assert!(error.starts_with("/does/not/exist.pem: "), "{error}");
    let folder = CertificateAssertion {
        path: std::env::temp_dir(),
        ..missing
    };
    let error = folder.assertion(Timestamp::now()).unwrap_err().to_string();
    assert!(error.contains("is no file"), "{error}");
}
