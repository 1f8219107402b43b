//! One event, field by field.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use audit_bridge_core::event::conformance::{Composer, ObjectRef, Text};
use audit_bridge_core::event::json::Raw;

use super::{GkeConvertOptions, SERVICE};
use crate::convert::level::Level;
use crate::convert::method::{Connect, Request};
use crate::convert::stamp::{Stamp, go_duration};
use crate::convert::status::{ResponseStatus, Rpc};
use crate::convert::uri::{self, Query};
use crate::wire::object::Object;
use crate::wire::{AuditLogPayload, Entry};

/// The label with the time that a slow request took (`k8s.io/apiserver/pkg/endpoints/filters`).
const LATENCY: &str = "apiserver.latency.k8s.io/total";
/// Longer than any request takes that carries such a label: a session may last for days. (A watch
/// carries none.)
const LATENCY_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Labels that GKE adds about an exec's command and a dry run.
const COMMAND: &str = "command.gke.io/command";
const DRY_RUN: &str = "command.gke.io/dryRun";

/// `k8s.io/apiserver/pkg/apis/audit/v1.Stage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Started,
    Complete,
    Panic,
}

/// A field that every event needs and this entry lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MissingFact {
    #[error("no protoPayload")]
    Payload,
    #[error("no operation.id and no insertId")]
    AuditId,
    #[error("no timestamp and no receiveTimestamp")]
    Time,
}

/// An entry, and what was derived from it.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    entry: &'a Entry<'a>,
    payload: &'a AuditLogPayload<'a>,
    request: Request<'a>,
    audit_id: &'a str,
    stamp: Stamp<'a>,
    status: ResponseStatus<'a>,
    body: Option<&'a Object<'a>>,
    response: Option<&'a Object<'a>>,
    /// Parts of the bodies are missing, because parts of a split entry are.
    truncated: bool,
}

impl<'a> Facts<'a> {
    /// Derives what every event needs, or returns what is missing.
    pub(super) fn of(entry: &'a Entry<'a>, request: Request<'a>) -> Result<Facts<'a>, MissingFact> {
        let payload = entry.payload.as_ref().ok_or(MissingFact::Payload)?;
        let audit_id = audit_id(entry).ok_or(MissingFact::AuditId)?;
        let times = [&entry.timestamp, &entry.receive_timestamp];
        let stamp = times
            .into_iter()
            .flatten()
            .find_map(|text| Stamp::parse(text))
            .ok_or(MissingFact::Time)?;
        let body = payload.request.as_ref();
        let response = payload.response.as_ref();
        let status = ResponseStatus::of(&request, rpc(payload), body, response);
        Ok(Facts {
            entry,
            payload,
            request,
            audit_id,
            stamp,
            status,
            body,
            response,
            truncated: false,
        })
    }

    /// Marks the entry as one with missing parts.
    pub(super) fn incomplete(self) -> Facts<'a> {
        Facts {
            truncated: true,
            ..self
        }
    }

    /// The stage that the entry represents. One that is both first and last of its operation, or
    /// neither, is a complete request.
    pub(super) fn stage(&self) -> Stage {
        let message = self.status.message.as_deref().unwrap_or("");
        let operation = &self.entry.operation;
        if self.payload.status_code == 13 && message.starts_with("APIServer panic'd") {
            Stage::Panic
        } else if operation.first && !operation.last {
            Stage::Started
        } else {
            Stage::Complete
        }
    }

    /// Whether a session (exec, attach, port-forward) came as a single entry. It then stands for
    /// both stages that Kubernetes logs, and also gets a `ResponseStarted` event, whatever its
    /// status.
    ///
    /// The API server decides by the path alone that a request is long-running, and writes
    /// `ResponseStarted` once the answer's code is known
    /// (`k8s.io/apiserver/pkg/endpoints/filters/audit.go`). The log of a kube-apiserver 1.37 has
    /// both stages, with the same `responseStatus`, for an exec, an attach and a port-forward that
    /// were answered 101, 400 and 500 (it has no 403, which takes the same path; a 401 has
    /// `ResponseStarted` only). Rules that detect these attempts, Falco's among them, require that
    /// stage, and would miss a refused one without it.
    pub(super) fn is_whole_session(&self) -> bool {
        let operation = &self.entry.operation;
        self.request.connect() == Some(Connect::Upgrade) && operation.first == operation.last
    }

