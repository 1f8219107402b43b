//! Parses `methodName` and `resourceName`: the verb, and the object or path.
//!
//! ```text
//! methodName   = rev(FQ(group)) "." version "." resource ["." subresource] "." verb
//!              | "io.k8s." httpMethod                            (no resource: exactly 3 tokens)
//! resourceName = ("core" | group) "/" version ["/namespaces/" ns] "/" resource
//!                    ["/" name ["/" subresource ["/" rest]]]
//!              | path without its leading slash                  (no resource)
//! ```
//!
//! `FQ(group)` is the group if it has a dot, else `group.k8s.io`; `rev` reverses its labels. The
//! resource name has the group verbatim. Its segments are divided by the API server's own rules
//! (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`), unless the method contradicts. Both
//! names are free text to us, much of it chosen by the client (a path that nobody serves has a
//! resource and a subresource too, which may contain dots), so parsing accepts any text.

use std::borrow::Cow;

use crate::wire::names::{is_version, short_group};

/// The resource `namespaces`, and the path segment of that name.
const NAMESPACES: &str = "namespaces";
/// What follows a namespace without being a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// One request to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// Kubernetes' verb; for a path without resource the HTTP method in lower case. Empty where
    /// Kubernetes has none for the HTTP method.
    pub(crate) verb: &'a str,
    pub(crate) target: RequestTarget<'a>,
    /// Method and resource name name the same group and version: no other service's entry.
    pub(crate) anchored: bool,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestTarget<'a> {
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

/// Subresources that take over the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connect {
    /// exec, attach, portforward: always upgraded.
    Upgrade,
    /// proxy: a plain answer as a rule.
    Proxy,
}

impl<'a> Request<'a> {
    /// Parses both names. `None` if the method is not Kubernetes'.
    pub(crate) fn parse(method: &'a str, resource_name: &'a str) -> Option<Request<'a>> {
        let path = resource_name.trim_matches('/');
        if let Some(verb) = method.strip_prefix("io.k8s.")
            && !verb.contains('.')
        {
            return (!verb.is_empty()).then_some(Request {
                verb,
                target: RequestTarget::Path(path),
                anchored: true,
            });
        }
        let mut body = path;
        let (group, version) = (segment(&mut body), segment(&mut body));
        if let Some(tail) = strip_group(method, group, version)
            && let Some(call) = Call::read_along(tail, body).or_else(|| Call::read(tail))
        {
            let group = Cow::Borrowed(full_group(group));
            return Some(Request::of_call(call, group, version, body, true));
        }
        let (call, of_method) = Call::by_version(method)?;
        if is_version(version) && !group.is_empty() {
            let group = Cow::Borrowed(full_group(group));
            return Some(Request::of_call(call, group, version, body, false));
        }
        let group = group_of(of_method.prefix)?;
        Some(Request::of_call(
            call,
            group,
            of_method.version,
            path,
            false,
        ))
    }

    /// Derives what is possible if the method is missing or unknown, so that no request of
    /// Kubernetes' audit log is lost. The last token of the method becomes the verb, and what the
    /// resource name lacks stays empty.
    pub(crate) fn guess(method: &'a str, resource_name: &'a str) -> Request<'a> {
        let path = resource_name.trim_matches('/');
        let without_resource = method.strip_prefix("io.k8s.");
        let last_token = method.rsplit('.').next().unwrap_or_default();
        let verb = without_resource.unwrap_or(last_token);
        let mut body = path;
        let (group, version) = (segment(&mut body), segment(&mut body));
        let resource = resource_of(body).0;
        if without_resource.is_some()
            || group.is_empty()
            || !is_version(version)
            || resource.is_empty()
        {
            return Request {
                verb,
                target: RequestTarget::Path(path),
                anchored: false,
            };
        }
        let call = Call {
            resource,
            subresource: "",
            verb,
        };
        let group = Cow::Borrowed(full_group(group));
        Request::of_call(call, group, version, body, false)
    }

    fn of_call(
        call: Call<'a>,
        group: Cow<'a, str>,
        version: &'a str,
        body: &'a str,
        anchored: bool,
    ) -> Request<'a> {
        let mut target = Resource {
            group,
            version,
            resource: call.resource,
            subresource: call.subresource,
            ..Resource::default()
        };
        target.read_path(body);
        Request {
            verb: call.verb,
            target: RequestTarget::Resource(target),
            anchored,
        }
    }

    pub(crate) fn resource(&self) -> Option<&Resource<'a>> {
        match &self.target {
            RequestTarget::Resource(resource) => Some(resource),
            RequestTarget::Path(_) => None,
        }
    }

    pub(crate) fn connect(&self) -> Option<Connect> {
        match self.resource()?.subresource {
            "exec" | "attach" | "portforward" => Some(Connect::Upgrade),
            "proxy" => Some(Connect::Proxy),
            _ => None,
        }
    }

    /// `objectRef.namespace`. A path that ends in `namespaces/NAME` has its own namespace, in any
    /// group, as the API server checks no group (`requestinfo.go`). Paths of verbs on collections
    /// have no name: if there is one, it is of the new object or a field selector.
    pub(crate) fn object_namespace(&self) -> &'a str {
        match self.resource() {
            Some(resource) if resource.namespace.is_empty() && resource.resource == NAMESPACES => {
                if resource.subresource.is_empty() && is_of_collection(self.verb) {
                    ""
                } else {
                    resource.name
                }
            }
            Some(resource) => resource.namespace,
            None => "",
        }
    }
}

