//! Ordinary events that attacks modify: members in the API server's order, as text.

use std::fmt::Write as _;

/// Placeholder for a byte that is no UTF-8; replaced when the event is written.
pub const NO_UTF8: char = '\u{e000}';
/// Placeholder for the beginning of a three-byte character.
pub const HALF_CHARACTER: char = '\u{e001}';

/// An event as a list of raw keys and raw values.
#[derive(Debug, Clone)]
pub struct Draft {
    members: Vec<(String, String)>,
}

const HEAD: [(&str, &str); 4] = [
    ("kind", r#""Event""#),
    ("apiVersion", r#""audit.k8s.io/v1""#),
    ("level", r#""RequestResponse""#),
    ("auditID", r#""6b1e0a3c-2f1d-4c57-9a8e-0d5c3f7e9a10""#),
];

const USERS: [(&str, &str); 4] = [
    (
        "user",
        r#"{"username":"mallory@example.com","uid":"aws-iam-authenticator:111122223333:AROA","groups":["team-blue","system:authenticated"],"extra":{"accessKeyId":["AKIA"],"sessionName":["mallory"]}}"#,
    ),
    (
        "impersonatedUser",
        r#"{"username":"system:admin","groups":["system:masters","system:authenticated"]}"#,
    ),
    ("sourceIPs", r#"["203.0.113.7","10.0.0.9"]"#),
    (
        "userAgent",
        r#""kubectl/v1.33.1 (linux/amd64) kubernetes/8adc0f0""#,
    ),
];

const TAIL: [(&str, &str); 3] = [
    (
        "requestReceivedTimestamp",
        r#""2026-11-21T10:00:00.000001Z""#,
    ),
    ("stageTimestamp", r#""2026-11-21T10:00:00.123456Z""#),
    (
        "annotations",
        r#"{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by ClusterRoleBinding \"b\" of ClusterRole \"r\" to User \"system:admin\""}"#,
    ),
];

/// A privileged pod with everything that rules look for.
pub const POD: &str = concat!(
    r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"evil","namespace":"shop","labels":{"app":"evil"}},"#,
    r#""spec":{"volumes":[{"name":"root","hostPath":{"path":"/"}}],"containers":[{"name":"c","image":"evil.example/miner:1.0","#,
    r#""command":["sh","-c"],"args":["nsenter -t 1"],"securityContext":{"privileged":true,"allowPrivilegeEscalation":true,"#,
    r#""runAsUser":0,"readOnlyRootFilesystem":false,"procMount":"Unmasked","capabilities":{"add":["SYS_ADMIN"]}},"ports":[{"hostPort":22}]}],"#,
    r#""hostPID":true,"hostNetwork":true,"hostIPC":true,"securityContext":{"runAsUser":0,"runAsGroup":0,"fsGroup":0,"supplementalGroups":[0]}}}"#,
);

impl Draft {
    fn of(request: [(&str, &str); 3], answer: &[(&str, &str)]) -> Draft {
        // The URI and the verb come before the users, the object after them.
        let [uri, verb, object] = request;
        let stage = if uri.1.contains("/exec?") {
            r#""ResponseStarted""#
        } else {
            r#""ResponseComplete""#
        };
        let mut all = HEAD.to_vec();
        all.push(("stage", stage));
        all.extend([uri, verb]);
        all.extend(USERS);
        all.push(object);
        all.extend(answer);
        all.extend(TAIL);
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Draft {
            members: all.into_iter().map(own).collect(),
        }
    }

    /// Creation of a privileged pod.
    pub fn pod() -> Draft {
        Draft::of(
            [
                (
                    "requestURI",
                    r#""/api/v1/namespaces/shop/pods?fieldManager=kubectl-create&fieldValidation=Strict""#,
                ),
                ("verb", r#""create""#),
                (
                    "objectRef",
                    r#"{"resource":"pods","namespace":"shop","name":"evil","apiVersion":"v1"}"#,
                ),
            ],
            &[
                ("responseStatus", r#"{"metadata":{},"code":201}"#),
                ("requestObject", POD),
                ("responseObject", POD),
            ],
        )
    }

    /// A patch that lets a cluster role do everything.
    pub fn role() -> Draft {
        Draft::of(
            [
                (
                    "requestURI",
                    r#""/apis/rbac.authorization.k8s.io/v1/clusterroles/view?fieldManager=kubectl-patch""#,
                ),
                ("verb", r#""patch""#),
                (
                    "objectRef",
                    r#"{"resource":"clusterroles","name":"view","apiGroup":"rbac.authorization.k8s.io","apiVersion":"v1"}"#,
                ),
            ],
            &[
                ("responseStatus", r#"{"metadata":{},"code":200}"#),
                (
                    "requestObject",
                    r#"{"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}"#,
                ),
            ],
        )
    }

    /// A command that is run in a container.
    pub fn exec() -> Draft {
        Draft::of(
            [
                (
                    "requestURI",
                    r#""/api/v1/namespaces/shop/pods/web-0/exec?command=cat&command=%2Fetc%2Fshadow&container=app&stdin=true&stdout=true""#,
                ),
                ("verb", r#""create""#),
                (
                    "objectRef",
                    r#"{"resource":"pods","namespace":"shop","name":"web-0","apiVersion":"v1","subresource":"exec"}"#,
                ),
            ],
            &[("responseStatus", r#"{"metadata":{},"code":101}"#)],
        )
    }

    /// A refused attempt to read secrets.
    pub fn refused() -> Draft {
        let mut draft = Draft::of(
            [
                ("requestURI", r#""/api/v1/namespaces/shop/secrets/db?x=1""#),
                ("verb", r#""get""#),
                (
                    "objectRef",
                    r#"{"resource":"secrets","namespace":"shop","name":"db","apiVersion":"v1"}"#,
                ),
            ],
            &[(
                "responseStatus",
                r#"{"metadata":{},"status":"Failure","message":"secrets \"db\" is forbidden","reason":"Forbidden","code":403}"#,
            )],
        );
        draft.set(
            "annotations",
            r#"{"authorization.k8s.io/decision":"forbid","authorization.k8s.io/reason":""}"#,
        );
        draft
    }

    /// Writing a config map with passwords.
    pub fn config_map() -> Draft {
        Draft::of(
            [
                ("requestURI", r#""/api/v1/namespaces/shop/configmaps/c""#),
                ("verb", r#""update""#),
                (
                    "objectRef",
                    r#"{"resource":"configmaps","namespace":"shop","name":"c","uid":"u","apiVersion":"v1","resourceVersion":"7"}"#,
                ),
            ],
            &[
                ("responseStatus", r#"{"metadata":{},"code":200}"#),
                (
                    "requestObject",
                    r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c"},"data":{"password":"hunter2"}}"#,
                ),
            ],
        )
    }

    /// Sets the `auditID`.
    pub fn id(mut self, id: &str) -> Draft {
        self.set("auditID", &format!("\"{id}\""));
        self
    }

    /// The raw value of a member.
    pub fn get(&self, member: &str) -> &str {
        let found = self.members.iter().find(|(key, _)| key == member);
        found.map_or("", |(_, value)| value)
    }

    /// Replaces the value of a member.
    pub fn set(&mut self, member: &str, value: &str) {
        for (key, old) in &mut self.members {
            if key == member {
                value.clone_into(old);
            }
        }
    }

    /// A copy with another value of a member.
    pub fn with(&self, member: &str, value: &str) -> Draft {
        let mut draft = self.clone();
        draft.set(member, value);
        draft
    }

    /// A copy in which a text in a member's value is replaced once.
    ///
    /// # Panics
    /// The text is absent, so this would be no attack.
    pub fn replace(&self, member: &str, what: &str, by: &str) -> Draft {
        let value = self.get(member);
        assert!(value.contains(what), "{member} has no {what}: {value}");
        self.with(member, &value.replacen(what, by, 1))
    }

    /// A copy with another raw key for a member.
    pub fn renamed(&self, member: &str, key: &str) -> Draft {
        let mut draft = self.clone();
        for (old, _) in &mut draft.members {
            if old == member {
                key.clone_into(old);
            }
        }
        draft
    }

    /// A copy with an additional member before another.
    pub fn before(&self, member: &str, key: &str, value: &str) -> Draft {
        let mut draft = self.clone();
        let at = draft.members.iter().position(|(key, _)| key == member);
        let at = at.unwrap_or(draft.members.len());
        draft.members.insert(at, (key.to_owned(), value.to_owned()));
        draft
    }

    /// A copy without a member.
    pub fn without(&self, member: &str) -> Draft {
        let mut draft = self.clone();
        draft.members.retain(|(key, _)| key != member);
        draft
    }

    /// The event as JSON, with placeholders.
    pub fn text(&self) -> String {
        let mut text = String::from("{");
        for (index, (key, value)) in self.members.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(text, "{comma}\"{key}\":{value}");
        }
        text.push('}');
        text
    }

    /// The event as JSON bytes, with placeholders replaced by invalid UTF-8.
    pub fn bytes(&self) -> Vec<u8> {
        broken(&self.text())
    }
}

/// Replaces the placeholders for bytes that are no UTF-8.
pub fn broken(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find([NO_UTF8, HALF_CHARACTER]) {
        let (before, behind) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        let mut characters = behind.chars();
        bytes.extend_from_slice(match characters.next() {
            Some(NO_UTF8) => b"\xff",
            _ => b"\xe2\x82",
        });
        rest = characters.as_str();
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