    /// The full name of the cluster, as the GKE API has it; `None` where the entry does not name it.
    pub(super) fn cluster(&self) -> Option<String> {
        let resource = &self.entry.resource;
        let cluster = resource
            .cluster_name
            .as_deref()
            .filter(|it| !it.is_empty())?;
        let project = resource.project_id.as_deref().unwrap_or("-");
        let location = resource.location.as_deref().unwrap_or("-");
        Some(format!(
            "projects/{project}/locations/{location}/clusters/{cluster}"
        ))
    }

    /// Parts of the entry are missing.
    pub(super) fn truncated(&self) -> bool {
        self.truncated
    }

    /// Something in the entry had to be replaced by U+FFFD.
    pub(super) fn replaced(&self) -> bool {
        self.entry.replaced
    }

    /// The event, member by member.
    pub(super) fn compose(&self, stage: Stage, options: &GkeConvertOptions) -> Composer {
        let bodies = [self.body, self.response];
        let bodies_bytes: usize = bodies.iter().flatten().map(|body| body.text.len()).sum();
        let mut event = Composer::new(bodies_bytes + 2048);
        let (has_request, has_response) = (self.body.is_some(), self.response.is_some());
        let level = match self.truncated && !has_request && !has_response {
            true => Level::Metadata,
            false => Level::of(&self.request, has_request, has_response),
        };
        event.level(level.name());
        event.audit_id(self.audit_id);
        event.stage(stage.name());
        event.request_uri(|out| self.write_uri(out, options));
        event.verb(self.request.verb);
        self.write_users(&mut event, options);
        self.write_source(&mut event);
        self.write_object_ref(&mut event);
        let details = self.status.details.map(Raw::findings);
        event.response_status(details.unwrap_or_default(), |out| self.status.write(out));
        if self.carries_objects(stage) {
            if let Some(body) = self.body {
                event.request_object(body.findings(), body.keys(), |out| body.write(out));
            }
            if let Some(body) = self.response {
                event.response_object(body.findings(), |out| body.write(out));
            }
        }
        let received = self.received();
        event.request_received(received.as_ref().unwrap_or(&self.stamp).as_str());
        event.stage_timestamp(self.stamp.as_str());
        self.write_annotations(&mut event);
        event
    }

    /// Whether bodies are logged: never for upgraded connections, and only with the answer for
    /// proxied requests.
    fn carries_objects(&self, stage: Stage) -> bool {
        match self.request.connect() {
            Some(Connect::Upgrade) => false,
            Some(Connect::Proxy) => stage != Stage::Started,
            None => true,
        }
    }

    fn write_uri(&self, out: &mut String, options: &GkeConvertOptions) {
        let (dry_run, command) = (self.entry.label(DRY_RUN), self.entry.label(COMMAND));
        let query = options.derive.query.then_some(Query {
            dry_run: named(&dry_run),
            command: named(&command),
        });
        uri::write(out, &self.request, query);
    }

    /// `user` and `impersonatedUser`. A caller that failed to authenticate has no name: then the
    /// API server writes an empty user.
    fn write_users(&self, event: &mut Composer, options: &GkeConvertOptions) {
        let payload = self.payload;
        let name = named(&payload.principal_email).or_else(|| {
            let subject = named(&payload.principal_subject)?;
            let stripped = ["user:", "serviceAccount:"]
                .into_iter()
                .find_map(|kind| subject.strip_prefix(kind));
            Some(stripped.unwrap_or(subject))
        });
        match name.filter(|_| options.derive.groups) {
            Some(account) => with_groups(account, |groups| event.user(name, groups)),
            None => event.user(name, &[]),
        }
        // The groups are those that the caller asked for; no name implies them.
        if let Some(name) = named(&payload.authority_selector) {
            event.impersonated_user(name);
        }
    }

    fn write_source(&self, event: &mut Composer) {
        // Google writes words such as `private` if it has no address.
        if let Some(ip) = named(&self.payload.caller_ip)
            && ip.parse::<IpAddr>().is_ok()
        {
            event.source_ips(&[ip]);
        }
        if let Some(agent) = named(&self.payload.user_agent) {
            event.user_agent(agent);
        }
    }

