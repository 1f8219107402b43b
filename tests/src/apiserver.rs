//! A real kube-apiserver with a real etcd, and the real controller-manager, on loopback. They are
//! one Go program (`tests/conformance/apiserver`), built once.
//!
//! Go is not needed to build or use the bridges. Without it, [`ApiServer::start`] says so on
//! standard error and returns `None`.

pub mod chart;
pub mod client;
pub mod feed;
pub mod gke;
mod hostile;
pub mod tour;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::go::GoProgram;
use crate::live::wait;
use client::ApiClient;

/// The token of a member of `system:masters`.
pub const ADMIN: &str = "admin-token";
/// The token of a user without any right.
pub const ALICE: &str = "alice-token";

/// A release of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The newest release: 1.37.
    Newest,
    /// The oldest supported release: 1.31. Only built with `APISERVER_RELEASES=all`, as each
    /// release takes minutes.
    Oldest,
}

impl Release {
    /// The releases that this run tests.
    pub fn judged() -> Vec<Release> {
        match std::env::var("APISERVER_RELEASES").as_deref() {
            Ok("all") => vec![Release::Newest, Release::Oldest],
            _ => vec![Release::Newest],
        }
    }

    fn program(self) -> GoProgram {
        match self {
            Release::Newest => GoProgram {
                folder: "apiserver",
                modules: "go.mod",
                linker_flags: concat!(
                    "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2",
                    " -X k8s.io/component-base/version.gitMajor=1",
                    " -X k8s.io/component-base/version.gitMinor=37"
                ),
            },
            Release::Oldest => GoProgram {
                folder: "apiserver",
                modules: "1.31.mod",
                linker_flags: concat!(
                    "-s -w -X k8s.io/component-base/version.gitVersion=v1.31.14",
                    " -X k8s.io/component-base/version.gitMajor=1",
                    " -X k8s.io/component-base/version.gitMinor=31"
                ),
            },
        }
    }
}

/// A running API server. Dropping it kills it.
#[derive(Debug)]
pub struct ApiServer {
    program: PathBuf,
    folder: TempDir,
    flags: Vec<String>,
    child: Child,
    plain: SocketAddr,
}

/// A running controller-manager. Dropping it kills it.
#[derive(Debug)]
pub struct Controllers(Child);

impl Drop for ApiServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl ApiServer {
    /// Starts an API server with these additional flags, and waits until it is ready. `None` if
    /// there is no Go, or (outside CI) no access to the modules; each test reports that on standard
    /// error.
    ///
    /// # Panics
    /// It does not build or start.
    pub fn start(release: Release, flags: &[String]) -> Option<ApiServer> {
        let program = match release.program().build() {
            Ok(program) => program,
            Err(missing) => {
                missing.say();
                return None;
            }
        };
        let folder = must(tempfile::tempdir());
        let child = serve(&program, folder.path(), flags);
        let mut server = ApiServer {
            program,
            folder,
            flags: flags.to_vec(),
            child,
            plain: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let port = wait(|| server.read("plain-port")?.parse().ok());
        server.plain.set_port(port.unwrap_or_default());
        server.until_ready();
        Some(server)
    }

    /// A path in the folder of the server's state, which survives a restart.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }

    /// The server's standard error.
    pub fn log(&self) -> String {
        self.read("stderr").unwrap_or_default()
    }

    fn until_ready(&mut self) {
        let admin = self.client(ADMIN);
        let ready = wait(|| {
            if let Ok(Some(status)) = self.child.try_wait() {
                unreachable!("the API server ended with {status}:\n{}", self.log());
            }
            (admin.get("/readyz").status == 200).then_some(())
        });
        assert!(ready.is_some(), "it never was ready:\n{}", self.log());
    }

    /// A client with this token.
    pub fn client(&self, token: &str) -> ApiClient {
        ApiClient::new(self.plain, Some(token))
    }

    /// A client without a token.
    pub fn anonymous(&self) -> ApiClient {
        ApiClient::new(self.plain, None)
    }

    /// Stops the server with SIGTERM, so that all its audit events are delivered.
    ///
    /// # Panics
    /// It does not end.
    pub fn stop(&mut self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent.is_ok_and(|sent| sent.success()), "kill {pid}");
        let ended = wait(|| self.child.try_wait().ok().flatten());
        assert!(ended.is_some(), "it does not end:\n{}", self.log());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Restarts the server on the same ports and state, and waits until it is ready.
    pub fn restart(&mut self) {
        self.begin();
        self.until_ready();
    }

    /// Restarts the server on the same ports and state, without waiting.
    pub fn begin(&mut self) {
        self.child = serve(&self.program, self.folder.path(), &self.flags);
    }

    /// Starts the controller-manager of the same release, as the administrator.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn controllers(&self) -> Controllers {
        let config = self.path("controllers.kubeconfig");
        must(std::fs::write(&config, self.kubeconfig(ADMIN, "default")));
        let said = must(File::create(self.path("controllers.stderr")));
        let key = self.path("sa.key").display().to_string();
        let ca = self.path("ca.crt").display().to_string();
        let child = Command::new(&self.program)
            .arg("controllers")
            .arg(&config)
            .args(["--service-account-private-key-file", &key])
            .args(["--root-ca-file", &ca])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn();
        Controllers(must(child))
    }

    /// A kubeconfig for this server, over TLS.
    pub fn kubeconfig(&self, token: &str, namespace: &str) -> String {
        let port = self.read("port").unwrap_or_default();
        let server = format!("https://127.0.0.1:{port}");
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": server, "certificate-authority": self.path("ca.crt"),
            }}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {
                "cluster": "test", "user": "test", "namespace": namespace,
            }}],
        })
        .to_string()
    }

    /// The token of a service account, which is created if absent.
    ///
    /// # Panics
    /// The server returns no token.
    pub fn service_account(&self, namespace: &str, name: &str) -> String {
        let admin = self.client(ADMIN);
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        let all = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        admin.post(&all, &account);
        let token = admin.post(&format!("{all}/{name}/token"), &json!({"spec": {}}));
        match token.json()["status"]["token"].as_str() {
            Some(token) => token.to_owned(),
            None => unreachable!("no token: {}", token.text()),
        }
    }

    /// Creates a namespace with these labels.
    ///
    /// # Panics
    /// The server refuses it.
    pub fn namespace(&self, name: &str, labels: &Value) {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        });
        let made = self.client(ADMIN).post("/api/v1/namespaces", &namespace);
        assert_eq!(made.status, 201, "{}", made.text());
    }
}

fn serve(program: &Path, folder: &Path, flags: &[String]) -> Child {
    let said = File::options()
        .create(true)
        .append(true)
        .open(folder.join("stderr"));
    let child = Command::new(program)
        .arg("serve")
        .arg(folder)
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(must(said))
        .spawn();
    must(child)
}

fn must<T>(result: std::io::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => unreachable!("the API server: {error}"),
    }
}
