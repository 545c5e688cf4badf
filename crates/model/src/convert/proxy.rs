//! The KubeProxyConfiguration in the ConfigMap `kube-proxy`.

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Invalid, Object};
use crate::ProxyConfig;

const KEY: &str = "data[config.conf]";

impl TryFrom<&ConfigMap> for ProxyConfig {
    type Error = Invalid;

    fn try_from(map: &ConfigMap) -> Result<Self, Invalid> {
        let object = Object::new("ConfigMap", &map.metadata);
        let text = map.data.as_ref().and_then(|data| data.get("config.conf"));
        let text = text.ok_or_else(|| object.missing(KEY, "a KubeProxyConfiguration"))?;
        Self::parse(text).map_err(|fault| object.value(format!("{KEY}: {}", fault.field), &fault.value, fault.allowed))
    }
}
