//! A Kinesis stream, given by its name or ARN.

use audit_bridge_app::config::InvalidValue;

use super::group::is_region;

/// A stream of Kinesis Data Streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamName {
    pub(crate) name: String,
    /// The ARN, if one was given.
    pub(crate) arn: Option<String>,
    /// The ARN's region.
    pub(crate) region: Option<String>,
    /// The ARN's account, twelve digits.
    pub(crate) account: Option<String>,
}

impl StreamName {
    /// Parses a name or an ARN.
    ///
    /// # Errors
    /// The text is neither.
    pub(crate) fn parse(text: &str) -> Result<StreamName, InvalidValue> {
        let Some(rest) = text.strip_prefix("arn:") else {
            return match is_name(text) {
                true => Ok(StreamName {
                    name: text.to_owned(),
                    arn: None,
                    region: None,
                    account: None,
                }),
                false => Err("is neither a name of a stream (up to 128 letters, digits and . - _) nor an ARN".into()),
            };
        };
        let parts: Vec<&str> = rest.splitn(5, ':').collect();
        let (partition, region, account, name) = match *parts {
            [partition, "kinesis", region, account, resource] => {
                match resource.strip_prefix("stream/") {
                    Some(name) => (partition, region, account, name),
                    None => return Err(NO_ARN.into()),
                }
            }
            _ => return Err(NO_ARN.into()),
        };
        let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        if !partition.starts_with("aws") || !is_region(region) || !is_account || !is_name(name) {
            return Err(NO_ARN.into());
        }
        Ok(StreamName {
            name: name.to_owned(),
            arn: Some(text.to_owned()),
            region: Some(region.to_owned()),
            account: Some(account.to_owned()),
        })
    }

    /// Identifies the stream in checkpoints and log lines; includes the region if that is known
    /// without a request.
    pub(crate) fn key(&self, region: Option<&str>) -> String {
        let parts = [
            self.region.as_deref().or(region),
            self.account.as_deref(),
            Some("kinesis"),
            Some(&self.name),
        ];
        let parts: Vec<&str> = parts.into_iter().flatten().collect();
        parts.join(":")
    }

    /// The ARN, with placeholders for what is unknown, as a policy would name it.
    pub(crate) fn pattern(&self, region: &str) -> String {
        match &self.arn {
            Some(arn) => arn.clone(),
            None => format!(
                "arn:PARTITION:kinesis:{region}:ACCOUNT:stream/{}",
                self.name
            ),
        }
    }
}

const NO_ARN: &str = "is no ARN like arn:aws:kinesis:REGION:ACCOUNT:stream/NAME";

/// Whether Kinesis accepts this name (`CreateStream`, `StreamName`).
fn is_name(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.len() <= 128 && name.chars().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_name_parsed_keeps_what_the_arn_says() {
        let arn = "arn:aws-us-gov:kinesis:us-gov-west-1:123456789012:stream/audit.1";
        let stream = StreamName::parse(arn).unwrap();
        assert_eq!(stream.name, "audit.1");
        assert_eq!(stream.pattern("x-1"), arn);
        assert_eq!(
            stream.key(Some("eu-west-1")),
            "us-gov-west-1:123456789012:kinesis:audit.1"
        );
        let named = StreamName::parse("audit").unwrap();
        assert_eq!(named.key(Some("eu-west-1")), "eu-west-1:kinesis:audit");
        assert_eq!(named.key(None), "kinesis:audit");
    }

    #[test]
    fn stream_name_invalid_is_refused() {
        for wrong in [
            "",
            "a b",
            "a/b",
            "arn:aws:kinesis:eu-west-1:12345:stream/a",
            "arn:aws:kinesis:euwest1:123456789012:stream/a",
            "arn:aws:kinesis:eu-west-1:123456789012:stream/",
            "arn:aws:kinesis:eu-west-1:123456789012:a",
            "arn:aws:logs:eu-west-1:123456789012:stream/a",
        ] {
            assert!(StreamName::parse(wrong).is_err(), "{wrong}");
        }
    }
}
