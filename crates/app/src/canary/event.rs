//! Decides whether an audit event is a canary's, by its mark and by everything else known about it.

use memchr::memmem;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Mark;

/// The request's verb: a patch changes only what it names.
pub(crate) const VERB: &str = "patch";

/// The text before the mark in the user agent.
pub(super) const AGENT: &str = " canary/";

/// What a canary's event must contain besides its mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedRequest {
    /// Our own user; `None` if the API server does not say.
    pub(crate) user: Option<String>,
    pub(crate) namespace: String,
    /// The name of the `ConfigMap`.
    pub(crate) name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CanaryIdentity {
    /// The event does not have this mark.
    Other,
    /// The canary's event, at the end of the request.
    Complete,
    /// The canary's event, of an earlier stage.
    Earlier,
    /// The event has the mark but is another request; `user` is the event's.
    Forged { user: String },
}

/// An event that looks like a canary's. Its sender is unknown: only a record of the mark's hash can
/// prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CanaryCandidate {
    pub(super) mark: Mark,
    pub(super) user: String,
    pub(super) namespace: String,
    /// Whether the event is of the last stage.
    pub(super) complete: bool,
}

impl CanaryCandidate {
    /// Parses only events that contain the `ConfigMap`'s name. Takes the mark from the user agent,
    /// which every provider keeps.
    pub(super) fn read(event: &[u8], name: &str) -> Option<CanaryCandidate> {
        memmem::find(event, name.as_bytes())?;
        let members = serde_json::from_slice::<Members>(event).ok()?;
        let (_, mark) = members.user_agent.rsplit_once(AGENT)?;
        let mark = Mark::parse(mark)?;
        let is_bounded = members.user.username.len() <= USER_MAX
            && members.object_ref.namespace.len() <= USER_MAX;
        (is_bounded && members.is_of(name)).then(|| CanaryCandidate {
            mark,
            complete: members.stage == COMPLETE,
            user: members.user.username,
            namespace: members.object_ref.namespace,
        })
    }
}

/// The longest user name that is kept: ours is shorter.
const USER_MAX: usize = 1024;

const COMPLETE: &str = "ResponseComplete";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    #[serde(default, rename = "auditID")]
    audit_id: String,
    #[serde(default)]
    stage: String,
    #[serde(default)]
    verb: String,
    #[serde(default)]
    user: User,
    impersonated_user: Option<IgnoredAny>,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: Object,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    api_group: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

impl ExpectedRequest {
    /// Compares an event's JSON with this canary. Parses only events that contain the mark.
    pub(crate) fn identify(&self, event: &[u8], mark: &Mark) -> CanaryIdentity {
        if memmem::find(event, mark.as_str().as_bytes()).is_none() {
            return CanaryIdentity::Other;
        }
        let Ok(members) = serde_json::from_slice::<Members>(event) else {
            return CanaryIdentity::Other;
        };
        // A mark anywhere else, in a URI or a body, is only a quote of our event.
        if members.audit_id != mark.as_str() && !members.user_agent.ends_with(mark.as_str()) {
            return CanaryIdentity::Other;
        }
        if !self.is_ours(&members) {
            return CanaryIdentity::Forged {
                user: members.user.username,
            };
        }
        match members.stage.as_str() {
            COMPLETE => CanaryIdentity::Complete,
            _ => CanaryIdentity::Earlier,
        }
    }

    fn is_ours(&self, members: &Members) -> bool {
        self.is_by_us(&members.user.username, &members.object_ref.namespace)
            && members.is_of(&self.name)
    }

    /// Whether the user and the namespace are ours.
    pub(super) fn is_by_us(&self, user: &str, namespace: &str) -> bool {
        let by_us = self.user.as_ref().is_none_or(|us| us == user);
        by_us && namespace == self.namespace
    }
}

impl Members {
    /// Whether it is a canary's request for the `ConfigMap` with this name.
    fn is_of(&self, name: &str) -> bool {
        let object = &self.object_ref;
        self.impersonated_user.is_none()
            && self.verb == VERB
            && (object.resource.as_str(), object.api_group.as_str()) == ("configmaps", "")
            && object.subresource.is_empty()
            && object.name == name
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn expected() -> ExpectedRequest {
        ExpectedRequest {
            user: Some("system:serviceaccount:audit:bridge".to_owned()),
            namespace: "audit".to_owned(),
            name: "bridge-canary".to_owned(),
        }
    }

    fn event(mark: &Mark) -> Value {
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
            "auditID": mark.as_str(), "stage": "ResponseComplete",
            "requestURI": "/api/v1/namespaces/audit/configmaps/bridge-canary", "verb": "patch",
            "user": {"username": "system:serviceaccount:audit:bridge", "groups": ["g"]},
            "userAgent": format!("a-bridge/1 canary/{}", mark.as_str()),
            "objectRef": {"resource": "configmaps", "namespace": "audit", "name": "bridge-canary",
                          "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 200},
        })
    }

