//! The cluster that a log group belongs to, and the clusters that the user selects.

use std::fmt;

/// A cluster's name, in one account or in any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterName {
    /// Twelve digits; `None`: any.
    pub account: Option<String>,
    pub name: String,
}

/// Problem text for an invalid cluster name.
pub(crate) const NO_CLUSTER: &str = "is no name of an EKS cluster: up to 100 letters, digits, dashes and \
     underscores, a letter or digit first; not an ARN; with --stream also ACCOUNT/NAME";

impl ClusterName {
    /// Reads `NAME` or `ACCOUNT/NAME`; see [`ClusterName::is_valid`].
    pub fn read(text: &str) -> ClusterName {
        let is_account = |part: &str| part.len() == 12 && part.bytes().all(|b| b.is_ascii_digit());
        match text.split_once('/') {
            Some((account, name)) if is_account(account) => ClusterName {
                account: Some(account.to_owned()),
                name: name.to_owned(),
            },
            _ => ClusterName {
                account: None,
                name: text.to_owned(),
            },
        }
    }

    /// Whether the EKS API accepts this name (`CreateCluster`, `name`).
    pub fn is_valid(&self) -> bool {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        self.name.len() <= 100
            && self.name.chars().all(inside)
            && self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
    }

    /// Whether a log group of this account belongs to this cluster.
    pub fn has(&self, account: Option<&str>, group: &str) -> bool {
        let wanted = self.account.as_deref();
        wanted.is_none_or(|wanted| account == Some(wanted)) && cluster_of(group) == Some(&self.name)
    }
}

/// The name in the form in which the user gave it.
impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(account) = &self.account {
            write!(f, "{account}/")?;
        }
        f.write_str(&self.name)
    }
}

/// The cluster that a log group belongs to, by EKS's naming scheme.
pub(crate) fn cluster_of(group: &str) -> Option<&str> {
    group.strip_prefix("/aws/eks/")?.strip_suffix("/cluster")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_with_account_has_the_group_of_that_account_only() {
        let group = "/aws/eks/prod/cluster";
        for (name, account, has) in [
            ("prod", Some("111122223333"), true),
            ("prod", None, true),
            ("111122223333/prod", Some("111122223333"), true),
            ("111122223333/prod", Some("444455556666"), false),
            ("111122223333/prod", None, false),
            ("dev", Some("111122223333"), false),
        ] {
            let cluster = ClusterName::read(name);
            assert!(cluster.is_valid());
            assert_eq!(cluster.to_string(), name);
            assert_eq!(cluster.has(account, group), has, "{name} {account:?}");
        }
        assert_eq!(cluster_of("/aws/lambda/prod"), None);
    }

    #[test]
    fn cluster_name_invalid_is_refused() {
        for wrong in ["", "-x", "x y", "arn:aws:eks:eu:1:cluster/x", "12345/x"] {
            assert!(!ClusterName::read(wrong).is_valid(), "{wrong}");
        }
    }
}
