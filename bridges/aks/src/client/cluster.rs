//! The clusters that the user selects, by name or, where names repeat, by resource ID.

use audit_bridge_app::config::InvalidValue;

/// A cluster of `--cluster-name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterSelector {
    /// Every cluster of this name: other resource groups and subscriptions may have one too.
    Name(String),
    /// One cluster, by its ID in Azure Resource Manager.
    Id(String),
}

impl ClusterSelector {
    /// Reads a name, or an ID as `az aks show --query id` prints it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<ClusterSelector, InvalidValue> {
        let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !text.is_empty() && text.chars().all(inside) {
            return Ok(ClusterSelector::Name(text.to_owned()));
        }
        let id = whole(text);
        if is_id(id) {
            return Ok(ClusterSelector::Id(id.to_owned()));
        }
        Err("is neither a cluster's name nor its ID, \
             /subscriptions/…/resourceGroups/…/providers/Microsoft.ContainerService/\
             managedClusters/NAME, as az aks show --resource-group GROUP --name NAME --query id \
             --output tsv prints it"
            .into())
    }

    fn is(&self, id: &str) -> bool {
        match self {
            ClusterSelector::Name(name) => name.eq_ignore_ascii_case(name_of(id)),
            ClusterSelector::Id(own) => own.eq_ignore_ascii_case(id),
        }
    }
}

/// Whether the cluster of this `resourceId` is one of `wanted`, or `wanted` is empty. Returns its
/// ID as the user wrote it, else as in the record.
///
/// IDs and names are compared without case, as in Azure Resource Manager: Azure Monitor writes them
/// in capitals.
pub(crate) fn chosen<'a>(wanted: &'a [ClusterSelector], resource_id: &'a str) -> Option<&'a str> {
    let id = whole(resource_id);
    let mut found = wanted.iter().filter(|cluster| cluster.is(id)).peekable();
    if wanted.is_empty() || found.peek().is_some() {
        let given = found.find_map(|cluster| match cluster {
            ClusterSelector::Id(given) => Some(given.as_str()),
            ClusterSelector::Name(_) => None,
        });
        return Some(given.unwrap_or(id));
    }
    None
}

/// An ID without slashes at its end.
fn whole(id: &str) -> &str {
    id.trim_end_matches('/')
}

/// The name at the end of an ID.
fn name_of(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or_default()
}

/// Whether the text starts like `/subscriptions/S/resourceGroups/G/providers/NAMESPACE/TYPE/NAME`.
/// Any type will do: clusters outside Azure have others.
fn is_id(text: &str) -> bool {
    let mut parts = text.split('/');
    let is = |part: Option<&str>, word: &str| part.is_some_and(|it| it.eq_ignore_ascii_case(word));
    let is_rooted = parts.next() == Some("")
        && is(parts.next(), "subscriptions")
        && parts.next().is_some()
        && is(parts.next(), "resourceGroups")
        && parts.next().is_some()
        && is(parts.next(), "providers");
    let odd = |c: char| c.is_whitespace() || c.is_control() || "?#<>%&\\".contains(c);
    is_rooted && parts.count() >= 3 && !text.contains("//") && !text.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "/subscriptions/1/resourceGroups/shop(eu)/providers/\
                      Microsoft.ContainerService/managedClusters/prod";

    fn read(texts: &[&str]) -> Vec<ClusterSelector> {
        let read = texts
            .iter()
            .map(|text| ClusterSelector::read(text).unwrap());
        read.collect()
    }

    #[test]
    fn cluster_id_is_one_cluster_and_a_name_all_of_that_name() {
        let other = ID.replace("shop(eu)", "bank");
        let upper = ID.to_ascii_uppercase();
        for (wanted, resource, want) in [
            (vec![ID], ID, Some(ID)),
            (vec![ID], &upper, Some(ID)),
            (vec![ID], &other, None),
            (vec![&*upper], ID, Some(&*upper)),
            (vec!["PROD"], ID, Some(ID)),
            (vec!["prod"], &other, Some(&*other)),
            (vec!["prod"], &upper, Some(&*upper)),
            // An ID among the selectors decides the spelling, in any position.
            (vec!["prod", ID], &upper, Some(ID)),
            (vec!["prod", ID], &other, Some(&*other)),
            (vec!["dev", ID], &other, None),
            (vec![], &other, Some(&*other)),
            (vec!["prod"], "/x/prod//", Some("/x/prod")),
            (vec!["prod"], "/prod/x", None),
            (vec!["prod"], "prod", Some("prod")),
        ] {
            let wanted = read(&wanted);
            assert_eq!(chosen(&wanted, resource), want, "{wanted:?} {resource}");
        }
        let slash = format!("{ID}/");
        assert_eq!(read(&[&slash]), [ClusterSelector::Id(ID.to_owned())]);
    }

    #[test]
    fn cluster_that_is_neither_name_nor_id_is_refused() {
        for wrong in [
            "",
            "/",
            "a b",
            "group/prod",
            "/subscriptions/1/resourceGroups/shop",
            "/subscriptions/1/resourceGroups/shop/providers/Microsoft.ContainerService/managedClusters",
            "subscriptions/1/resourceGroups/shop/providers/Microsoft.ContainerService/managedClusters/x",
            "/subscriptions//resourceGroups/shop/providers/Microsoft.ContainerService/managedClusters/x",
            "https://portal.azure.com/#/subscriptions/1",
        ] {
            let error = ClusterSelector::read(wrong).unwrap_err().to_string();
            assert!(error.contains("az aks show"), "{wrong}: {error}");
        }
    }
}
