//! Judges that this project did not write: Kubernetes' own decoder and request parser, and Falco's
//! JSON parser with what its rules read. One Go program (`tests/conformance/judge`), built once and
//! asked over its standard input and output.
//!
//! Go is not needed to build or use the bridges. Where it is missing, [`Judges::start`] says so on
//! standard error and gives nothing.

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

/// What `k8s.io/apiserver`'s audit scheme says of an `EventList` or an Event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Decoded {
    /// Why a receiver that uses this decoder has nothing of the body.
    pub hard: Option<String>,
    /// Why a strict receiver refuses the body; unknown members are not among the reasons.
    pub strict: Vec<String>,
    /// Members that this release of Kubernetes does not know.
    pub unknown: Vec<String>,
    /// What is not equal after decoding and encoding, beside unknown and empty members.
    pub differences: Vec<String>,
    /// What the decoder does not look at: keys that stand twice at any depth, bytes that are no
    /// UTF-8, lone surrogates.
    pub form: Vec<String>,
    /// Levels of nesting, a scalar at the bottom counted.
    pub depth: usize,
    /// How many events there are.
    pub items: usize,
}

impl Decoded {
    /// Everything that is wrong, unknown members aside; empty when nothing is.
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

/// What Falco has of the body of a POST.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct FalcoVerdict {
    /// Why the whole POST is lost.
    pub refused: Option<String>,
    /// The events, in order.
    pub items: Vec<FalcoItem>,
}

/// What Falco has of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct FalcoItem {
    /// Why this event is lost.
    pub lost: Option<String>,
    /// What rules read of it, by the name of the field; a field that is not there is not available.
    /// Of an event that is lost for its size alone: what they would have read.
    #[serde(default)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// What the API server makes of a request, and of which it makes the `objectRef` of its events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JudgedRequestInfo {
    /// Why it makes nothing of it.
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
    /// The `objectRef` of an event, without what only an object can say; `Null` when it has none.
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
    /// The judges, built and started on first use. `None` where there is no Go, or (outside CI) no
    /// way to the modules: that is said on standard error, past the test harness, for each test.
    ///
    /// # Panics
    /// When the program does not build; in CI also for want of modules.
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

    /// Asks Kubernetes' decoder, strict, about an `EventList` or an Event.
    pub fn decode(&self, body: &[u8]) -> Decoded {
        self.ask("decode", body)
    }

    /// Asks what Falco has of the body of a POST.
    pub fn falco(&self, body: &[u8]) -> FalcoVerdict {
        self.ask("falco", body)
    }

    /// Asks what the API server makes of a request: its URI, and its HTTP method or its verb.
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
