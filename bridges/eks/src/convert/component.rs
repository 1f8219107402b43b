//! Recognises the log lines of other control plane components, which share the log group, by their
//! text where the stream is unknown.

/// Whether a message is such a log line: klog (API server, scheduler, controller managers) or
/// logfmt (authenticator).
pub(crate) fn is_log_line(message: &str) -> bool {
    is_klog(message) || message.starts_with("time=\"")
}

/// `I0520 05:24:43.888087      11 file.go:152] …` (k8s.io/klog).
fn is_klog(line: &str) -> bool {
    let digits = |from: usize, to: usize| {
        line.get(from..to)
            .is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    line.starts_with(['I', 'W', 'E', 'F'])
        && digits(1, 5)
        && line.get(5..6) == Some(" ")
        && digits(6, 8)
        && line.get(8..9) == Some(":")
}

/// Whether a message looks like part of the log group: a component's log line or an audit event.
pub(crate) fn is_known(message: &str) -> bool {
    is_log_line(message)
        || (message.trim_ascii_start().starts_with('{')
            && (message.contains("\"auditID\"") || message.contains("audit.k8s.io/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn component_log_line_is_recognised_by_its_start() {
        for (text, want) in [
            ("I0520 05:24:43.888087      11 a.go:152] Skip", true),
            ("E1231 23:59:59.000001       1 b.go:1] x", true),
            (
                "time=\"2022-10-07T18:10:46Z\" level=info msg=\"access granted\"",
                true,
            ),
            ("I0520 5:24:43", false),
            ("Info: all is well", false),
            ("{\"kind\":\"Event\"}", false),
            ("Iü0520 05:24:43", false),
            ("", false),
        ] {
            assert_eq!(is_log_line(text), want, "{text}");
        }
    }
}
