//! Image references: `[registry[:port]/]path[:tag][@digest]`, in the short forms that Docker made usual.

use std::fmt;

use super::ImageError;

/// A reference with nothing left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Reads a reference; `nginx` becomes `docker.io/library/nginx:latest`.
    ///
    /// # Errors
    /// [`ImageError::Reference`] for what no registry could serve.
    pub fn parse(text: &str) -> Result<Reference, ImageError> {
        let bad = |reason| ImageError::Reference { reference: text.to_owned(), reason };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a registry's port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, path) = split_registry(name);
        if path.is_empty() || !path.split('/').all(is_component) {
            return Err(bad("a path has lower-case letters, digits and single separators . _ - between slashes"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag has at most 128 letters, digits, _ . and -"));
        }
        if digest.is_some_and(|digest| sha256_digits(digest).is_none()) {
            return Err(bad("a digest is sha256: and 64 hexadecimal digits"));
        }
        Ok(Reference {
            registry,
            path,
            tag: tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned())),
            digest: digest.map(str::to_owned),
        })
    }

    /// Registry and path, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// The tag; none where a digest was given alone.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The 64 digits of a `sha256:` digest, in lower case.
pub(super) fn sha256_digits(digest: &str) -> Option<&str> {
    let digits = digest.strip_prefix("sha256:")?;
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (digits.len() == 64 && digits.bytes().all(hexadecimal)).then_some(digits)
}

/// The first component is a registry when it could not be a user's name.
fn split_registry(name: &str) -> (String, String) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            let registry = if first == "index.docker.io" { "docker.io" } else { first };
            let official = registry == "docker.io" && !rest.contains('/');
            (registry.to_owned(), if official { format!("library/{rest}") } else { rest.to_owned() })
        }
        Some(_) => ("docker.io".to_owned(), name.to_owned()),
        None => ("docker.io".to_owned(), if name.is_empty() { String::new() } else { format!("library/{name}") }),
    }
}

fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(*byte) || b"._-".contains(byte))
        && !component.contains("..")
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_mean_what_docker_made_them_mean() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        for (short, long) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("ikubernetes/demoapp:v1.0", "docker.io/ikubernetes/demoapp:v1.0"),
            ("registry.k8s.io/e2e-test-images/agnhost:2.39", "registry.k8s.io/e2e-test-images/agnhost:2.39"),
            ("localhost/a", "localhost/a:latest"),
            ("10.0.0.1:5000/a/b", "10.0.0.1:5000/a/b:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
        ] {
            assert_eq!(Reference::parse(short).unwrap().to_string(), long);
        }
        let pinned = Reference::parse(&format!("nginx@{digest}")).unwrap();
        assert_eq!(pinned.to_string(), format!("docker.io/library/nginx@{digest}"));
        assert_eq!(pinned.tag(), None);
        let both = Reference::parse(&format!("nginx:1@{digest}")).unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/nginx:1@{digest}"));
    }

    #[test]
    fn what_no_registry_serves_is_refused() {
        for text in [
            "",
            ":tag",
            "Nginx",
            "a//b",
            "a/../b",
            "nginx:",
            "nginx:a b",
            "nginx@sha256:12",
            "nginx@md5:aa",
            "-a",
            "a..b",
            "/",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }
}
