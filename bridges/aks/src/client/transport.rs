//! The transport of AMQP to Event Hubs, and the endpoints for it.

use audit_bridge_app::config::InvalidValue;
use azure_core_amqp::AmqpTransport;

use crate::client::connection_string;

/// What carries AMQP: the terms of Azure's SDKs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// TLS on port 5671.
    #[default]
    AmqpTcp,
    /// WebSockets on port 443, where only that is let out.
    AmqpWebSockets,
}

impl Transport {
    /// Reads its name, as here or as the SDKs spell it (`AmqpWebSockets`).
    ///
    /// # Errors
    /// The names that there are.
    pub fn read(text: &str) -> Result<Transport, InvalidValue> {
        let letters = text.chars().filter(|c| !"-_".contains(*c));
        match letters.collect::<String>().to_ascii_lowercase().as_str() {
            "amqptcp" => Ok(Transport::AmqpTcp),
            "amqpwebsockets" => Ok(Transport::AmqpWebSockets),
            _ => Err("is none of amqp-tcp (port 5671) and amqp-web-sockets (port 443)".into()),
        }
    }

    /// Checks an endpoint: `amqps://HOST[:PORT]`, `wss://HOST[:PORT]` for WebSockets, or `amqp://`
    /// on this machine.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn endpoint(self, text: &str) -> Result<String, InvalidValue> {
        let (scheme, authority) = text.split_once("://").unwrap_or(("", text));
        match (self, scheme) {
            (Transport::AmqpTcp, "wss") => {
                Err("is for WebSockets; set --event-hub-transport amqp-web-sockets too".into())
            }
            (Transport::AmqpWebSockets, "amqp") => Err(
                "has no WebSockets, which are always with TLS; use wss://, or leave \
                 --event-hub-transport out"
                    .into(),
            ),
            (Transport::AmqpWebSockets, "wss") => {
                let checked = connection_string::endpoint(&format!("amqps://{authority}"));
                checked.map(|it| it.replacen("amqps", "wss", 1))
            }
            _ => connection_string::endpoint(text),
        }
    }

    /// The SDK's own.
    pub(super) fn of_sdk(self) -> AmqpTransport {
        match self {
            Transport::AmqpTcp => AmqpTransport::Tcp,
            Transport::AmqpWebSockets => AmqpTransport::WebSocket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_has_the_names_of_the_sdks() {
        for (text, want) in [
            ("amqp-tcp", Some(Transport::AmqpTcp)),
            ("AmqpTcp", Some(Transport::AmqpTcp)),
            ("amqp-web-sockets", Some(Transport::AmqpWebSockets)),
            ("amqpWebSockets", Some(Transport::AmqpWebSockets)),
            ("AMQP_WEB_SOCKETS", Some(Transport::AmqpWebSockets)),
            ("websockets", None),
            ("kafka", None),
        ] {
            assert_eq!(Transport::read(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn transport_endpoint_must_be_one_that_it_reaches() {
        use Transport::{AmqpTcp, AmqpWebSockets};
        for (transport, text, want) in [
            (
                AmqpTcp,
                "amqps://ns.example.com",
                Ok("amqps://ns.example.com"),
            ),
            (AmqpTcp, "amqp://localhost:7", Ok("amqp://localhost:7")),
            (AmqpTcp, "wss://ns.example.com", Err("amqp-web-sockets too")),
            (
                AmqpWebSockets,
                "wss://ns.example.com:8443/",
                Ok("wss://ns.example.com:8443"),
            ),
            (AmqpWebSockets, "amqps://[::1]:443", Ok("amqps://[::1]:443")),
            (AmqpWebSockets, "amqp://localhost:7", Err("always with TLS")),
            (
                AmqpWebSockets,
                "wss://user@ns.example.com",
                Err("must be like"),
            ),
            (
                AmqpWebSockets,
                "https://ns.example.com",
                Err("must be like"),
            ),
        ] {
            match (transport.endpoint(text), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{text}: {got}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }
}
