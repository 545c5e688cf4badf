//! Network configuration lists (CNI specification 1.1.0, section 1).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A list of plugins that make one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Conflist {
    #[serde(rename = "cniVersion", default = "oldest")]
    pub(crate) cni_version: String,
    pub(crate) name: String,
    pub(crate) plugins: Vec<Value>,
}

fn oldest() -> String {
    "0.1.0".to_owned()
}

/// There is no network configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConflistError {
    #[error("no network config found in {}: cni plugin not initialized", dir.display())]
    None { dir: PathBuf },
    #[error("cannot read the network config {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the network config {} is not one: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

impl Conflist {
    /// STATUS came with version 1.1.0.
    pub(crate) fn has_status(&self) -> bool {
        let mut parts = self.cni_version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (1, 1)
    }

    pub(crate) fn plugin_types(&self) -> Vec<String> {
        self.plugins.iter().map(|plugin| plugin["type"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// The first configuration of a directory by file name, as container runtimes choose it.
pub(crate) fn first(dir: &Path) -> Result<Conflist, ConflistError> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
        .unwrap_or_default();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conflist" || extension == "conf"));
    files.sort();
    let path = files.into_iter().next().ok_or_else(|| ConflistError::None { dir: dir.to_owned() })?;
    let text = fs::read(&path).map_err(|source| ConflistError::Read { path: path.clone(), source })?;
    let parsed = parse(&text, path.extension().is_some_and(|extension| extension == "conf"));
    parsed.map_err(|reason| ConflistError::Invalid { path, reason })
}

fn parse(text: &[u8], single: bool) -> Result<Conflist, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let value = if single {
        json!({ "cniVersion": value.get("cniVersion").cloned().unwrap_or_else(|| json!("0.1.0")), "name": value["name"], "plugins": [value] })
    } else {
        value
    };
    let conflist: Conflist = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if conflist.plugins.is_empty() || conflist.plugin_types().iter().any(String::is_empty) {
        return Err("a list has at least one plugin, and each has a type".into());
    }
    Ok(conflist)
}
