//! Renders the chart, and applies it to an API server.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::client::{ApiAnswer, ApiRequest};
use super::{ADMIN, ApiServer};
use crate::python::python;
use crate::root;

/// One object of a manifest.
#[derive(Debug, Clone)]
pub struct Document {
    pub kind: String,
    /// The source text.
    pub yaml: String,
}

/// helm, built once from its Go module by the chart's tests; `None`, reported on standard error, if
/// that is not possible.
pub fn helm() -> Option<PathBuf> {
    static HELM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = HELM.get_or_init(|| {
        let ran = Command::new(python("tests/requirements-infra.txt"))
            .args(["-c", "from tools import go_tool; print(go_tool('helm'))"])
            .current_dir(root().join("tests/infra"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .map_err(|error| error.to_string())?;
        match ran.status.success() {
            true => Ok(String::from_utf8_lossy(&ran.stdout).trim().into()),
            false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
        }
    });
    match found {
        Ok(helm) => Some(helm.clone()),
        Err(why) => {
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("a test");
            crate::go::say(&format!("skipped: {test}: no helm: {}", why.trim()));
            None
        }
    }
}

/// Renders the chart with a bridge's example values and these settings.
///
/// # Panics
/// helm fails.
pub fn render(helm: &PathBuf, bridge: &str, settings: &[&str]) -> Vec<Document> {
    let values = format!("deploy/examples/{bridge}-values.yaml");
    let name = format!("{bridge}-audit-bridge");
    let mut command = Command::new(helm);
    command
        .args([
            "template",
            &name,
            "deploy/helm/audit-bridge",
            "--no-hooks",
            "--kube-version",
            "1.31",
        ])
        .args(["--namespace", "audit-bridge", "--values", &values])
        .current_dir(root());
    for setting in settings {
        command.args(["--set", setting]);
    }
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{bridge} {settings:?}: {said}");
            documents(&String::from_utf8_lossy(&output.stdout))
        }
        Err(error) => unreachable!("helm: {error}"),
    }
}

/// The objects of a manifest.
pub fn documents(text: &str) -> Vec<Document> {
    let each = text.split("\n---").filter_map(|yaml| {
        let kind = yaml.lines().find_map(|line| line.strip_prefix("kind: "))?;
        Some(Document {
            kind: kind.trim().to_owned(),
            yaml: yaml.trim_start_matches('-').to_owned(),
        })
    });
    each.collect()
}

impl ApiServer {
    /// Creates an object in the namespace for which the chart is rendered.
    ///
    /// # Panics
    /// The object's kind is unknown here.
    pub fn create(&self, document: &Document) -> ApiAnswer {
        let namespace = "namespaces/audit-bridge";
        let target = match document.kind.as_str() {
            "Namespace" => "/api/v1/namespaces".to_owned(),
            "ServiceAccount" => format!("/api/v1/{namespace}/serviceaccounts"),
            "ConfigMap" => format!("/api/v1/{namespace}/configmaps"),
            "PersistentVolumeClaim" => format!("/api/v1/{namespace}/persistentvolumeclaims"),
            "Service" => format!("/api/v1/{namespace}/services"),
            "Role" => format!("/apis/rbac.authorization.k8s.io/v1/{namespace}/roles"),
            "RoleBinding" => format!("/apis/rbac.authorization.k8s.io/v1/{namespace}/rolebindings"),
            "NetworkPolicy" => format!("/apis/networking.k8s.io/v1/{namespace}/networkpolicies"),
            "PodDisruptionBudget" => format!("/apis/policy/v1/{namespace}/poddisruptionbudgets"),
            "Lease" => format!("/apis/coordination.k8s.io/v1/{namespace}/leases"),
            "Deployment" => format!("/apis/apps/v1/{namespace}/deployments"),
            other => unreachable!("the chart makes a {other}, which is not known here"),
        };
        let request = ApiRequest::new("POST", target).body("application/yaml", &*document.yaml);
        self.client(ADMIN).send(&request)
    }

    /// Creates the bridges' namespace from the shipped manifest.
    ///
    /// # Panics
    /// The server refuses it.
    pub fn shipped_namespace(&self) {
        let text = std::fs::read_to_string(root().join("deploy/namespace.yaml"));
        for document in documents(&format!("\n{}", text.unwrap_or_default())) {
            let made = self.create(&document);
            assert_eq!(made.status, 201, "{}", made.text());
        }
    }
}
