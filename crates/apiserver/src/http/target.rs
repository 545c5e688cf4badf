//! What a path and a method ask for.
//!
//! Paths: <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris>.

use http::Method;

use crate::auth::rules::Attempt;

/// A path, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Something outside the resources: discovery, health, version.
    Path(String),
    /// A resource, an object or a subresource.
    Resource(ResourceTarget),
}

/// A path below `/api/v1` or `/apis/group/version`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceTarget {
    /// Group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Resource.
    pub plural: String,
    /// Namespace, if the path names one.
    pub namespace: Option<String>,
    /// Object, if the path names one.
    pub name: Option<String>,
    /// Subresource, if the path names one.
    pub subresource: Option<String>,
}

impl Target {
    /// Reads a path.
    pub fn parse(path: &str) -> Self {
        resource_target(path).map_or_else(|| Self::Path(path.to_owned()), Self::Resource)
    }

    /// What the request attempts, for authorization.
    pub fn attempt<'a>(&'a self, method: &'a Method, watch: bool) -> Attempt<'a> {
        match self {
            Self::Path(path) => Attempt { verb: path_verb(method), path, ..Attempt::default() },
            Self::Resource(target) => Attempt {
                verb: target.verb(method, watch),
                group: &target.group,
                resource: &target.plural,
                subresource: target.subresource.as_deref().unwrap_or_default(),
                namespace: target.namespace.as_deref().unwrap_or_default(),
                name: target.name.as_deref().unwrap_or_default(),
                path: "",
            },
        }
    }
}

impl ResourceTarget {
    /// The Kubernetes verb of a method on this target.
    pub fn verb(&self, method: &Method, watch: bool) -> &'static str {
        match (method.as_str(), &self.name) {
            ("GET" | "HEAD", _) if watch => "watch",
            ("GET" | "HEAD", Some(_)) => "get",
            ("GET" | "HEAD", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", Some(_)) => "delete",
            ("DELETE", None) => "deletecollection",
            _ => "",
        }
    }
}

fn path_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

fn resource_target(path: &str) -> Option<ResourceTarget> {
    let segments: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let owned = |word: &str| Some(word.to_owned());
    let (namespace, plural, name, subresource) = match rest {
        [] | [""] => return None,
        // The namespace itself and its own subresources share the shape of a namespaced path.
        ["namespaces"] => (None, "namespaces", None, None),
        ["namespaces", name] => (owned(name), "namespaces", owned(name), None),
        ["namespaces", name, sub @ ("status" | "finalize")] => (owned(name), "namespaces", owned(name), owned(sub)),
        ["namespaces", namespace, plural] => (owned(namespace), *plural, None, None),
        ["namespaces", namespace, plural, name] => (owned(namespace), *plural, owned(name), None),
        ["namespaces", namespace, plural, name, sub @ ..] => {
            (owned(namespace), *plural, owned(name), Some(sub.join("/")))
        }
        [plural] => (None, *plural, None, None),
        [plural, name] => (None, *plural, owned(name), None),
        [plural, name, sub @ ..] => (None, *plural, owned(name), Some(sub.join("/"))),
    };
    Some(ResourceTarget {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        namespace,
        name,
        subresource,
    })
}

/// A path segment without percent-encoding (RFC 3986, 2.1); a malformed one stays as it is and then names nothing.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = (first == b'%').then(|| tail.get(..2)).flatten().and_then(hexadecimal);
        bytes.push(escape.unwrap_or(first));
        rest = if escape.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| segment.to_owned())
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> ResourceTarget {
        match Target::parse(path) {
            Target::Resource(target) => target,
            Target::Path(path) => panic!("{path} is no resource"),
        }
    }

    #[test]
    fn paths_name_groups_namespaces_objects_and_subresources() {
        let log = target("/api/v1/namespaces/default/pods/web-0/log");
        assert_eq!((log.group.as_str(), log.version.as_str(), log.plural.as_str()), ("", "v1", "pods"));
        assert_eq!(log.namespace.as_deref(), Some("default"));
        assert_eq!(log.name.as_deref(), Some("web-0"));
        assert_eq!(log.subresource.as_deref(), Some("log"));
        let pool = target("/apis/crd.projectcalico.org/v1/ippools/default%3Apool");
        assert_eq!(pool.group, "crd.projectcalico.org");
        assert_eq!(pool.name.as_deref(), Some("default:pool"));
    }

    #[test]
    fn a_namespace_is_an_object_and_a_place() {
        let itself = target("/api/v1/namespaces/default");
        assert_eq!((itself.plural.as_str(), itself.name.as_deref()), ("namespaces", Some("default")));
        let finalize = target("/api/v1/namespaces/default/finalize");
        assert_eq!((finalize.plural.as_str(), finalize.subresource.as_deref()), ("namespaces", Some("finalize")));
        let inside = target("/api/v1/namespaces/default/pods");
        assert_eq!((inside.plural.as_str(), inside.name), ("pods", None));
    }

    #[test]
    fn discovery_is_no_resource() {
        for path in ["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/openapi/v3"] {
            assert_eq!(Target::parse(path), Target::Path(path.to_owned()));
        }
    }

    #[test]
    fn a_get_without_a_name_is_a_list_or_a_watch() {
        let pods = target("/api/v1/pods");
        assert_eq!(pods.verb(&Method::GET, false), "list");
        assert_eq!(pods.verb(&Method::GET, true), "watch");
        assert_eq!(pods.verb(&Method::DELETE, false), "deletecollection");
    }
}