impl<'a> Resource<'a> {
    /// Parses the resource name after group and version.
    fn read_path(&mut self, mut body: &'a str) {
        let mut rest = body;
        if segment(&mut rest) == NAMESPACES && !rest.is_empty() {
            let namespace = segment(&mut rest);
            // A namespaced resource may have this name itself.
            if self.resource != NAMESPACES || first_segment(rest) == NAMESPACES {
                self.namespace = namespace;
                body = rest;
            }
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
        // GKE up to 1.13 repeated the pod's name after exec and attach.
        let doubled =
            body == self.name && matches!(self.subresource, "exec" | "attach" | "portforward");
        self.rest = if doubled { "" } else { body };
    }
}

/// The last tokens of a method.
#[derive(Debug, Clone, Copy)]
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
    /// Parses a method after group and version, where the path tells which dots are separators.
    /// `None` if the two name different resources.
    fn read_along(tail: &'a str, body: &str) -> Option<Call<'a>> {
        let (resource, subresource) = resource_of(body);
        let rest = tail
            .strip_prefix(resource)
            .filter(|_| !resource.is_empty())?;
        let resource = tail.get(..resource.len())?;
        let call = |subresource, verb| Call {
            resource,
            subresource,
            verb,
        };
        let Some(rest) = rest.strip_prefix('.') else {
            return rest.is_empty().then_some(call("", ""));
        };
        if !subresource.is_empty()
            && let Some(verb) = rest.strip_prefix(subresource)
            && (verb.is_empty() || verb.starts_with('.'))
        {
            let verb = verb.trim_start_matches('.');
            return Some(call(rest.get(..subresource.len())?, verb));
        }
        let dot = rest.bytes().rposition(|byte| byte == b'.');
        let (subresource, verb) = match dot {
            Some(dot) => (rest.get(..dot)?, rest.get(dot + 1..)?),
            None => ("", rest),
        };
        Some(call(subresource, verb))
    }

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

/// The rest of `method` after this group and version.
fn strip_group<'a>(method: &'a str, group: &str, version: &str) -> Option<&'a str> {
    if group.is_empty() {
        return None;
    }
    let behind = |rest: &'a str, label: &str| rest.strip_prefix(label)?.strip_prefix('.');
    let rest = match group.contains('.') {
        true => group.rsplit('.').try_fold(method, behind)?,
        false => behind(method.strip_prefix("io.k8s.")?, group)?,
    };
    behind(rest, version)
}

/// Resource and subresource of a path behind group and version, by `requestinfo.go`.
fn resource_of(body: &str) -> (&str, &str) {
    let mut parts = body;
    let mut rest = body;
    if segment(&mut rest) == NAMESPACES {
        segment(&mut rest);
        if !rest.is_empty() && !NAMESPACE_SUBRESOURCES.contains(&first_segment(rest)) {
            parts = rest;
        }
    }
    let resource = segment(&mut parts);
    segment(&mut parts);
    (resource, segment(&mut parts))
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

/// The group of a resource name: only the core group, whose name is empty, is written differently.
fn full_group(group: &str) -> &str {
    if group == "core" { "" } else { group }
}

/// Verbs that concern a collection: their path ends before a name.
pub(crate) fn is_of_collection(verb: &str) -> bool {
    matches!(verb, "create" | "list" | "watch" | "deletecollection")
}

fn first_segment(mut path: &str) -> &str {
    segment(&mut path)
}

/// Takes the first segment off a path.
fn segment<'a>(path: &mut &'a str) -> &'a str {
    let whole = *path;
    let end = memchr::memchr(b'/', whole.as_bytes()).unwrap_or(whole.len());
    *path = whole.get(end + 1..).unwrap_or_default();
    whole.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
