//! Checkpoints, Leases and shared partitions in a real API server, with exactly the chart's
//! permissions: the real binaries, and everything that can fail around them.

mod elected;
mod shared;

use std::collections::BTreeSet;

use audit_bridge_testkit::ScriptedWebhook;
use audit_bridge_tests::apiserver::{ADMIN, ApiServer, Release, chart};
use audit_bridge_tests::live::{Running, wait};
use audit_bridge_tests::{audit_id, command};
use serde_json::{Value, json};

const NS: &str = "/api/v1/namespaces/audit-bridge";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/audit-bridge/roles";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/audit-bridge/leases";

/// A server with the chart's objects of a bridge except for the Deployment, and a kubeconfig of its
/// service account.
pub(crate) struct Installed {
    pub(crate) server: ApiServer,
    pub(crate) webhook: ScriptedWebhook,
    folder: tempfile::TempDir,
}

impl Installed {
    pub(crate) async fn new(
        release: Release,
        bridge: &str,
        settings: &[&str],
    ) -> Option<Installed> {
        let webhook = ScriptedWebhook::start().await;
        tokio::task::block_in_place(|| {
            let helm = chart::helm()?;
            let folder = tempfile::tempdir().unwrap();
            let log = folder.path().join("audit.log").display().to_string();
            let server = ApiServer::start(release, &[format!("--audit-log-path={log}")])?;
            server.shipped_namespace();
            for document in chart::render(&helm, bridge, settings) {
                if document.kind != "Deployment" {
                    let made = server.create(&document);
                    assert_eq!(made.status, 201, "{}", made.text());
                }
            }
            let installed = Installed {
                server,
                webhook,
                folder,
            };
            installed.log_in(bridge);
            Some(installed)
        })
    }

    fn log_in(&self, bridge: &str) {
        let account = format!("{bridge}-audit-bridge");
        let token = self.server.service_account("audit-bridge", &account);
        let config = self.server.kubeconfig(&token, "audit-bridge");
        std::fs::write(self.path("kubeconfig"), config).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn until_accepted(&self, events: std::ops::Range<usize>, bridge: &Running) {
        let want: BTreeSet<_> = events.map(audit_id).collect();
        let mut missing = 0;
        let came = wait(|| {
            let ids: BTreeSet<_> = self.webhook.accepted_ids().into_iter().collect();
            missing = want.difference(&ids).count();
            (missing == 0).then_some(())
        });
        assert!(
            came.is_some(),
            "{missing} of {} never came\n{}",
            want.len(),
            bridge.log()
        );
    }

    /// Replaces the verbs in all rules of a Role.
    fn give(&self, role: &str, verbs: &[&str]) {
        let admin = self.server.client(ADMIN);
        let target = format!("{ROLES}/{role}");
        let mut there = admin.get(&target).json();
        for rule in there["rules"].as_array_mut().unwrap() {
            rule["verbs"] = json!(verbs);
        }
        assert_eq!(admin.put(&target, &there).status, 200);
    }
}

fn checkpoint(installed: &Installed, name: &str) -> Value {
    let object = installed
        .server
        .client(ADMIN)
        .get(&format!("{NS}/configmaps/{name}"))
        .json();
    let text = object["data"]["checkpoint.json"]
        .as_str()
        .unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

/// Exit status and output of `check` with these arguments.
fn check(bridge: &str, args: &[String], variables: &[(&str, String)]) -> (i32, String) {
    let mut all = vec!["check"];
    all.extend(args.iter().map(String::as_str));
    let mut command = command(bridge, &all);
    let output = command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = output.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Checks that the API server's log has the bridge and its version as user agent of all requests.
fn assert_named(installed: &Installed, bridge: &str) {
    let log = std::fs::read_to_string(installed.path("audit.log")).unwrap();
    let user = format!("system:serviceaccount:audit-bridge:{bridge}");
    let agent = format!("{bridge}/{}", env!("CARGO_PKG_VERSION"));
    let mut requests = 0;
    for line in log.lines().filter(|line| line.contains(&user)) {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["user"]["username"] == *user {
            assert_eq!(event["userAgent"], *agent);
            requests += 1;
        }
    }
    assert!(requests > 50, "{requests}");
}
