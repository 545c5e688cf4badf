//! The network of a sandbox, through CNI plugins (CNI specification 1.1.0, "Execution Protocol").
//!
//! What an ADD was asked is on disk before it is asked, so that the DEL after any crash says the same.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::pause::wire;

pub(crate) mod conflist;
mod plugin;

pub(crate) use conflist::{Conflist, ConflistError};
pub(crate) use plugin::PluginError;
use plugin::{Invocation, Verb};

/// The interface's name in the sandbox.
const INTERFACE: &str = "eth0";
/// The attachment's file in a sandbox's directory.
const FILE: &str = "cni.json";

/// A sandbox's network as it was asked for and as it came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) conflist: Conflist,
    pub(crate) container_id: String,
    pub(crate) netns: PathBuf,
    /// `CNI_ARGS`.
    pub(crate) args: String,
    /// Values of capabilities: `portMappings`, `bandwidth`, ….
    pub(crate) capabilities: serde_json::Map<String, Value>,
    /// What the last plugin answered to ADD.
    pub(crate) result: Option<Value>,
}

/// The network could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CniError {
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error(transparent)]
    Conflist(#[from] ConflistError),
    #[error("plugin type={plugin:?} name={network:?} answered without an address")]
    NoAddress { plugin: String, network: String },
    #[error("cannot keep the network's state in {}: {source}", path.display())]
    State { path: PathBuf, source: io::Error },
}

/// Where plugins are.
#[derive(Clone, Debug)]
pub(crate) struct Cni {
    pub(crate) bin_dirs: Vec<PathBuf>,
    pub(crate) conf_dir: PathBuf,
}

impl Cni {
    /// Attaches a sandbox: ADD of each plugin in turn. When one fails, those before it are undone.
    pub(crate) async fn add(&self, dir: &Path, mut attachment: Attachment) -> Result<Vec<IpAddr>, CniError> {
        save(dir, &attachment)?;
        match self.add_all(&attachment).await {
            Ok(result) => {
                let addresses = addresses(&result);
                if addresses.is_empty() {
                    let _ = self.delete(dir).await;
                    let plugin = attachment.conflist.plugin_types().last().cloned().unwrap_or_default();
                    return Err(CniError::NoAddress { plugin, network: attachment.conflist.name.clone() });
                }
                attachment.result = Some(result);
                save(dir, &attachment)?;
                Ok(addresses)
            }
            Err(error) => {
                // The plugin that failed may have done half: the specification wants DEL for it, too.
                let _ = self.delete(dir).await;
                Err(error.into())
            }
        }
    }

    async fn add_all(&self, attachment: &Attachment) -> Result<Value, PluginError> {
        let mut previous = None;
        for plugin in &attachment.conflist.plugins {
            previous = Some(self.invoke(Verb::Add, attachment, plugin, previous.as_ref()).await?);
        }
        Ok(previous.unwrap_or(Value::Null))
    }

    /// Detaches the sandbox of this directory: DEL of each plugin, last first. Done where nothing was attached.
    pub(crate) async fn delete(&self, dir: &Path) -> Result<(), CniError> {
        let Some(attachment) = load(dir) else { return Ok(()) };
        for plugin in attachment.conflist.plugins.iter().rev() {
            self.invoke(Verb::Del, &attachment, plugin, attachment.result.as_ref()).await?;
        }
        let path = dir.join(FILE);
        fs::remove_file(&path).map_err(|source| CniError::State { path, source })
    }

    /// The network that is configured, where all of its plugins say that they can work.
    pub(crate) async fn ready(&self) -> Result<Conflist, CniError> {
        let conflist = conflist::first(&self.conf_dir)?;
        if !conflist.has_status() {
            return Ok(conflist);
        }
        let attachment = Attachment {
            conflist,
            container_id: String::new(),
            netns: PathBuf::new(),
            args: String::new(),
            capabilities: serde_json::Map::new(),
            result: None,
        };
        for plugin in &attachment.conflist.plugins {
            self.invoke(Verb::Status, &attachment, plugin, None).await?;
        }
        Ok(attachment.conflist)
    }

    async fn invoke(
        &self,
        verb: Verb,
        attachment: &Attachment,
        plugin: &Value,
        previous: Option<&Value>,
    ) -> Result<Value, PluginError> {
        let conflist = &attachment.conflist;
        let mut config = plugin.clone();
        config["name"] = json!(conflist.name);
        config["cniVersion"] = json!(conflist.cni_version);
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        let wanted = runtime_config(plugin, &attachment.capabilities);
        if !wanted.is_empty() {
            config["runtimeConfig"] = Value::Object(wanted);
        }
        Invocation {
            verb,
            plugin: plugin["type"].as_str().unwrap_or_default(),
            network: &conflist.name,
            bin_dirs: &self.bin_dirs,
            container_id: &attachment.container_id,
            netns: &attachment.netns,
            interface: INTERFACE,
            args: &attachment.args,
        }
        .run(&config)
        .await
    }
}

/// The values of those capabilities that the plugin says it has.
fn runtime_config(plugin: &Value, values: &serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
    values
        .iter()
        .filter(|(name, _)| plugin["capabilities"][name.as_str()] == true)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn save(dir: &Path, attachment: &Attachment) -> Result<(), CniError> {
    let path = dir.join(FILE);
    let failed = |source| CniError::State { path: path.clone(), source };
    let text = serde_json::to_vec(attachment).map_err(|error| failed(error.into()))?;
    wire::write_atomically(&path, &text).map_err(failed)
}

/// What was asked for the sandbox of this directory.
pub(crate) fn load(dir: &Path) -> Option<Attachment> {
    serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()
}

/// The addresses of a result (`ips[].address`, each with its prefix length).
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
