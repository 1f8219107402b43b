//! The address of an API: Google's own, or one from the settings.

use audit_bridge_app::config::InvalidValue;
use reqwest::Url;

/// The base URL of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Without a trailing slash.
    pub(crate) url: String,
    /// Whether the connection is not encrypted. Such an endpoint is on this machine, and gets no
    /// real credentials.
    pub(crate) plain: bool,
}

impl Endpoint {
    pub(crate) fn google(host: &str) -> Endpoint {
        Endpoint {
            url: format!("https://{host}"),
            plain: false,
        }
    }

    /// Parses a setting: `https://` to any host, `http://` to the loopback interface only.
    ///
    /// # Errors
    /// The text is neither.
    pub(crate) fn read(text: &str) -> Result<Endpoint, InvalidValue> {
        let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold credentials".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must not hold a query or a fragment".into());
        }
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = address == "localhost"
            || address
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        let plain = match url.scheme() {
            "https" if !host.is_empty() => false,
            "http" if loopback => true,
            "http" => return Err("must be https:// unless it is on the loopback interface".into()),
            _ => return Err("must begin with https://".into()),
        };
        Ok(Endpoint {
            url: url.as_str().trim_end_matches('/').to_owned(),
            plain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_plain_http_is_loopback_only() {
        for (text, url, plain) in [
            (
                "https://logging.example.com/",
                "https://logging.example.com",
                false,
            ),
            (
                "https://10.0.0.7:8443/base/",
                "https://10.0.0.7:8443/base",
                false,
            ),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", true),
            ("http://[::1]:80/", "http://[::1]", true),
            ("http://localhost:1", "http://localhost:1", true),
        ] {
            let url = url.to_owned();
            assert_eq!(Endpoint::read(text), Ok(Endpoint { url, plain }), "{text}");
        }
        for text in [
            "http://10.0.0.7",
            "http://localhost.example.com",
            "logging.example.com",
            "ftp://127.0.0.1",
            "https://user:secret@example.com",
            "https://example.com/?a=b",
            "",
        ] {
            let error = Endpoint::read(text).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
