//! A log group, given by its name or by an ARN, which may name another account or region.

use std::fmt;

/// A log group of CloudWatch Logs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogGroupName {
    pub name: String,
    /// Set if the group was given as an ARN.
    pub place: Option<ArnScope>,
}

/// The parts of a log group's ARN besides its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArnScope {
    /// `aws`, `aws-cn`, `aws-us-gov`.
    pub partition: String,
    pub region: String,
    /// The account that owns the group, twelve digits.
    pub account: String,
}

impl LogGroupName {
    /// A group of the caller's account and region.
    pub fn named(name: impl Into<String>) -> LogGroupName {
        LogGroupName {
            name: name.into(),
            place: None,
        }
    }

    /// Parses a name or an ARN, with or without the `:*` at its end.
    ///
    /// # Errors
    /// The text is neither.
    pub fn parse(text: &str) -> Result<LogGroupName, &'static str> {
        let Some(rest) = text.strip_prefix("arn:") else {
            return match is_name(text) {
                true => Ok(LogGroupName::named(text)),
                false => Err(
                    "is neither a name of a log group (up to 512 letters, digits and . - _ / #) \
                     nor an ARN",
                ),
            };
        };
        let parts: Vec<&str> = rest.splitn(6, ':').collect();
        let [partition, "logs", region, account, "log-group", name] = *parts else {
            return Err("is no ARN like arn:aws:logs:REGION:ACCOUNT:log-group:NAME");
        };
        let name = name.strip_suffix(":*").unwrap_or(name);
        let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        if !partition.starts_with("aws") || !is_region(region) || !is_account || !is_name(name) {
            return Err("is no ARN like arn:aws:logs:REGION:ACCOUNT:log-group:NAME");
        }
        Ok(LogGroupName {
            name: name.to_owned(),
            place: Some(ArnScope {
                partition: partition.to_owned(),
                region: region.to_owned(),
                account: account.to_owned(),
            }),
        })
    }

    /// Identifies the group in positions and log lines, unique over all regions.
    pub fn key(&self, region: &str) -> String {
        match &self.place {
            Some(place) => format!("{}:{}:{}", place.region, place.account, self.name),
            None => format!("{region}:{}", self.name),
        }
    }
}

/// The name, or the ARN in the form that the API expects: without the `:*`.
impl fmt::Display for LogGroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            let ArnScope {
                partition,
                region,
                account,
            } = place;
            write!(f, "arn:{partition}:logs:{region}:{account}:log-group:")?;
        }
        f.write_str(&self.name)
    }
}

/// Whether the text has the form of an AWS region.
pub(crate) fn is_region(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= 32 && text.contains('-') && text.chars().all(inside)
}

/// Whether CloudWatch Logs accepts this name (`CreateLogGroup`, `logGroupName`).
fn is_name(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "._/#-".contains(c);
    !name.is_empty() && name.len() <= 512 && name.chars().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_group_name_or_arn_survives_a_round_trip() {
        let arn = "arn:aws-us-gov:logs:us-gov-west-1:123456789012:log-group:/aws/eks/a/cluster";
        for text in ["/aws/eks/a/cluster", "own.group#1", arn] {
            assert_eq!(LogGroupName::parse(text).unwrap().to_string(), text);
        }
        let starred = LogGroupName::parse(&format!("{arn}:*")).unwrap();
        assert_eq!(starred.to_string(), arn);
        let key = "us-gov-west-1:123456789012:/aws/eks/a/cluster";
        assert_eq!(starred.key("eu-west-1"), key);
        assert_eq!(LogGroupName::named("g").key("eu-west-1"), "eu-west-1:g");
    }

    #[test]
    fn log_group_invalid_is_refused() {
        for wrong in [
            "",
            "/aws/eks/*/cluster",
            "arn:aws:logs:eu-west-1:12345:log-group:g",
            "arn:aws:s3:eu-west-1:123456789012:log-group:g",
            "arn:aws:logs:euwest1:123456789012:log-group:g",
            "arn:aws:logs:eu-west-1:123456789012:log-group:",
            "arn:aws:logs:eu-west-1:123456789012:log-group:g:log-stream:s",
        ] {
            assert!(LogGroupName::parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "eu", "EU-central-1", "eu central-1", "https://x-1"] {
            assert!(!is_region(wrong), "{wrong}");
        }
    }
}
