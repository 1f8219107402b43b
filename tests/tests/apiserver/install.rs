//! Helm itself, against a real API server, as the pages tell it: install, upgrade, roll back, uninstall,
//! install again. What the bridge has written stays, and two releases share nothing.

use std::path::PathBuf;
use std::process::Command;

use audit_bridge_tests::apiserver::{ADMIN, ApiServer, Release, chart};
use audit_bridge_tests::{BRIDGES, root};
use serde_json::{Value, json};

const NS: &str = "/api/v1/namespaces/audit-bridge";

/// A server, and Helm as its administrator.
struct Cluster {
    server: ApiServer,
    helm: PathBuf,
    kubeconfig: PathBuf,
}

impl Cluster {
    fn start() -> Option<Cluster> {
        let helm = chart::helm()?;
        let server = ApiServer::start(Release::Newest, &[])?;
        let kubeconfig = server.path("admin.kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig(ADMIN, "default")).unwrap();
        Some(Cluster {
            server,
            helm,
            kubeconfig,
        })
    }

    /// Whether it went well, and all that Helm said.
    fn helm(&self, words: &[&str]) -> (bool, String) {
        let home = self.server.path("helm");
        let ran = Command::new(&self.helm)
            .args(words)
            .args(["--namespace", "audit-bridge"])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HELM_CACHE_HOME", &home)
            .env("HELM_CONFIG_HOME", &home)
            .env("HELM_DATA_HOME", &home)
            .current_dir(root())
            .output()
            .unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        (
            ran.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// `install` or `upgrade` of a release with the example's values and these settings.
    fn chart(&self, verb: &str, release: &str, bridge: &str, settings: &[&str]) -> (bool, String) {
        let values = format!("deploy/examples/{bridge}-values.yaml");
        let mut words = vec![
            verb,
            release,
            "deploy/helm/audit-bridge",
            "--values",
            &values,
        ];
        for setting in settings {
            words.extend(["--set", setting]);
        }
        self.helm(&words)
    }

    fn goes_well(&self, verb: &str, release: &str, bridge: &str, settings: &[&str]) -> String {
        let (well, said) = self.chart(verb, release, bridge, settings);
        assert!(well, "{verb} {release} {settings:?}: {said}");
        said
    }

    fn get(&self, target: &str) -> Value {
        self.server.client(ADMIN).get(target).json()
    }

    fn config_maps(&self) -> Vec<Value> {
        let all = self.get(&format!("{NS}/configmaps"));
        all["items"].as_array().cloned().unwrap_or_default()
    }

    /// Writes into every ConfigMap of a release, as the bridge would.
    fn write_state(&self, release: &str) -> usize {
        let maps = self.config_maps();
        let names = maps
            .iter()
            .filter_map(|map| map["metadata"]["name"].as_str());
        let ours = names.filter(|name| {
            *name == release
                || name.starts_with(&format!("{release}-seen"))
                || name.starts_with(&format!("{release}-slot"))
        });
        let patch = json!({"data": {"written": "by the bridge"}});
        ours.map(|name| {
            let target = format!("{NS}/configmaps/{name}");
            assert_eq!(self.server.client(ADMIN).merge(&target, &patch).status, 200);
        })
        .count()
    }

    /// How many ConfigMaps still hold it.
    fn kept(&self) -> usize {
        let maps = self.config_maps();
        maps.iter()
            .filter(|map| map["data"]["written"] == "by the bridge")
            .count()
    }
}

#[test]
fn upgrades_leave_state_alone_and_uninstalling_keeps_positions() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let (well, said) = cluster.chart("install", "eks-audit-bridge", "eks", &[]);
    assert!(!well && said.contains("namespaces \"audit-bridge\" not found"));
    cluster.server.shipped_namespace();
    for bridge in BRIDGES {
        let release = format!("{bridge}-audit-bridge");
        let said = cluster.goes_well("install", &release, bridge, &[]);
        let next = format!("helm test {release} --namespace audit-bridge --logs");
        assert!(said.contains(&next), "{said}");
        let before = cluster.kept();
        let written = cluster.write_state(&release);
        assert!(written > 0);
        for settings in [&["replicas=2"][..], &["replicas=1"], &[]] {
            cluster.goes_well("upgrade", &release, bridge, settings);
            assert_eq!(
                cluster.kept(),
                before + written,
                "{bridge}: upgrade {settings:?}"
            );
        }
        let (well, said) = cluster.helm(&["rollback", &release, "1"]);
        assert!(well, "{said}");
        assert_eq!(cluster.kept(), before + written, "{bridge}: rollback");
        let (well, said) = cluster.helm(&["uninstall", &release]);
        assert!(well, "{said}");
        // The position; what was delivered lately goes.
        assert_eq!(cluster.kept(), before + 1, "{bridge}: uninstall");
        cluster.goes_well("install", &release, bridge, &[]);
        assert_eq!(cluster.kept(), before + 1, "{bridge}: installed again");
    }
}

#[test]
fn more_log_groups_later_leave_the_first_position_alone() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.server.shipped_namespace();
    cluster.goes_well("install", "prod", "eks", &[]);
    cluster.write_state("prod");
    let of_one = cluster.kept();
    cluster.goes_well("upgrade", "prod", "eks", &["eks.clusterNames={a,b}"]);
    assert_eq!(cluster.kept(), of_one);
    let of_several = cluster.write_state("prod");
    cluster.goes_well("upgrade", "prod", "eks", &["eks.clusterNames={a,b,c}"]);
    assert_eq!(cluster.kept(), of_several);
}

#[test]
fn releases_in_one_namespace_share_no_object() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.server.shipped_namespace();
    cluster.goes_well("install", "prod", "eks", &["replicas=2"]);
    cluster.goes_well("install", "prod-b", "eks", &["replicas=2"]);
    cluster.goes_well("install", "prod-c", "gke", &[]);
    let taken = &["fullnameOverride=prod"];
    let (well, said) = cluster.chart("install", "prod-d", "aks", taken);
    assert!(
        !well && said.contains("invalid ownership metadata"),
        "{said}"
    );
    let (well, said) = cluster.chart("install", "e", "eks", &["networkPolicy.type=cilium"]);
    assert!(!well && said.contains("no matches for kind"), "{said}");
    // What failed left nothing: the same name is free.
    cluster.goes_well("install", "e", "eks", &[]);
    cluster.write_state("prod-b");
    let of_b = cluster.kept();
    let (well, said) = cluster.helm(&["uninstall", "prod"]);
    assert!(well, "{said}");
    assert_eq!(cluster.kept(), of_b);
    let leases = cluster.get("/apis/coordination.k8s.io/v1/namespaces/audit-bridge/leases");
    let names: Vec<_> = leases["items"].as_array().into_iter().flatten().collect();
    let names: Vec<_> = names
        .iter()
        .map(|lease| &lease["metadata"]["name"])
        .collect();
    assert_eq!(names, [&json!("prod-b")]);
}
