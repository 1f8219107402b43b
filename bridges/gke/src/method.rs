//! What was asked of which object: `methodName` and `resourceName`.
//!
//! ```text
//! methodName   = rev(FQ(group)) "." version "." resource ["." subresource] "." verb
//!              | "io.k8s." httpMethod                            (no resource: exactly 3 tokens)
//! resourceName = ("core" | group) "/" version ["/namespaces/" ns] "/" resource
//!                    ["/" name ["/" subresource ["/" rest]]]
//!              | path without its leading slash                  (no resource)
//! ```
//!
//! `FQ(group)` is the group when it has a dot, else `group.k8s.io`; `rev` turns its labels round.
//! The method decides how many segments mean what; the resource name tells the group verbatim.
//! Both are free text to us: reading them is total.

use std::borrow::Cow;

/// Groups without a dot, which `@type` and `methodName` extend by `.k8s.io`.
const SHORT_GROUPS: [&str; 5] = ["apps", "batch", "autoscaling", "extensions", "policy"];

/// One request to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// Kubernetes' verb; for a path without resource the HTTP method in lower case.
    pub(crate) verb: &'a str,
    pub(crate) target: Target<'a>,
    /// Method and resource name name the same group and version: no other service's entry.
    pub(crate) anchored: bool,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// A path such as `readyz`, without its leading slash.
    Path(&'a str),
    /// An object or a collection.
    Resource(Resource<'a>),
}

/// `k8s.io/apiserver/pkg/apis/audit.ObjectReference`, and the path below it. Empty: absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Resource<'a> {
    pub(crate) group: Cow<'a, str>,
    pub(crate) version: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    /// As the path has it; see [`Request::object_namespace`].
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// What follows the subresource: the path of a proxied request.
    pub(crate) rest: &'a str,
}

/// Subresources that hand the connection over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connect {
    /// exec, attach, portforward: always upgraded.
    Upgrade,
    /// proxy: a plain answer as a rule.
    Proxy,
}

impl<'a> Request<'a> {
    /// Reads both names. `None` when the method is none of Kubernetes'.
    pub(crate) fn parse(method: &'a str, resource_name: &'a str) -> Option<Request<'a>> {
        let path = resource_name.trim_matches('/');
        if let Some(verb) = method.strip_prefix("io.k8s.")
            && !verb.contains('.')
        {
            return (!verb.is_empty()).then_some(Request {
                verb,
                target: Target::Path(path),
                anchored: true,
            });
        }
        let mut rest = path;
        let (group, version) = (segment(&mut rest), segment(&mut rest));
        let anchor = anchored(method, group, version);
        let is_anchored = anchor.is_some();
        let (call, group, version, body) = match anchor {
            Some(call) => (call, Cow::Borrowed(full_group(group)), version, rest),
            None => {
                let (call, of_method) = Call::by_version(method)?;
                if is_version(version) && !group.is_empty() {
                    (call, Cow::Borrowed(full_group(group)), version, rest)
                } else {
                    let group = group_of(of_method.prefix)?;
                    (call, group, of_method.version, path)
                }
            }
        };
        let mut target = Resource {
            group,
            version,
            resource: call.resource,
            subresource: call.subresource,
            ..Resource::default()
        };
        target.read_path(body);
        Some(Request {
            verb: call.verb,
            target: Target::Resource(target),
            anchored: is_anchored,
        })
    }

    pub(crate) fn resource(&self) -> Option<&Resource<'a>> {
        match &self.target {
            Target::Resource(resource) => Some(resource),
            Target::Path(_) => None,
        }
    }

    pub(crate) fn connect(&self) -> Option<Connect> {
        match self.resource()?.subresource {
            "exec" | "attach" | "portforward" => Some(Connect::Upgrade),
            "proxy" => Some(Connect::Proxy),
            _ => None,
        }
    }

    /// `objectRef.namespace`: a namespace lies in itself, unless it is being created
    /// (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`).
    pub(crate) fn object_namespace(&self) -> &'a str {
        match self.resource() {
            Some(resource) if resource.resource == "namespaces" => match self.verb {
                "create" => "",
                _ => resource.name,
            },
            Some(resource) => resource.namespace,
            None => "",
        }
    }
}

