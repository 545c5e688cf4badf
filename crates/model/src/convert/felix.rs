//! FelixConfiguration.

use super::{Invalid, Object};
use crate::{Felix, crd};

impl TryFrom<&crd::FelixConfiguration> for Felix {
    type Error = Invalid;

    fn try_from(felix: &crd::FelixConfiguration) -> Result<Self, Invalid> {
        let object = Object::new("FelixConfiguration", &felix.metadata);
        let default = Self::default();
        let port = felix.spec.wireguard_listening_port.map(|port| {
            let allowed = "a port, 1 to 65535";
            u16::try_from(port)
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| object.value("spec.wireguardListeningPort", &port, allowed))
        });
        Ok(Self {
            wireguard: felix.spec.wireguard_enabled == Some(true) || felix.spec.wireguard_enabled_v6 == Some(true),
            wireguard_port: port.transpose()?.unwrap_or(default.wireguard_port),
        })
    }
}
