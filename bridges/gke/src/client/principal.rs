//! Finds the principal as which Google sees the bridge, for messages: the one to which roles are
//! granted.
//!
//! Taken from the credentials' origin: the credentials file (<https://google.aip.dev/auth/4110>),
//! else the metadata server's service account. So messages show it when a pod uses its node's
//! account instead of its own.

use std::path::PathBuf;

use serde_json::Value;

use super::metadata;

/// Suffix of Compute Engine's default account, for machines whose owner chose none.
const COMPUTE_DEFAULT: &str = "-compute@developer.gserviceaccount.com";
/// Suffix of what GKE's metadata server answers for a pod that impersonates no Google service
/// account.
const POOL: &str = ".svc.id.goog";
/// The file in which Kubernetes tells a pod its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The principal of the default credentials; `None` if unknown.
pub(super) async fn of_environment() -> Option<String> {
    let Some(path) = credentials_file() else {
        return of_metadata_server().await;
    };
    let text = tokio::fs::read(&path).await.ok()?;
    let file: Value = serde_json::from_slice(&text).ok()?;
    Some(format!("{}, by {}", of_file(&file)?, path.display()))
}

/// The principal of the metadata server's tokens; `None` if it issues none, or does not answer.
pub(super) async fn of_metadata_server() -> Option<String> {
    let email = metadata::service_account_email().await.ok()??;
    let namespace = tokio::fs::read_to_string(NAMESPACE_FILE).await.ok();
    Some(of_email(&email, namespace.as_deref()))
}

fn of_email(email: &str, namespace: Option<&str>) -> String {
    if email.ends_with(POOL) {
        let namespace = namespace.map_or("NAMESPACE", str::trim);
        return format!(
            "the pod's Kubernetes service account, of the workload identity pool {email} \
             (principal://…/{email}/subject/ns/{namespace}/sa/NAME)"
        );
    }
    if email.ends_with(COMPUTE_DEFAULT) {
        return format!(
            "{email}, Compute Engine's default service account: that of the node, if this is a pod. \
             Is Workload Identity on in its node pool?"
        );
    }
    format!("{email}, by the metadata server")
}

/// The file of the default credentials, chosen as by Google's library; `None`: they come from the
/// metadata server.
fn credentials_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = set("GOOGLE_APPLICATION_CREDENTIALS") {
        return Some(path.into());
    }
    let login =
        PathBuf::from(set("HOME")?).join(".config/gcloud/application_default_credentials.json");
    login.exists().then_some(login)
}

/// The principal of a credentials file. These members hold no secrets.
fn of_file(file: &Value) -> Option<String> {
    let text = |name: &str| file[name].as_str();
    // …/serviceAccounts/EMAIL:generateAccessToken
    let impersonated = || {
        let url = text("service_account_impersonation_url")?;
        let (_, account) = url.rsplit_once("/serviceAccounts/")?;
        account.split(':').next()
    };
    Some(match text("type")? {
        "service_account" => text("client_email")?.to_owned(),
        "impersonated_service_account" => impersonated()?.to_owned(),
        "external_account" => match impersonated() {
            Some(account) => account.to_owned(),
            None => format!(
                "a workload of {}",
                text("audience")?.trim_start_matches('/')
            ),
        },
        "authorized_user" => match text("account").filter(|account| !account.is_empty()) {
            Some(account) => account.to_owned(),
            None => "whoever logged in with gcloud auth application-default login".to_owned(),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn principal_of_metadata_server_tells_node_from_pod() {
        let own = of_email("reader@p.iam.gserviceaccount.com", None);
        assert_eq!(
            own,
            "reader@p.iam.gserviceaccount.com, by the metadata server"
        );
        let node = of_email("123-compute@developer.gserviceaccount.com", None);
        assert!(node.contains("that of the node"), "{node}");
        let pool = of_email("p.svc.id.goog", Some("audit-bridge\n"));
        assert!(
            pool.contains("/p.svc.id.goog/subject/ns/audit-bridge/sa/"),
            "{pool}"
        );
    }

    #[test]
    fn principal_of_file_is_whom_it_is_about_and_no_secret() {
        let url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/\
                   b@p.iam.gserviceaccount.com:generateAccessToken";
        for (file, want) in [
            (
                json!({"type": "service_account", "client_email": "a@p.iam.gserviceaccount.com", "private_key": "secret"}),
                Some("a@p.iam.gserviceaccount.com"),
            ),
            (
                json!({"type": "impersonated_service_account", "service_account_impersonation_url": url}),
                Some("b@p.iam.gserviceaccount.com"),
            ),
            (
                json!({"type": "external_account", "audience": "//iam.googleapis.com/x", "service_account_impersonation_url": url}),
                Some("b@p.iam.gserviceaccount.com"),
            ),
            (
                json!({"type": "external_account", "audience": "//iam.googleapis.com/x"}),
                Some("a workload of iam.googleapis.com/x"),
            ),
            (
                json!({"type": "authorized_user", "refresh_token": "secret", "account": "me@example.com"}),
                Some("me@example.com"),
            ),
            (
                json!({"type": "authorized_user", "refresh_token": "secret", "account": ""}),
                Some("whoever logged in with gcloud auth application-default login"),
            ),
            (json!({"type": "gdch_service_account"}), None),
            (json!({"type": "service_account"}), None),
            (json!([]), None),
        ] {
            assert_eq!(of_file(&file).as_deref(), want, "{file}");
        }
    }
}
