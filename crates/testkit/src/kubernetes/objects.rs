//! The objects and their versions, and the verbs on them.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::KubernetesRequest;
use super::answers::{answer, failure, full_name, invalid, malformed};

/// Namespace, plural and name.
pub(super) type Key = (String, String, String);

#[derive(Default)]
pub(super) struct Objects {
    pub(super) all: BTreeMap<Key, Value>,
    version: u64,
    /// Namespaces that do not exist; all others do.
    pub(super) missing: BTreeSet<String>,
}

impl Objects {
    pub(super) fn carry_out(
        &mut self,
        method: &Method,
        request: &KubernetesRequest,
        patch: &str,
    ) -> Response {
        let Some((namespace, plural, name)) = place(&request.path) else {
            return failure(404, "NotFound", "the server could not find the resource");
        };
        let name = match (method, name) {
            (&Method::POST, None) => match request.body["metadata"]["name"].as_str() {
                Some(name) => name,
                None => return failure(422, "Invalid", "metadata.name: Required value"),
            },
            (_, Some(name)) => name,
            (_, None) => return failure(405, "MethodNotAllowed", "not supported by the fake"),
        };
        let key = key(namespace, plural, name);
        let there = self.all.get(&key).cloned();
        match (method.as_str(), there) {
            ("GET", Some(there)) => answer(200, &there),
            ("DELETE", Some(_)) => {
                self.all.remove(&key);
                answer(200, &json!({"kind": "Status", "status": "Success"}))
            }
            ("POST", there) => self.create(key, &request.body, there.is_some()),
            ("PUT", Some(there)) => self.update(key, &there, request.body.clone()),
            ("PUT", None) if plural == "leases" => self.create_by_update(key, &request.body),
            ("PATCH", Some(there)) if patch == "application/merge-patch+json" => {
                let mut object = there.clone();
                merge(&mut object, &request.body);
                self.update(key, &there, object)
            }
            ("PATCH", Some(_)) => failure(415, "UnsupportedMediaType", "merge patches only"),
            ("GET" | "DELETE" | "PUT" | "PATCH", None) => {
                let message = format!("{} \"{name}\" not found", full_name(plural));
                failure(404, "NotFound", &message)
            }
            _ => failure(405, "MethodNotAllowed", "not supported by the fake"),
        }
    }

    fn create(&mut self, key: Key, object: &Value, is_there: bool) -> Response {
        let (namespace, plural, name) = &key;
        if let Some(refused) = malformed(plural, object) {
            return refused;
        }
        if self.missing.contains(namespace) {
            let message = format!("namespaces \"{namespace}\" not found");
            return failure(404, "NotFound", &message);
        }
        if object["metadata"]["resourceVersion"].is_string() {
            let message = "resourceVersion should not be set on objects to be created";
            return failure(500, "", message);
        }
        if let Some(refused) = invalid(plural, object) {
            return refused;
        }
        if is_there {
            let message = format!("{} \"{name}\" already exists", full_name(plural));
            return failure(409, "AlreadyExists", &message);
        }
        let mut object = object.clone();
        metadata(&mut object).insert("namespace".to_owned(), namespace.clone().into());
        answer(201, &self.store(key, object))
    }

    /// An update may create a Lease, unless it expects an existing one.
    fn create_by_update(&mut self, key: Key, object: &Value) -> Response {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        if !uid.is_empty() {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{}\": StorageError: invalid object, Code: 4, \
                 Key: /registry/{}/{}/{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
                 failed: UID in precondition: {uid}, UID in object meta: ",
                full_name(&key.1),
                key.2,
                key.1,
                key.0,
                key.2
            );
            return failure(409, "Conflict", &message);
        }
        let mut object = object.clone();
        metadata(&mut object).remove("resourceVersion");
        self.create(key, &object, false)
    }

    fn update(&mut self, key: Key, there: &Value, mut object: Value) -> Response {
        let (namespace, plural, name) = &key;
        if let Some(refused) = malformed(plural, &object) {
            return refused;
        }
        let wanted = &object["metadata"]["resourceVersion"];
        let unversioned = wanted.as_str().is_none_or(str::is_empty);
        // An update of a ConfigMap without a version is unconditional.
        if unversioned && plural == "leases" {
            let message = format!(
                "{} \"{name}\" is invalid: metadata.resourceVersion: Invalid value: 0: must be \
                 specified for an update",
                full_name(plural)
            );
            return failure(422, "Invalid", &message);
        }
        if !unversioned && *wanted != there["metadata"]["resourceVersion"] {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; \
                 please apply your changes to the latest version and try again",
                full_name(plural)
            );
            return failure(409, "Conflict", &message);
        }
        if let Some(refused) = invalid(plural, &object) {
            return refused;
        }
        if there["immutable"] == json!(true) && object["data"] != there["data"] {
            return failure(
                422,
                "Invalid",
                "data: Forbidden: field is immutable when `immutable` is set",
            );
        }
        for kept in ["uid", "creationTimestamp", "resourceVersion"] {
            let value = there["metadata"][kept].clone();
            metadata(&mut object).insert(kept.to_owned(), value);
        }
        metadata(&mut object).insert("namespace".to_owned(), namespace.clone().into());
        for kept in ["apiVersion", "kind"] {
            object[kept] = there[kept].clone();
        }
        // An unchanged object is not written.
        if object == *there {
            return answer(200, there);
        }
        answer(200, &self.store(key, object))
    }

    /// Stores an object with the next version.
    pub(super) fn store(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        let version = self.version;
        let (api, kind) = match key.1.as_str() {
            "leases" => ("coordination.k8s.io/v1", "Lease"),
            _ => ("v1", "ConfigMap"),
        };
        let metadata = metadata(&mut object);
        metadata.insert("resourceVersion".to_owned(), version.to_string().into());
        let uid = metadata.entry("uid").or_insert(Value::Null);
        if uid.is_null() {
            *uid = format!("00000000-0000-4000-8000-{version:012}").into();
        }
        let created = metadata.entry("creationTimestamp").or_insert(Value::Null);
        if created.is_null() {
            *created = "2026-01-02T03:04:05Z".into();
        }
        object["apiVersion"] = api.into();
        object["kind"] = kind.into();
        self.all.insert(key, object.clone());
        object
    }
}

/// Parses namespace, plural and name from a path.
fn place(path: &str) -> Option<(&str, &str, Option<&str>)> {
    let (rest, plural) = match path.strip_prefix("/api/v1/namespaces/") {
        Some(rest) => (rest, "configmaps"),
        None => {
            let prefix = "/apis/coordination.k8s.io/v1/namespaces/";
            (path.strip_prefix(prefix)?, "leases")
        }
    };
    let mut parts = rest.split('/');
    let namespace = parts.next()?;
    let found = parts.next()?;
    let name = parts.next();
    (found == plural && parts.next().is_none()).then_some((namespace, plural, name))
}

pub(super) fn key(namespace: &str, plural: &str, name: &str) -> Key {
    (namespace.to_owned(), plural.to_owned(), name.to_owned())
}

/// The object's metadata, created if absent.
pub(super) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        Value::Object(metadata) => metadata,
        _ => unreachable!("it was just made one"),
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        match (value, &mut *target) {
            (Value::Null, Value::Object(target)) => {
                target.remove(name);
            }
            (value, target) => merge(&mut target[name], value),
        }
    }
}
