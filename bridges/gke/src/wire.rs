//! Decodes the members of a Cloud Logging `LogEntry` that the conversion needs, in one pass over
//! its JSON.
//!
//! Lenient by design, because entries come from Google's API, from forwarders and from files of any
//! origin: a member of a wrong type counts as absent, a 64-bit number may be a string, a flag may
//! be `"true"`, and of two members with one name the last wins (as in Go).
//!
//! `severity`, `trace`, `httpRequest` and `sourceLocation` are not decoded, as no audit event
//! contains them. Of `authorizationInfo` only `permission` and `resource` are used, where method or
//! resource name are missing: `granted` reflects the outcome of the request, not the decision of
//! the authorizer.

pub(crate) mod names;
pub(crate) mod object;

use std::borrow::Cow;

use audit_bridge_core::event::conformance::Keys;
use audit_bridge_core::event::json::{Error, Raw, Scanner, ValueKind, integral};

use crate::wire::object::{Object, Side};

/// `google.logging.v2.LogEntry`.
#[derive(Debug, Default)]
pub(crate) struct Entry<'a> {
    pub(crate) log_name: Option<Cow<'a, str>>,
    pub(crate) insert_id: Option<Cow<'a, str>>,
    pub(crate) timestamp: Option<Cow<'a, str>>,
    pub(crate) receive_timestamp: Option<Cow<'a, str>>,
    pub(crate) resource: MonitoredResource<'a>,
    pub(crate) labels: Vec<Label<'a>>,
    pub(crate) operation: Operation<'a>,
    pub(crate) split: Option<LogSplit<'a>>,
    pub(crate) payload: Option<AuditLogPayload<'a>>,
    /// It has members of an audit Event instead of a log entry's.
    pub(crate) native: bool,
    /// A string contained half of a UTF-16 surrogate pair, which was replaced by U+FFFD.
    pub(crate) replaced: bool,
}

/// `google.api.MonitoredResource`.
#[derive(Debug, Default)]
pub(crate) struct MonitoredResource<'a> {
    pub(crate) kind: Option<Cow<'a, str>>,
    pub(crate) cluster_name: Option<Cow<'a, str>>,
    pub(crate) location: Option<Cow<'a, str>>,
    pub(crate) project_id: Option<Cow<'a, str>>,
}

/// One of `LogEntry.labels`; the value is a JSON string.
#[derive(Debug)]
pub(crate) struct Label<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) value: Raw<'a>,
}

/// `google.logging.v2.LogEntryOperation`.
#[derive(Debug, Default)]
pub(crate) struct Operation<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) producer: Option<Cow<'a, str>>,
    pub(crate) first: bool,
    pub(crate) last: bool,
}

/// `google.logging.v2.LogSplit`.
#[derive(Debug, Default)]
pub(crate) struct LogSplit<'a> {
    pub(crate) uid: Option<Cow<'a, str>>,
    pub(crate) index: i64,
    pub(crate) total: i64,
}

/// `google.cloud.audit.AuditLog`.
#[derive(Debug, Default)]
pub(crate) struct AuditLogPayload<'a> {
    pub(crate) type_url: Option<Cow<'a, str>>,
    pub(crate) service_name: Option<Cow<'a, str>>,
    pub(crate) method_name: Option<Cow<'a, str>>,
    pub(crate) resource_name: Option<Cow<'a, str>>,
    pub(crate) principal_email: Option<Cow<'a, str>>,
    pub(crate) principal_subject: Option<Cow<'a, str>>,
    pub(crate) authority_selector: Option<Cow<'a, str>>,
    authorization: Option<Raw<'a>>,
    pub(crate) caller_ip: Option<Cow<'a, str>>,
    pub(crate) user_agent: Option<Cow<'a, str>>,
    /// `google.rpc.Status`; 0 if absent.
    pub(crate) status_code: i64,
    pub(crate) status_message: Option<Cow<'a, str>>,
    pub(crate) request: Option<Object<'a>>,
    pub(crate) response: Option<Object<'a>>,
}

