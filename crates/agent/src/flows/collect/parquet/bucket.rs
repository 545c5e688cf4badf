//! Files in a bucket of S3, or of whoever speaks as it does.

use std::{env, fs, os::unix::fs::PermissionsExt};

use axum::http::{Request, Uri, header};
use http_body_util::Full;
use k8s_openapi::jiff::Timestamp;

use super::signature::{Keys, Unsigned, hash};
use crate::flows::collect::{
    SendError, credentials,
    target::Web,
    web::{Server, refusal},
};

/// Who else than the owner may do anything with a file.
const OTHERS: u32 = 0o077;
/// Where AWS's own programs look for keys.
const ACCESS: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

pub(super) struct Bucket {
    server: Server,
    region: String,
}

impl Bucket {
    pub(super) const fn new(web: Web, region: String) -> Self {
        Self { server: Server::new(web), region }
    }

    /// Puts a file there, in the place of one of the same name.
    pub(super) async fn put(&mut self, name: &str, content: Vec<u8>) -> Result<(), SendError> {
        let request = self.request(name, content, Timestamp::now())?;
        let url = request.uri().clone();
        let (status, body) = self.server.ask(request).await?;
        // Rights are given and buckets made by people, who may be later than the flows.
        if status.is_success() { Ok(()) } else { Err(SendError::Away(refusal(&url, status, &body))) }
    }

    fn request(
        &self,
        name: &str,
        content: Vec<u8>,
        now: Timestamp,
    ) -> Result<Request<Full<hyper::body::Bytes>>, SendError> {
        let web = self.server.web();
        let keys = keys(web.credentials.as_deref())?;
        let (host, path) = (host(&web.url), format!("{}/{name}", web.url.path().trim_end_matches('/')));
        let (hash, at) = (hash(&content), now.strftime("%Y%m%dT%H%M%SZ").to_string());
        let mut headers =
            vec![("host", host.as_str()), ("x-amz-content-sha256", hash.as_str()), ("x-amz-date", at.as_str())];
        headers.extend(keys.token.as_deref().map(|token| ("x-amz-security-token", token)));
        let unsigned = Unsigned { method: "PUT", path: &path, headers: &headers, hash: &hash, at: &at };
        let authority = web.url.authority().map(ToString::to_string).unwrap_or_default();
        let scheme = web.url.scheme_str().unwrap_or_default();
        let mut request = Request::put(format!("{scheme}://{authority}{path}"))
            .header(header::CONTENT_TYPE, "application/vnd.apache.parquet")
            .header(header::AUTHORIZATION, unsigned.authorization(&keys, &self.region));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(Full::from(content)).map_err(|error| SendError::Away(error.to_string()))
    }
}

/// As it stands in the request: without the port where that is the scheme's own.
fn host(url: &Uri) -> String {
    let name = url.host().unwrap_or_default();
    match (url.scheme_str(), url.port_u16()) {
        (Some("https"), Some(443)) | (Some("http"), Some(80)) | (_, None) => name.to_owned(),
        (_, Some(port)) => format!("{name}:{port}"),
    }
}

/// Those of a file, or of the environment.
fn keys(path: Option<&str>) -> Result<Keys, SendError> {
    let Some(path) = path else {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let (access, secret) = variable(ACCESS).zip(variable(SECRET)).ok_or_else(|| {
            let remedy = "or name a file with them: ?credentials=FILE";
            SendError::Away(format!("there are no keys: set {ACCESS} and {SECRET}, {remedy}"))
        })?;
        return Ok(Keys { access, secret, token: variable(TOKEN) });
    };
    let told = |error: &dyn std::fmt::Display| SendError::Away(format!("{path}: {error}"));
    let mode = fs::metadata(path).map_err(|error| told(&error))?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(told(&"others may read the keys in it: chmod 600"));
    }
    let text = credentials::read(path)?;
    let mut parts = text.splitn(3, ':').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(access), Some(secret), token) if !access.is_empty() && !secret.is_empty() => {
            Ok(Keys { access, secret, token })
        }
        _ => Err(told(&"it is neither ACCESS_KEY:SECRET_KEY nor that with :SESSION_TOKEN behind it")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn keys_are_read_where_nobody_else_may_read_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let read = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            keys(path.to_str()).map(|keys| (keys.access, keys.secret, keys.token)).map_err(|error| error.to_string())
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(read("access:secret\n", 0o600), Ok((text("access"), text("secret"), None)));
        let token = Some(text("token:with:colons"));
        assert_eq!(read("access:secret:token:with:colons", 0o400), Ok((text("access"), text("secret"), token)));
        for (wrong, mode, named) in [
            ("access:secret", 0o640, "chmod 600"),
            ("access:secret", 0o604, "chmod 600"),
            ("access", 0o600, "ACCESS_KEY:SECRET_KEY"),
            (":secret", 0o600, "ACCESS_KEY:SECRET_KEY"),
        ] {
            let error = read(wrong, mode).unwrap_err();
            assert!(error.contains(named) && !error.contains("access:"), "{error}");
        }
        assert!(keys(Some("/nowhere/keys")).is_err_and(|error| error.to_string().contains("/nowhere/keys")));
    }

    #[test]
    fn a_host_is_called_as_it_stands_in_a_request() {
        for (url, expected) in [
            ("https://flows.a:443/b", "flows.a"),
            ("https://a:9000/b", "a:9000"),
            ("http://a:80", "a"),
            ("http://[::1]:9000", "[::1]:9000"),
        ] {
            assert_eq!(host(&url.parse().unwrap()), expected);
        }
    }
}
