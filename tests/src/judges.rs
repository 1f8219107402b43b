//! Judges that this project did not write: Kubernetes' own decoder and request parser, and Falco's
//! JSON parser with the fields of its rules. They are one Go program (`tests/conformance/judge`),
//! built once, with which tests talk over standard input and output.
//!
//! Go is not needed to build or use the bridges. Without it, [`Judges::start`] says so on standard
//! error and returns `None`.

mod account;
mod server;

use std::sync::OnceLock;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::go::{GoProgram, Missing};
pub use account::{Account, LostItem};
use server::Server;

const PROGRAM: GoProgram = GoProgram {
    folder: "judge",
    modules: "go.mod",
    linker_flags: "",
};

/// The judges: one process for all tests of a test binary.
#[derive(Debug, Clone, Copy)]
pub struct Judges {
    server: &'static Server,
}

/// The judgement of `k8s.io/apiserver`'s audit scheme on an `EventList` or an Event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Decoded {
    /// Why a receiver with this decoder loses the whole body.
    pub hard: Option<String>,
    /// Why a strict receiver refuses the body, except for unknown members.
    pub strict: Vec<String>,
    /// Members that this release of Kubernetes does not know.
    pub unknown: Vec<String>,
    /// Differences after decoding and encoding, except for unknown and empty members.
    pub differences: Vec<String>,
    /// What the decoder ignores: duplicate keys at any depth, invalid UTF-8, lone surrogates.
    pub form: Vec<String>,
    /// Levels of nesting, counting a scalar at the bottom.
    pub depth: usize,
    /// Number of events.
    pub items: usize,
}

impl Decoded {
    /// All complaints except unknown members.
    pub fn complaints(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .hard
            .iter()
            .map(|error| format!("hard: {error}"))
            .collect();
        for (kind, list) in [
            ("strict", &self.strict),
            ("difference", &self.differences),
            ("form", &self.form),
        ] {
            all.extend(list.iter().map(|what| format!("{kind}: {what}")));
        }
        all
    }
}

/// What Falco sees in the body of a POST.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct FalcoVerdict {
    /// Why Falco loses the whole POST.
    pub refused: Option<String>,
    /// The events, in order.
    pub items: Vec<FalcoItem>,
}

/// What Falco sees of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct FalcoItem {
    /// Why this event is lost.
    pub lost: Option<String>,
    /// The fields that rules read, by name; absent ones are not available. For an event that is
    /// lost only for its size, what rules would have read.
    #[serde(default)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// How the API server parses a request; the `objectRef` of its events comes from this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JudgedRequestInfo {
    /// Why it cannot be parsed.
    pub error: Option<String>,
    /// Whether there is an `objectRef`.
    pub is_resource_request: bool,
    /// The path of the URI.
    pub path: String,
    pub verb: String,
    /// The API group; empty for the core.
    #[serde(rename = "apiGroup")]
    pub api_group: String,
    /// The version of the API group.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    /// The name of the object.
    pub name: String,
}

impl JudgedRequestInfo {
    /// The `objectRef` of the request's events, without what only an object can supply; `Null` if
    /// they have none.
    pub fn object_ref(&self) -> serde_json::Value {
        if !self.is_resource_request {
            return serde_json::Value::Null;
        }
        let members = [
            ("resource", &self.resource),
            ("namespace", &self.namespace),
            ("name", &self.name),
            ("apiGroup", &self.api_group),
            ("apiVersion", &self.api_version),
            ("subresource", &self.subresource),
        ];
        members
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.as_str().into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

impl Judges {
    /// Builds and starts the judges on first use. `None` if there is no Go, or (outside CI) no
    /// access to the modules; each test reports that on standard error, bypassing the test harness.
    ///
    /// # Panics
    /// The program does not build; in CI also without access to the modules.
    pub fn start() -> Option<Judges> {
        static SERVER: OnceLock<Result<Server, Missing>> = OnceLock::new();
        match SERVER.get_or_init(|| PROGRAM.build().map(Server::new)) {
            Ok(server) => Some(Judges { server }),
            Err(missing) => {
                missing.say();
                None
            }
        }
    }

    /// Passes an `EventList` or an Event to Kubernetes' decoder, in strict mode.
    pub fn decode(&self, body: &[u8]) -> Decoded {
        self.ask("decode", body)
    }

    /// Passes the body of a POST to Falco's parser.
    pub fn falco(&self, body: &[u8]) -> FalcoVerdict {
        self.ask("falco", body)
    }

    /// Passes a request to the API server's parser: its URI, and its HTTP method or verb.
    pub fn request_info(&self, uri: &str, method_or_verb: &str) -> JudgedRequestInfo {
        let upper = method_or_verb.to_ascii_uppercase() == method_or_verb;
        let key = if upper { "method" } else { "verb" };
        let question = serde_json::json!({ "uri": uri, key: method_or_verb });
        self.ask("requestinfo", question.to_string().as_bytes())
    }

    fn ask<T: DeserializeOwned>(&self, question: &str, body: &[u8]) -> T {
        let answer = self.server.ask(question, body);
        match serde_json::from_str(&answer) {
            Ok(answer) => answer,
            Err(error) => unreachable!("the judge's answer to {question}: {error}: {answer}"),
        }
    }
}
