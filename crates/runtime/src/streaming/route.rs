//! Paths and queries of the streaming server, as a kubelet documents them.

use chrono::{DateTime, TimeDelta, Utc};

use super::logs::{LogOptions, LogStream};
use crate::access::ContainerRef;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/healthz`.
    Health,
    /// `/exec/<namespace>/<pod>/<container>`.
    Exec(ContainerRef, ExecQuery),
    /// `/attach/…`, which needs the container's own streams.
    Attach,
    /// `/containerLogs/<namespace>/<pod>/<container>`; with `previous`, of its last finished run.
    Logs { target: ContainerRef, previous: bool, options: LogOptions },
}

/// The parameters of an exec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExecQuery {
    pub(super) command: Vec<String>,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// Why a request means nothing here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("no such path: {0}; there are /exec, /attach, /containerLogs and /healthz")]
    Path(String),
    #[error("query parameter {name} is {value:?}; it has to be {allowed}")]
    Parameter { name: String, value: String, allowed: &'static str },
    #[error("query parameter command is missing")]
    NoCommand,
    #[error("at least one of stdin, stdout and stderr has to be asked for")]
    NoStream,
    #[error("sinceSeconds and sinceTime exclude each other")]
    TwoStarts,
}

/// Reads a request's path and query; `now` is what `sinceSeconds` counts back from.
pub(super) fn parse(path: &str, query: &str, now: DateTime<Utc>) -> Result<Route, BadRequest> {
    let mut segments = path.trim_matches('/').split('/');
    let kind = segments.next().unwrap_or_default();
    let rest: Vec<&str> = segments.collect();
    let no_path = || BadRequest::Path(path.to_owned());
    match kind {
        "healthz" if rest.is_empty() => Ok(Route::Health),
        "exec" => Ok(Route::Exec(target(&rest).ok_or_else(no_path)?, exec_query(query)?)),
        "attach" => target(&rest).map(|_| Route::Attach).ok_or_else(no_path),
        "containerLogs" => logs(target(&rest).ok_or_else(no_path)?, query, now),
        _ => Err(no_path()),
    }
}

/// `<namespace>/<pod>[/<container>]`. Names are DNS labels and subdomains, which no escaping ever touches.
fn target(segments: &[&str]) -> Option<ContainerRef> {
    let (namespace, pod, container) = match segments {
        [namespace, pod] => (namespace, pod, None),
        [namespace, pod, container] => (namespace, pod, (!container.is_empty()).then(|| (*container).to_owned())),
        _ => return None,
    };
    if namespace.is_empty() || pod.is_empty() {
        return None;
    }
    Some(ContainerRef { namespace: (*namespace).to_owned(), pod: (*pod).to_owned(), container })
}

/// The API server's names for the streams are `stdin`, `stdout`, `stderr`; a kubelet's are `input`, `output`, `error`. Both are taken.
fn exec_query(query: &str) -> Result<ExecQuery, BadRequest> {
    let mut exec = ExecQuery::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "command" => exec.command.push(value.into_owned()),
            "stdin" | "input" => exec.stdin = flag(&name, &value)?,
            "stdout" | "output" => exec.stdout = flag(&name, &value)?,
            "stderr" | "error" => exec.stderr = flag(&name, &value)?,
            "tty" => exec.tty = flag(&name, &value)?,
            _ => {}
        }
    }
    if exec.command.is_empty() {
        return Err(BadRequest::NoCommand);
    }
    // A terminal has one output.
    exec.stderr &= !exec.tty;
    if !(exec.stdin || exec.stdout || exec.stderr) {
        return Err(BadRequest::NoStream);
    }
    Ok(exec)
}

fn logs(target: ContainerRef, query: &str, now: DateTime<Utc>) -> Result<Route, BadRequest> {
    let mut options = LogOptions::default();
    let (mut previous, mut since_seconds, mut since_time) = (false, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "follow" => options.follow = flag(&name, &value)?,
            "previous" => previous = flag(&name, &value)?,
            "timestamps" => options.timestamps = flag(&name, &value)?,
            "tailLines" => options.tail = Some(number(&name, &value, 0, "a number of lines, 0 or more")?),
            "limitBytes" => options.limit = Some(number(&name, &value, 1, "a number of bytes, 1 or more")?),
            "sinceSeconds" => since_seconds = Some(number(&name, &value, 1, "a number of seconds, 1 or more")?),
            "sinceTime" => since_time = Some(time(&name, &value)?),
            "stream" => options.stream = stream(&name, &value)?,
            _ => {}
        }
    }
    options.since = match (since_seconds, since_time) {
        (Some(_), Some(_)) => return Err(BadRequest::TwoStarts),
        (Some(seconds), None) => {
            i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds).and_then(|ago| now.checked_sub_signed(ago))
        }
        (None, since) => since,
    };
    Ok(Route::Logs { target, previous, options })
}

fn flag(name: &str, value: &str) -> Result<bool, BadRequest> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" | "" => Ok(false),
        _ => Err(bad(name, value, "true or false")),
    }
}

fn number(name: &str, value: &str, least: u64, allowed: &'static str) -> Result<u64, BadRequest> {
    value.parse().ok().filter(|number| *number >= least).ok_or_else(|| bad(name, value, allowed))
}

fn time(name: &str, value: &str) -> Result<DateTime<Utc>, BadRequest> {
    DateTime::parse_from_rfc3339(value)
        .map(|time| time.to_utc())
        .map_err(|_| bad(name, value, "a time as RFC 3339 has it"))
}

fn stream(name: &str, value: &str) -> Result<Option<LogStream>, BadRequest> {
    match value {
        "" | "All" => Ok(None),
        "Stdout" => Ok(Some(LogStream::Stdout)),
        "Stderr" => Ok(Some(LogStream::Stderr)),
        _ => Err(bad(name, value, "All, Stdout or Stderr")),
    }
}

fn bad(name: &str, value: &str, allowed: &'static str) -> BadRequest {
    BadRequest::Parameter { name: name.to_owned(), value: value.to_owned(), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(uri: &str) -> Result<Route, BadRequest> {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        parse(path, query, DateTime::from_timestamp(1_000_000, 0).unwrap())
    }

    fn web() -> ContainerRef {
        ContainerRef { namespace: "default".into(), pod: "web".into(), container: Some("nginx".into()) }
    }

    #[test]
    fn an_exec_keeps_the_order_and_the_escapes_of_its_command() {
        let Ok(Route::Exec(target, query)) = route(
            "/exec/default/web/nginx?command=sh&command=-c&command=echo+%24HOME%26&stdin=true&stdout=1&stderr=true",
        ) else {
            panic!("not an exec")
        };
        assert_eq!(target, web());
        assert_eq!(query.command, ["sh", "-c", "echo $HOME&"]);
        assert!(query.stdin && query.stdout && query.stderr && !query.tty);
    }

    #[test]
    fn a_terminal_has_no_standard_error() {
        let Ok(Route::Exec(_, query)) = route("/exec/default/web/nginx?command=sh&output=1&error=1&tty=1") else {
            panic!("not an exec")
        };
        assert!(query.stdout && !query.stderr);
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_name() {
        assert_eq!(route("/exec/default/web/nginx?stdout=1"), Err(BadRequest::NoCommand));
        assert_eq!(route("/exec/default/web/nginx?command=ls"), Err(BadRequest::NoStream));
        assert!(matches!(route("/exec/default/web/nginx?command=ls&tty=maybe"), Err(BadRequest::Parameter { .. })));
        assert!(matches!(route("/exec/default"), Err(BadRequest::Path(_))));
        assert!(matches!(route("/run/default/web/nginx"), Err(BadRequest::Path(_))));
    }

    #[test]
    fn logs_take_every_option_of_the_api() {
        let uri = "/containerLogs/default/web/nginx?follow=true&previous=true&timestamps=true&tailLines=3&limitBytes=9&sinceSeconds=60";
        let options = LogOptions {
            follow: true,
            timestamps: true,
            tail: Some(3),
            limit: Some(9),
            since: DateTime::from_timestamp(1_000_000 - 60, 0),
            stream: None,
        };
        assert_eq!(route(uri), Ok(Route::Logs { target: web(), previous: true, options }));
    }

    #[test]
    fn contradictory_and_impossible_log_options_are_refused() {
        let both = "/containerLogs/default/web/nginx?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z";
        assert_eq!(route(both), Err(BadRequest::TwoStarts));
        for query in ["tailLines=-1", "limitBytes=0", "sinceSeconds=0", "sinceTime=yesterday", "stream=Both"] {
            assert!(
                matches!(route(&format!("/containerLogs/default/web?{query}")), Err(BadRequest::Parameter { .. })),
                "{query}"
            );
        }
    }
}