    fn write_object_ref(&self, event: &mut Composer) {
        let Some(resource) = self.request.resource() else {
            return;
        };
        let verb = self.request.verb;
        // The API server fills these from the request's object, which patches and deletes lack.
        let of_body = |member: fn(&Object<'a>) -> Option<Raw<'a>>, verbs: &[&str]| {
            let body = self.body.filter(|_| verbs.contains(&verb))?;
            member(body)?.as_str()
        };
        let name = match resource.name {
            "" => of_body(|body| body.name, &["create"]),
            name => Some(Cow::Borrowed(name)),
        };
        let uid = of_body(|body| body.uid, &["create", "update"]);
        let version = of_body(|body| body.resource_version, &["create", "update"]);
        event.object_ref(&ObjectRef {
            resource: resource.resource,
            namespace: self.request.object_namespace(),
            name: name.as_deref().unwrap_or(""),
            uid: uid.as_deref().unwrap_or(""),
            api_group: &resource.group,
            api_version: resource.version,
            resource_version: version.as_deref().unwrap_or(""),
            subresource: resource.subresource,
        });
    }

    /// When the request came in: the API server annotates slow requests with the time they took.
    fn received(&self) -> Option<Stamp<'static>> {
        if self.stage() != Stage::Complete {
            return None;
        }
        let latency = go_duration(&self.entry.label(LATENCY)?)?;
        let latency = Some(latency).filter(|latency| *latency <= LATENCY_MAX)?;
        self.stamp.minus(latency)
    }

    /// Writes the labels and the cluster; labels win. The user's own annotations are added when the
    /// event leaves, and win over both.
    fn write_annotations(&self, event: &mut Composer) {
        let labels = &self.entry.labels;
        let resource = &self.entry.resource;
        let places = [
            ("cluster_name", &resource.cluster_name),
            ("location", &resource.location),
            ("project_id", &resource.project_id),
        ];
        let places = places.into_iter().filter_map(|(key, value)| {
            let is_label = labels.iter().any(|label| label.key == key);
            Some((key, Text::Plain(named(value).filter(|_| !is_label)?)))
        });
        let labels = labels
            .iter()
            .map(|label| (&*label.key, Text::Json(label.value)));
        event.annotations(labels.chain(places));
    }
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Started => "ResponseStarted",
            Stage::Complete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// The API server's ID of the request: that of the operation if the producer is Kubernetes, else
/// the entry's without the number of a split part.
fn audit_id<'a>(entry: &'a Entry<'_>) -> Option<&'a str> {
    let operation = &entry.operation;
    let producer = operation.producer.as_deref().unwrap_or(SERVICE);
    if let Some(id) = operation.id.as_deref()
        && producer == SERVICE
    {
        return Some(id);
    }
    let id = entry.insert_id.as_deref()?;
    let Some(split) = &entry.split else {
        return Some(id);
    };
    let whole = id.strip_suffix(split.index.to_string().as_str());
    let whole = whole.map(|id| id.trim_end_matches(['-', '_', '.']));
    Some(whole.filter(|id| !id.is_empty()).unwrap_or(id))
}

fn rpc<'a>(payload: &'a AuditLogPayload<'_>) -> Rpc<'a> {
    Rpc {
        code: payload.status_code,
        message: payload.status_message.as_deref(),
    }
}

/// Passes the groups that Kubernetes' rules determine to `give`: `serviceaccount/util.go`, the node
/// authorizer and `authenticated_group_adder.go`. Other users get none: their groups are unknown,
/// and an incomplete list would look complete.
fn with_groups(name: &str, give: impl FnOnce(&[&str])) {
    if let Some(account) = name.strip_prefix("system:serviceaccount:") {
        match account.split_once(':') {
            Some((namespace, account)) if !namespace.is_empty() && !account.is_empty() => give(&[
                "system:serviceaccounts",
                &format!("system:serviceaccounts:{namespace}"),
                "system:authenticated",
            ]),
            _ => give(&[]),
        }
    } else if name.starts_with("system:node:") {
        give(&["system:nodes", "system:authenticated"]);
    } else if name == "system:anonymous" {
        give(&["system:unauthenticated"]);
    } else {
        give(&[]);
    }
}

/// The text, when it is there and not empty.
fn named<'a>(text: &'a Option<Cow<'_, str>>) -> Option<&'a str> {
    text.as_deref().filter(|text| !text.is_empty())
}
