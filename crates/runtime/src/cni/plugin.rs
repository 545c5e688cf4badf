//! One execution of one plugin.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

/// A plugin that takes longer is killed. It is longer than what podnet's own plugin waits for its agent.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Del,
    Status,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Status => "STATUS",
        }
    }
}

/// A plugin failed.
#[derive(Debug, thiserror::Error)]
#[error("plugin type={plugin:?} name={network:?} failed ({verb}): {reason}")]
pub(crate) struct PluginError {
    pub(crate) plugin: String,
    pub(crate) network: String,
    pub(crate) verb: String,
    /// What the plugin said, or why it could not say anything.
    pub(crate) reason: String,
    /// The error code of the specification, where it said one.
    pub(crate) code: Option<u64>,
}

/// What a plugin is told.
pub(super) struct Invocation<'a> {
    pub(super) verb: Verb,
    pub(super) plugin: &'a str,
    pub(super) network: &'a str,
    pub(super) bin_dirs: &'a [PathBuf],
    pub(super) container_id: &'a str,
    pub(super) netns: &'a Path,
    pub(super) interface: &'a str,
    pub(super) args: &'a str,
}

/// An error result (specification, section 5, "Error").
#[derive(Deserialize)]
struct ErrorResult {
    code: Option<u64>,
    msg: Option<String>,
    details: Option<String>,
}

impl Invocation<'_> {
    /// Runs the plugin with its configuration on stdin; answers what it printed.
    pub(super) async fn run(&self, config: &Value) -> Result<Value, PluginError> {
        let program = self.find()?;
        let mut command = tokio::process::Command::new(&program);
        let path = std::env::join_paths(self.bin_dirs).map_err(|error| self.failed(error.to_string()))?;
        command.env("CNI_COMMAND", self.verb.name()).env("CNI_PATH", path);
        if self.verb != Verb::Status {
            command
                .env("CNI_CONTAINERID", self.container_id)
                .env("CNI_NETNS", self.netns)
                .env("CNI_IFNAME", self.interface)
                .env("CNI_ARGS", self.args);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|error| self.failed(format!("cannot run {}: {error}", program.display())))?;
        let mut stdin = child.stdin.take();
        let talk = async {
            if let Some(stdin) = &mut stdin {
                // A plugin that ends without reading has its say in its result.
                let _ = stdin.write_all(config.to_string().as_bytes()).await;
            }
            drop(stdin);
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(PATIENCE, talk)
            .await
            .map_err(|_| self.failed(format!("no answer in {} s", PATIENCE.as_secs())))?
            .map_err(|error| self.failed(error.to_string()))?;
        if output.status.success() {
            if output.stdout.iter().all(u8::is_ascii_whitespace) {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&output.stdout)
                .map_err(|error| self.failed(format!("its answer is not JSON: {error}")));
        }
        Err(self.refused(&output))
    }

    fn refused(&self, output: &std::process::Output) -> PluginError {
        if let Ok(error) = serde_json::from_slice::<ErrorResult>(&output.stdout)
            && let Some(message) = error.msg
        {
            let reason = match error.details.filter(|details| !details.is_empty()) {
                Some(details) => format!("{message}; {details}"),
                None => message,
            };
            return PluginError { code: error.code, ..self.failed(reason) };
        }
        let said = String::from_utf8_lossy(&output.stderr);
        self.failed(format!("{}: {}", output.status, said.trim()))
    }

    fn find(&self) -> Result<PathBuf, PluginError> {
        let names_a_file = !self.plugin.is_empty() && !self.plugin.contains('/');
        let found = self.bin_dirs.iter().map(|dir| dir.join(self.plugin)).find(|path| names_a_file && path.is_file());
        found.ok_or_else(|| self.failed(format!("failed to find plugin {:?} in path {:?}", self.plugin, self.bin_dirs)))
    }

    fn failed(&self, reason: String) -> PluginError {
        PluginError {
            plugin: self.plugin.to_owned(),
            network: self.network.to_owned(),
            verb: self.verb.name().to_ascii_lowercase(),
            reason,
            code: None,
        }
    }
}
