//! Parses connection strings, and checks endpoints.

use std::net::IpAddr;

use audit_bridge_app::config::InvalidValue;

/// The port of AMQP without TLS.
const PLAIN_PORT: u16 = 5672;

/// The parts of a connection string that name the place. The key stays in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionString {
    /// The namespace's host.
    pub(crate) namespace: String,
    /// The event hub that it is for, if it is for one only.
    pub(crate) entity_path: Option<String>,
    /// The emulator's address, if the string is for the emulator.
    pub(crate) emulator: Option<String>,
}

impl ConnectionString {
    /// Parses a connection string. Errors do not quote its values.
    pub(crate) fn parse(text: &str) -> Result<ConnectionString, InvalidValue> {
        let (mut endpoint, mut entity_path, mut emulator, mut key) = (None, None, false, false);
        for part in text
            .trim()
            .split(';')
            .filter(|part| !part.trim().is_empty())
        {
            let (name, value) = part.trim().split_once('=').ok_or(
                "holds a part without an equals sign; it must be like \
                        Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…",
            )?;
            match name.to_ascii_lowercase().as_str() {
                "endpoint" => endpoint = Some(value),
                "entitypath" => entity_path = Some(value.to_owned()),
                "usedevelopmentemulator" => emulator = value.eq_ignore_ascii_case("true"),
                "sharedaccesskey" | "sharedaccesssignature" => key = !value.is_empty(),
                _ => {}
            }
        }
        let endpoint = endpoint.ok_or("has no Endpoint")?;
        if !key {
            return Err("has neither a SharedAccessKey nor a SharedAccessSignature".into());
        }
        let (_, rest) = endpoint
            .split_once("://")
            .ok_or("has an Endpoint that is not like sb://NAMESPACE.servicebus.windows.net/")?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = host_and_port(authority).ok_or("has an Endpoint without a host")?;
        let emulator = emulator.then(|| {
            format!(
                "amqp://{authority_host}:{port}",
                authority_host = bracketed(host),
                port = port.unwrap_or(PLAIN_PORT)
            )
        });
        Ok(ConnectionString {
            namespace: host.to_owned(),
            entity_path,
            emulator,
        })
    }
}

/// Checks `amqp://HOST:PORT` or `amqps://HOST[:PORT]`; without TLS, this machine only.
pub(crate) fn endpoint(text: &str) -> Result<String, InvalidValue> {
    let wrong = || InvalidValue::from("must be like amqps://HOST:5671");
    let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
    let authority = authority.trim_end_matches('/');
    let (host, port) = host_and_port(authority)
        .filter(|_| !authority.contains(['/', '@', '?', '#']))
        .ok_or_else(wrong)?;
    match scheme {
        "amqps" => {}
        "amqp" if is_loopback(host) => {}
        "amqp" => {
            return Err(
                "without TLS (amqp://) only an endpoint on this machine is accepted; use amqps://"
                    .into(),
            );
        }
        _ => return Err(wrong()),
    }
    let host = bracketed(host);
    Ok(match port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

/// A host, without the brackets of an IPv6 address, and a port.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            authority.split_at(end)
        }
    };
    if host.is_empty() {
        return None;
    }
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port.parse().ok()?))),
        None if rest.is_empty() => Some((host, None)),
        None => None,
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_string_gives_namespace_and_hub() {
        let key = "SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0PT0=";
        for (text, namespace, hub, emulator) in [
            (
                format!("Endpoint=sb://ns.servicebus.windows.net/;{key}"),
                "ns.servicebus.windows.net",
                None,
                None,
            ),
            (
                format!(" endpoint=sb://ns.servicebus.windows.net;{key};EntityPath=hub;\n"),
                "ns.servicebus.windows.net",
                Some("hub"),
                None,
            ),
            (
                format!("Endpoint=sb://localhost;{key};UseDevelopmentEmulator=true;"),
                "localhost",
                None,
                Some("amqp://localhost:5672"),
            ),
            (
                format!("Endpoint=sb://[::1]:7000/;{key};UseDevelopmentEmulator=True"),
                "::1",
                None,
                Some("amqp://[::1]:7000"),
            ),
        ] {
            let read = ConnectionString::parse(&text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(read.namespace, namespace);
            assert_eq!(read.entity_path.as_deref(), hub);
            assert_eq!(read.emulator.as_deref(), emulator);
        }
    }

    #[test]
    fn connection_string_invalid_is_refused_without_showing_the_key() {
        for text in [
            "",
            "hello",
            "Endpoint=sb://ns/",
            "SharedAccessKey=topsecret",
            "Endpoint=ns.servicebus.windows.net;SharedAccessKey=topsecret",
            "Endpoint=sb://:77/;SharedAccessKey=topsecret",
            "Endpoint=sb://ns/;topsecret",
        ] {
            let why = ConnectionString::parse(text).expect_err(text);
            assert!(!why.to_string().contains("topsecret"), "{why}");
        }
    }

    #[test]
    fn connection_string_plain_endpoint_is_loopback_only() {
        for (text, want) in [
            ("amqps://ns.example.com", Ok("amqps://ns.example.com")),
            (
                "amqps://ns.example.com:5671/",
                Ok("amqps://ns.example.com:5671"),
            ),
            ("amqp://127.0.0.1:5672", Ok("amqp://127.0.0.1:5672")),
            ("amqp://[::1]:5672", Ok("amqp://[::1]:5672")),
            ("amqp://localhost", Ok("amqp://localhost")),
            ("amqp://10.0.0.1:5672", Err("without TLS")),
            ("amqp://localhost.example.com", Err("without TLS")),
            ("amqp://user:secret@localhost", Err("must be like")),
            ("https://ns.example.com", Err("must be like")),
            ("ns.example.com", Err("must be like")),
            ("amqps://", Err("must be like")),
            ("amqps://ns:port", Err("must be like")),
        ] {
            match (endpoint(text), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{text}: {got}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }
}
