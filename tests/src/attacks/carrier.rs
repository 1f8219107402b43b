//! The providers' records that carry an event, and where the providers cut it.

/// The mark at the end of a message that EKS has cut.
const EKS_MARK: &str = "[Truncated...]";
/// EKS's limit in bytes.
pub const EKS_BYTES_MAX: usize = 262_144 - EKS_MARK.len();
/// AKS's limits in UTF-16 units.
pub const AKS_UNITS_MAX: [usize; 2] = [16 << 10, 32 << 10];

/// A record's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A CloudWatch event.
    Eks,
    /// A record of a diagnostic setting.
    Aks,
    /// A bare event, given to this bridge.
    Plain(&'static str),
}

impl Carrier {
    /// The bridge that reads it.
    pub fn bridge(self) -> &'static str {
        match self {
            Carrier::Eks => "eks",
            Carrier::Aks => "aks",
            Carrier::Plain(bridge) => bridge,
        }
    }

    /// Its name in a batch's name.
    pub fn name(self) -> String {
        match self {
            Carrier::Plain(bridge) => format!("plain event to {bridge}"),
            other => other.bridge().to_owned(),
        }
    }

    /// A record with this event.
    pub fn record(self, event: &[u8]) -> Vec<u8> {
        match self {
            Carrier::Eks => cloudwatch(&quoted(event)),
            Carrier::Aks => diagnostic(&quoted(event), "SHOP-PROD", "kube-audit"),
            Carrier::Plain(_) => event.to_vec(),
        }
    }
}

/// A CloudWatch event with this JSON string as its message.
pub fn cloudwatch(message: &[u8]) -> Vec<u8> {
    [
        br#"{"logStreamName":"kube-apiserver-audit-0123456789abcdef0123456789abcdef","timestamp":1795255200000,"message":"#,
        message,
        br#","ingestionTime":1795255201000,"eventId":"38000000000000000000000000000000000000000000000000000000"}"#,
    ]
    .concat()
}

/// A record of a diagnostic setting with this JSON string as its log.
pub fn diagnostic(log: &[u8], cluster: &str, category: &str) -> Vec<u8> {
    let head = format!(
        r#"{{"category":"{category}","operationName":"Microsoft.ContainerService/managedClusters/diagnosticLogs/Read","properties":{{"log":"#
    );
    let tail = format!(
        r#","stream":"stdout","pod":"kube-apiserver-0"}},"resourceId":"/SUBSCRIPTIONS/0/RESOURCEGROUPS/SHOP/PROVIDERS/MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/{cluster}","time":"2026-11-21T10:00:00.5000000Z"}}"#
    );
    [head.as_bytes(), log, tail.as_bytes()].concat()
}

/// The event as cut by EKS.
pub fn cut_by_eks(event: &[u8]) -> Vec<u8> {
    let mut cut = event[..event.len().min(EKS_BYTES_MAX)].to_vec();
    cut.extend_from_slice(EKS_MARK.as_bytes());
    cut
}

/// The event as cut by AKS; for ASCII text a unit is a byte.
pub fn cut_by_aks(event: &[u8], units_max: usize) -> Vec<u8> {
    event[..event.len().min(units_max)].to_vec()
}

/// The bytes as a JSON string; invalid UTF-8 stays unchanged.
pub fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 8 + 2);
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
    out
}
