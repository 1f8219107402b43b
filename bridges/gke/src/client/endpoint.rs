//! Where an API is: Google's own address, or the one that a setting names.

use reqwest::Url;

/// The base of an API's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Without a slash at its end.
    pub(crate) url: String,
    /// Not encrypted, so on this machine: no credentials of the outside world go there.
    pub(crate) plain: bool,
}

impl Endpoint {
    /// Google's own address of an API.
    pub(crate) fn google(host: &str) -> Endpoint {
        Endpoint {
            url: format!("https://{host}"),
            plain: false,
        }
    }

    /// Reads a setting: `https://` anywhere, `http://` on the loopback interface only.
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn read(text: &str) -> Result<Endpoint, String> {
        let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold credentials".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must not hold a query or a fragment".to_owned());
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
            _ => return Err("must begin with https://".to_owned()),
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
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
