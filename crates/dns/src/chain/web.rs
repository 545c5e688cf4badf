//! `https` and `grpc_server`: what servers of DNS over HTTPS and gRPC bear.

use super::{read, scope::Scope};
use crate::corefile::{CorefileError, Directive, Scheme};

/// `https`, `grpc_server`: bounds of a port where HTTP is spoken; none means the server's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebOptions {
    /// Connections at once; the largest number means any. One client address may have a quarter of them, and one at least.
    pub max_connections: Option<usize>,
    /// Requests of one connection at once; the largest number means any.
    pub max_streams: Option<u32>,
}

/// `https { max_connections NUMBER }`.
pub(super) fn https(directive: &Directive, scope: &mut Scope<'_>) -> Result<WebOptions, CorefileError> {
    options(directive, scope, Scheme::Https, "https", &["max_connections"])
}

/// `grpc_server { max_streams NUMBER, max_connections NUMBER }`, each on its line.
pub(super) fn grpc_server(directive: &Directive, scope: &mut Scope<'_>) -> Result<WebOptions, CorefileError> {
    options(directive, scope, Scheme::Grpc, "grpc_server", &["max_streams", "max_connections"])
}

fn options(
    directive: &Directive,
    scope: &mut Scope<'_>,
    scheme: Scheme,
    plugin: &'static str,
    known: &[&'static str],
) -> Result<WebOptions, CorefileError> {
    read::at_most(directive, 0)?;
    let mut options = WebOptions::default();
    scope.options(directive, |_, option| {
        if !known.contains(&option.name.text.as_str()) {
            return Err(read::unknown(plugin, option, known));
        }
        let number = read::number(read::one(option, "a number, or 0 for any")?, &option.name.text, 0, i32::MAX as u64)?;
        match option.name.text.as_str() {
            "max_streams" => options.max_streams = Some(if number == 0 { u32::MAX } else { number as u32 }),
            _ => options.max_connections = Some(if number == 0 { usize::MAX } else { number as usize }),
        }
        Ok(())
    });
    if scope.keys.iter().all(|key| key.scheme != scheme) {
        let (place, scheme) = (&directive.name.place, scheme.name());
        scope.warnings.push(format!("{place}: {plugin} has no effect: its server block has no {scheme}://"));
    }
    Ok(options)
}
