//! The blocks of a PEM file (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What stands between two of its lines of dashes.
pub(super) struct PemBlock {
    /// `CERTIFICATE`, `PRIVATE KEY` and the like.
    pub(super) label: String,
    pub(super) der: Vec<u8>,
    /// It has headers that say that it is encrypted (RFC 1421).
    pub(super) encrypted_headers: bool,
}

/// All blocks whose content is base64; text around them is for people.
pub(super) fn blocks(text: &str) -> Vec<PemBlock> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let label = line.strip_prefix("-----BEGIN ");
        let Some(label) = label.and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let inside: Vec<_> = lines.by_ref().take_while(|line| *line != end).collect();
        let encrypted_headers = inside.iter().any(|line| line.starts_with("Proc-Type:"));
        let base64: String = inside
            .into_iter()
            .filter(|line| !line.contains(':'))
            .collect();
        if let Ok(der) = STANDARD.decode(base64) {
            blocks.push(PemBlock {
                label: label.to_owned(),
                der,
                encrypted_headers,
            });
        }
    }
    blocks
}
