//! Google's spelling of API groups and versions.

/// Groups without a dot that `@type` and `methodName` extend by `.k8s.io`.
const SHORT_GROUPS: [&str; 5] = ["apps", "batch", "autoscaling", "extensions", "policy"];

/// The group's real name if Google extended it by `.k8s.io`.
pub(crate) fn short_group(group: &str) -> &str {
    match group.strip_suffix(".k8s.io") {
        Some("core") => "",
        Some(short) if SHORT_GROUPS.contains(&short) => short,
        _ => group,
    }
}

/// `v1`, `v2beta1`, …
pub(crate) fn is_version(token: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(rest) = token.strip_prefix('v') else {
        return false;
    };
    match rest.split_once("alpha").or_else(|| rest.split_once("beta")) {
        Some((major, minor)) => digits(major) && digits(minor),
        None => digits(rest),
    }
}
