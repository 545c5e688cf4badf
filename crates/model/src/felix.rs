//! What a FelixConfiguration says about the way between nodes.

/// The settings of the FelixConfiguration `default` that podnet knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Felix {
    /// `spec.wireguardEnabled` or `spec.wireguardEnabledV6`: pods' packets to nodes that have published a key are encrypted, whatever their pool says.
    pub wireguard: bool,
    /// `spec.wireguardListeningPort`.
    pub wireguard_port: u16,
}

impl Default for Felix {
    fn default() -> Self {
        Self { wireguard: false, wireguard_port: crate::wireguard::DEFAULT_PORT }
    }
}