    fn identify(event: &Value, mark: &Mark) -> CanaryIdentity {
        expected().identify(event.to_string().as_bytes(), mark)
    }

    #[test]
    fn canary_event_is_known_by_either_place_of_its_mark() {
        let mark = Mark::random().unwrap();
        assert_eq!(identify(&event(&mark), &mark), CanaryIdentity::Complete);
        for lost in ["auditID", "userAgent"] {
            let mut event = event(&mark);
            event[lost] = "something else".into();
            assert_eq!(identify(&event, &mark), CanaryIdentity::Complete, "{lost}");
        }
        let mut early = event(&mark);
        early["stage"] = "RequestReceived".into();
        assert_eq!(identify(&early, &mark), CanaryIdentity::Earlier);
        let other = Mark::random().unwrap();
        assert_eq!(identify(&event(&other), &mark), CanaryIdentity::Other);
    }

    /// Each of these requests may come from somebody who has read the mark.
    #[test]
    fn event_with_the_mark_of_another_request_is_forged() {
        let mark = Mark::random().unwrap();
        let forge = |change: &dyn Fn(&mut Value)| {
            let mut event = event(&mark);
            change(&mut event);
            identify(&event, &mark)
        };
        let changes: [&dyn Fn(&mut Value); 9] = [
            &|event| event["user"]["username"] = "mallory".into(),
            &|event| event["user"] = json!({}),
            &|event| event["impersonatedUser"] = json!({"username": "mallory"}),
            &|event| event["verb"] = "delete".into(),
            &|event| event["objectRef"]["name"] = "aws-auth".into(),
            &|event| event["objectRef"]["namespace"] = "kube-system".into(),
            &|event| event["objectRef"]["resource"] = "secrets".into(),
            &|event| event["objectRef"]["subresource"] = "status".into(),
            &|event| drop(event.as_object_mut().unwrap().remove("objectRef")),
        ];
        for (number, change) in changes.iter().enumerate() {
            let found = forge(change);
            assert!(
                matches!(found, CanaryIdentity::Forged { .. }),
                "{number}: {found:?}"
            );
        }
    }

    #[test]
    fn event_that_quotes_the_mark_elsewhere_is_any_other() {
        let mark = Mark::random().unwrap();
        let mut quoting = event(&mark);
        quoting["auditID"] = "x".into();
        quoting["userAgent"] = format!("canary/{} and more", mark.as_str()).into();
        quoting["requestURI"] = format!("/{}", mark.as_str()).into();
        assert_eq!(identify(&quoting, &mark), CanaryIdentity::Other);
        let torn = format!("{{\"auditID\":\"{}\"", mark.as_str());
        assert_eq!(
            expected().identify(torn.as_bytes(), &mark),
            CanaryIdentity::Other
        );
    }

    #[test]
    fn candidate_is_read_from_the_form_of_a_canary_alone() {
        let mark = Mark::random().unwrap();
        let read =
            |event: &Value| CanaryCandidate::read(event.to_string().as_bytes(), "bridge-canary");
        let candidate = read(&event(&mark)).unwrap();
        assert!(candidate.complete && candidate.mark == mark);
        assert!(expected().is_by_us(&candidate.user, &candidate.namespace));
        let mut early = event(&mark);
        early["stage"] = "RequestReceived".into();
        assert!(!read(&early).unwrap().complete);
        let mut other = event(&mark);
        other["user"]["username"] = "mallory".into();
        let other = read(&other).unwrap();
        assert!(!expected().is_by_us(&other.user, &other.namespace));
        let changes: [&dyn Fn(&mut Value); 8] = [
            // Many candidates are kept until our own user is known.
            &|event| event["user"]["username"] = "m".repeat(100_000).into(),
            // Our other requests have no mark, so their events are no candidates.
            &|event| event["userAgent"] = "a-bridge/1".into(),
            &|event| event["userAgent"] = "a-bridge/1 canary/x".into(),
            &|event| event["impersonatedUser"] = json!({"username": "mallory"}),
            &|event| event["verb"] = "get".into(),
            &|event| event["objectRef"]["name"] = "bridge-canary-2".into(),
            &|event| event["objectRef"]["resource"] = "secrets".into(),
            &|event| event["objectRef"]["subresource"] = "status".into(),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut event = event(&mark);
            change(&mut event);
            assert_eq!(read(&event), None, "{number}");
        }
    }
}