impl<'a> Entry<'a> {
    /// Decodes the entry's text. After an error the members before it stay, to tell what the text
    /// was meant to be.
    pub(crate) fn read(&mut self, text: &'a str) -> Result<(), Error> {
        let mut scanner = Scanner::new(text);
        scanner.open_object()?;
        while let Some(key) = scanner.key()? {
            let s = &mut scanner;
            match key.as_ref() {
                "protoPayload" => {
                    let payload = self.payload.insert(AuditLogPayload::default());
                    if !payload.read(s, text)? {
                        self.payload = None;
                    }
                }
                "logName" => self.log_name = string(s)?,
                "insertId" => self.insert_id = string(s)?,
                "timestamp" => self.timestamp = string(s)?,
                "receiveTimestamp" => self.receive_timestamp = string(s)?,
                "resource" => self.resource = MonitoredResource::read(s)?,
                "labels" => self.labels = labels(s)?,
                "operation" => self.operation = Operation::read(s)?,
                "split" => self.split = LogSplit::read(s)?,
                "auditID" => {
                    s.value()?;
                    self.native = true;
                }
                "kind" => self.native |= s.value()?.as_str().as_deref() == Some("Event"),
                _ => {
                    s.value()?;
                }
            }
        }
        self.replaced = scanner.replaced();
        scanner.end()
    }

    /// The value of a label, if it is a string.
    pub(crate) fn label(&self, key: &str) -> Option<Cow<'a, str>> {
        let label = self.labels.iter().rev().find(|label| label.key == key)?;
        label.value.as_str()
    }
}

impl<'a> MonitoredResource<'a> {
    fn read(s: &mut Scanner<'a>) -> Result<MonitoredResource<'a>, Error> {
        let mut resource = MonitoredResource::default();
        object(s, |s, key| {
            match key.as_ref() {
                "type" => resource.kind = string(s)?,
                "labels" => {
                    (
                        resource.cluster_name,
                        resource.location,
                        resource.project_id,
                    ) = (None, None, None);
                    object(s, |s, key| {
                        let value = string(s)?;
                        match key.as_ref() {
                            "cluster_name" => resource.cluster_name = value,
                            "location" => resource.location = value,
                            "project_id" => resource.project_id = value,
                            _ => {}
                        }
                        Ok(())
                    })?;
                }
                _ => {
                    s.value()?;
                }
            }
            Ok(())
        })?;
        Ok(resource)
    }
}

impl<'a> Operation<'a> {
    fn read(s: &mut Scanner<'a>) -> Result<Operation<'a>, Error> {
        let mut operation = Operation::default();
        object(s, |s, key| {
            match key.as_ref() {
                "id" => operation.id = string(s)?,
                "producer" => operation.producer = string(s)?,
                "first" => operation.first = s.value()?.as_bool().unwrap_or(false),
                "last" => operation.last = s.value()?.as_bool().unwrap_or(false),
                _ => {
                    s.value()?;
                }
            }
            Ok(())
        })?;
        Ok(operation)
    }
}

impl<'a> LogSplit<'a> {
    fn read(s: &mut Scanner<'a>) -> Result<Option<LogSplit<'a>>, Error> {
        let mut split = LogSplit::default();
        let is_object = object(s, |s, key| {
            match key.as_ref() {
                "uid" => split.uid = string(s)?,
                "index" => split.index = s.value()?.as_i64().unwrap_or(0),
                "totalSplits" => split.total = s.value()?.as_i64().unwrap_or(0),
                _ => {
                    s.value()?;
                }
            }
            Ok(())
        })?;
        Ok(is_object.then_some(split))
    }
}

impl<'a> AuditLogPayload<'a> {
    /// Returns whether it is an object at all.
    fn read(&mut self, s: &mut Scanner<'a>, text: &'a str) -> Result<bool, Error> {
        object(s, |s, key| {
            match key.as_ref() {
                "@type" => self.type_url = string(s)?,
                "serviceName" => self.service_name = string(s)?,
                "methodName" => self.method_name = string(s)?,
                "resourceName" => self.resource_name = string(s)?,
                "authenticationInfo" => self.read_authentication(s)?,
                "authorizationInfo" => self.authorization = Some(s.value()?),
                "requestMetadata" => self.read_metadata(s)?,
                "status" => self.read_status(s)?,
                "request" => {
                    // Only a patch is the client's own text, so only its keys are checked. Without
                    // a method it may be one.
                    let is_other = self.method_name.as_deref().is_some_and(|it| !is_patch(it));
                    let keys = if is_other { Keys::NotSeen } else { Keys::Seen };
                    self.request = Object::read(s, text, Side::Request, keys)?;
                }
                "response" => {
                    self.response = Object::read(s, text, Side::Response, Keys::NotSeen)?;
                }
                _ => {
                    s.value()?;
                }
            }
            Ok(())
        })
    }