impl<'a> Resource<'a> {
    /// Reads what follows group and version in the resource name.
    fn read_path(&mut self, mut body: &'a str) {
        if self.resource != "namespaces"
            && let Some(rest) = body.strip_prefix("namespaces/")
        {
            body = rest;
            self.namespace = segment(&mut body);
        }
        if segment(&mut body) != self.resource {
            return;
        }
        self.name = segment(&mut body);
        let mut rest = body;
        let first = segment(&mut rest);
        if self.subresource.is_empty() {
            self.subresource = first;
            body = rest;
        } else if first == self.subresource {
            body = rest;
        }
        // GKE up to 1.13 wrote the pod's name once more behind exec and attach.
        let doubled =
            body == self.name && matches!(self.subresource, "exec" | "attach" | "portforward");
        self.rest = if doubled { "" } else { body };
    }
}

/// The last tokens of a method.
struct Call<'a> {
    resource: &'a str,
    subresource: &'a str,
    verb: &'a str,
}

/// The tokens before them, when the method alone must tell.
struct OfMethod<'a> {
    prefix: &'a str,
    version: &'a str,
}

impl<'a> Call<'a> {
    /// `resource.verb` or `resource.subresource.verb`.
    fn read(tail: &'a str) -> Option<Call<'a>> {
        let (rest, verb) = tail.rsplit_once('.')?;
        let (resource, subresource) = match rest.split_once('.') {
            Some((_, "")) => return None,
            Some((resource, subresource)) => (resource, subresource),
            None => (rest, ""),
        };
        let whole = !resource.is_empty() && !verb.is_empty() && !subresource.contains('.');
        whole.then_some(Call {
            resource,
            subresource,
            verb,
        })
    }

    /// Finds the last token that looks like a version and has two or three tokens behind it.
    fn by_version(method: &'a str) -> Option<(Call<'a>, OfMethod<'a>)> {
        let mut dots = method.rmatch_indices('.').map(|(at, _)| at).skip(1);
        let candidates = [dots.next(), dots.next()];
        candidates.into_iter().flatten().find_map(|dot| {
            let (head, tail) = method.split_at_checked(dot)?;
            let (prefix, version) = head.rsplit_once('.').unwrap_or(("", head));
            let call = Call::read(tail.strip_prefix('.')?)?;
            is_version(version).then_some((call, OfMethod { prefix, version }))
        })
    }
}

/// The call that is left of `method` behind this group and version.
fn anchored<'a>(method: &'a str, group: &str, version: &str) -> Option<Call<'a>> {
    if group.is_empty() || version.is_empty() {
        return None;
    }
    let mut rest = method;
    if !group.contains('.') {
        rest = rest.strip_prefix("io.k8s.")?;
    }
    for label in group.rsplit('.').chain([version]) {
        rest = rest.strip_prefix(label)?.strip_prefix('.')?;
    }
    Call::read(rest)
}

/// The group that a method's first tokens name.
fn group_of(prefix: &str) -> Option<Cow<'_, str>> {
    if prefix.split('.').any(str::is_empty) {
        return None;
    }
    let labels: Vec<&str> = prefix.rsplit('.').collect();
    let group = labels.join(".");
    Some(match short_group(&group) {
        short if short.len() == group.len() => Cow::Owned(group),
        short => Cow::Owned(short.to_owned()),
    })
}

/// Group of a resource name: only the core group, which has no name, was given one.
fn full_group(group: &str) -> &str {
    if group == "core" { "" } else { group }
}

/// The group's real name where Google extended it by `.k8s.io`.
pub(crate) fn short_group(group: &str) -> &str {
    match group.strip_suffix(".k8s.io") {
        Some("core") => "",
        Some(short) if SHORT_GROUPS.contains(&short) => short,
        _ => group,
    }
}

/// `v1`, `v2beta1`, …
pub(crate) fn is_version(token: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(rest) = token.strip_prefix('v') else {
        return false;
    };
    match rest.split_once("alpha").or_else(|| rest.split_once("beta")) {
        Some((major, minor)) => digits(major) && digits(minor),
        None => digits(rest),
    }
}

/// Takes the first segment off a path.
fn segment<'a>(path: &mut &'a str) -> &'a str {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    *path = rest;
    first
}

#[cfg(test)]
mod tests;
