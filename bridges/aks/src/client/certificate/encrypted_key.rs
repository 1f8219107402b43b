//! A private key with a password: PKCS #8 with PBES2 (RFC 5958, RFC 8018), as OpenSSL writes it.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_128, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;

const OCTETS: u8 = 0x04;
const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// 1.2.840.113549.1.5.13
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
/// 1.2.840.113549.1.5.12
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
/// 1.2.840.113549.2.9, the one that OpenSSL takes.
const HMAC_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09];
/// 2.16.840.1.101.3.4.1.2
const AES_128_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x02];
/// 2.16.840.1.101.3.4.1.42
const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
/// More would keep the bridge from its work for seconds.
const ITERATIONS_MAX: u64 = 10_000_000;

/// What an `ENCRYPTED PRIVATE KEY` says of itself.
struct Encrypted<'a> {
    salt: &'a [u8],
    iterations: NonZeroU32,
    cipher: &'static Algorithm,
    key_bytes: usize,
    iv: [u8; 16],
    data: &'a [u8],
}

/// The key in the clear (PKCS #8).
///
/// # Errors
/// It is encrypted in another way, or with another password.
pub(super) fn decrypt(der: &[u8], password: &[u8]) -> Result<Vec<u8>, String> {
    let encrypted = read(der).ok_or(
        "its private key is encrypted in another way than PBES2 with PBKDF2, HMAC-SHA-256 and AES-CBC; \
         write it anew with: openssl pkcs8 -topk8",
    )?;
    let mut key = vec![0; encrypted.key_bytes];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        encrypted.iterations,
        encrypted.salt,
        password,
        &mut key,
    );
    let wrong = |_| "AZURE_CLIENT_CERTIFICATE_PASSWORD is not the password of its private key";
    let key = UnboundCipherKey::new(encrypted.cipher, &key).map_err(wrong)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(wrong)?;
    let mut data = encrypted.data.to_vec();
    let context = DecryptionContext::Iv128(FixedLength::from(encrypted.iv));
    let clear = key.decrypt(&mut data, context).map_err(wrong)?;
    Ok(clear.to_vec())
}

fn read(der: &[u8]) -> Option<Encrypted<'_>> {
    let mut whole = Der(Der(der).take(SEQUENCE)?);
    let mut algorithm = Der(whole.take(SEQUENCE)?);
    let data = whole.take(OCTETS)?;
    (algorithm.take(OBJECT_IDENTIFIER)? == PBES2).then_some(())?;
    let mut parameters = Der(algorithm.take(SEQUENCE)?);
    let mut derivation = Der(parameters.take(SEQUENCE)?);
    let mut scheme = Der(parameters.take(SEQUENCE)?);
    (derivation.take(OBJECT_IDENTIFIER)? == PBKDF2).then_some(())?;
    let mut derivation = Der(derivation.take(SEQUENCE)?);
    let salt = derivation.take(OCTETS)?;
    let iterations = number(derivation.take(INTEGER)?).filter(|it| *it <= ITERATIONS_MAX)?;
    // The length of the key may be said; that of the cipher counts.
    let _ = derivation.take(INTEGER);
    let mut function = Der(derivation.take(SEQUENCE)?);
    (function.take(OBJECT_IDENTIFIER)? == HMAC_SHA256).then_some(())?;
    let (cipher, key_bytes) = match scheme.take(OBJECT_IDENTIFIER)? {
        AES_128_CBC => (&AES_128, 16),
        AES_256_CBC => (&AES_256, 32),
        _ => return None,
    };
    Some(Encrypted {
        salt,
        iterations: NonZeroU32::new(u32::try_from(iterations).ok()?)?,
        cipher,
        key_bytes,
        iv: scheme.take(OCTETS)?.try_into().ok()?,
        data,
    })
}

fn number(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| {
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    })
}

/// The rest of a DER structure.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next element, if it is of this kind.
    fn take(&mut self, kind: u8) -> Option<&'a [u8]> {
        let (&[found, first], rest) = self.0.split_first_chunk()?;
        (found == kind).then_some(())?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (usize::try_from(number(length)?).ok()?, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }
}