    /// Method and resource name if they are strings; else their copies in `authorizationInfo`.
    pub(crate) fn names(&self) -> (Cow<'_, str>, Cow<'_, str>) {
        let authorized = |member: &str| {
            let first = self.authorization?.elements()?.next()?;
            first.get(member)?.as_str()
        };
        let method = self.method_name.as_deref().map(Cow::Borrowed);
        let resource_name = self.resource_name.as_deref().map(Cow::Borrowed);
        (
            method
                .or_else(|| authorized("permission"))
                .unwrap_or_default(),
            resource_name
                .or_else(|| authorized("resource"))
                .unwrap_or_default(),
        )
    }

    fn read_authentication(&mut self, s: &mut Scanner<'a>) -> Result<(), Error> {
        self.principal_email = None;
        self.principal_subject = None;
        self.authority_selector = None;
        object(s, |s, key| {
            match key.as_ref() {
                "principalEmail" => self.principal_email = string(s)?,
                "principalSubject" => self.principal_subject = string(s)?,
                "authoritySelector" => self.authority_selector = string(s)?,
                _ => {
                    s.value()?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    fn read_metadata(&mut self, s: &mut Scanner<'a>) -> Result<(), Error> {
        self.caller_ip = None;
        self.user_agent = None;
        object(s, |s, key| {
            match key.as_ref() {
                "callerIp" => self.caller_ip = string(s)?,
                "callerSuppliedUserAgent" => self.user_agent = string(s)?,
                _ => {
                    s.value()?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    fn read_status(&mut self, s: &mut Scanner<'a>) -> Result<(), Error> {
        self.status_code = 0;
        self.status_message = None;
        object(s, |s, key| {
            match key.as_ref() {
                "code" => self.status_code = rpc_code(s.value()?),
                "message" => self.status_message = string(s)?,
                _ => {
                    s.value()?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn is_patch(method_name: &str) -> bool {
    method_name.ends_with(".patch")
}

/// A code of `google.rpc.Status`; 0 if it is none.
fn rpc_code(raw: Raw<'_>) -> i64 {
    integral(raw.text().trim_matches('"')).parse().unwrap_or(0)
}

/// The labels whose value is a string; of two with one key the last wins.
fn labels<'a>(s: &mut Scanner<'a>) -> Result<Vec<Label<'a>>, Error> {
    let mut labels: Vec<Label<'a>> = Vec::with_capacity(8);
    object(s, |s, key| {
        labels.push(Label {
            key,
            value: s.value()?,
        });
        Ok(())
    })?;
    if labels.len() <= 64 {
        // Cloud Logging allows 64 labels: comparing all pairs is faster than a set.
        for at in (0..labels.len()).rev() {
            let later = labels.get(at + 1..).unwrap_or_default();
            let key = labels.get(at).map(|label| &label.key);
            if later.iter().any(|label| Some(&label.key) == key) {
                labels.remove(at);
            }
        }
    } else {
        let mut seen = std::collections::HashSet::new();
        labels.reverse();
        labels.retain(|label| seen.insert(label.key.clone()));
        labels.reverse();
    }
    labels.retain(|label| label.value.kind() == ValueKind::String);
    Ok(labels)
}

/// Calls `member` at the value of each member; it must consume the value. Skips a value that is no
/// object. Returns whether it was an object.
pub(crate) fn object<'a>(
    s: &mut Scanner<'a>,
    mut member: impl FnMut(&mut Scanner<'a>, Cow<'a, str>) -> Result<(), Error>,
) -> Result<bool, Error> {
    if s.peek() != Some(b'{') {
        s.value()?;
        return Ok(false);
    }
    s.open_object()?;
    while let Some(key) = s.key()? {
        member(s, key)?;
    }
    Ok(true)
}

/// The next value if it is a string. An empty one counts as absent, as in protobuf's JSON.
fn string<'a>(s: &mut Scanner<'a>) -> Result<Option<Cow<'a, str>>, Error> {
    Ok(s.string_or_skip()?.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests;
