//! The images that need no registry: their root is the host's `/usr`, their program the host's own or podnet itself.

use sha2::{Digest, Sha256};

use super::{Image, ImageConfig, Reference, Rootfs};

/// Where a container finds podnet.
const PODNET: &str = "/opt/podnet/bin/podnet";
/// What every built-in image searches.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/podnet/bin";

/// A built-in image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BuiltIn {
    /// The host's tools; a shell by default.
    Tools,
    /// The HTTP server that says who answers.
    Demoapp,
    /// podnet, for what its command line can do.
    Podnet,
    /// The cluster's DNS.
    Dns,
}

/// The built-in image that a reference names, with any tag.
pub(super) fn find(reference: &Reference) -> Option<Image> {
    let built_in = [BuiltIn::Tools, BuiltIn::Demoapp, BuiltIn::Podnet, BuiltIn::Dns]
        .into_iter()
        .find(|built_in| built_in.name() == reference.name())?;
    Some(built_in.image(reference.tag().unwrap_or("latest")))
}

impl BuiltIn {
    fn name(self) -> &'static str {
        match self {
            BuiltIn::Tools => "podnet.local/tools",
            BuiltIn::Demoapp => "podnet.local/demoapp",
            BuiltIn::Podnet => "podnet.local/podnet",
            BuiltIn::Dns => "podnet.local/dns",
        }
    }

    /// The image under one of its tags.
    pub(super) fn image(self, tag: &str) -> Image {
        let mut env = vec![("PATH".to_owned(), PATH.to_owned())];
        if self == BuiltIn::Demoapp && tag != "latest" {
            // Two tags of one application answer differently: that is what canaries and roll-outs are shown with.
            env.push(("DEMOAPP_RELEASE".to_owned(), tag.to_owned()));
        }
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let config = ImageConfig {
            entrypoint: match self {
                BuiltIn::Tools => Vec::new(),
                BuiltIn::Demoapp => owned(&[PODNET, "demoapp"]),
                BuiltIn::Podnet => owned(&[PODNET]),
                BuiltIn::Dns => owned(&[PODNET, "dns"]),
            },
            cmd: if self == BuiltIn::Tools { owned(&["sh"]) } else { Vec::new() },
            env,
            working_dir: None,
            user: None,
        };
        let description = format!("{} {config:?}", self.name());
        Image {
            reference: format!("{}:{tag}", self.name()),
            id: format!("sha256:{:x}", Sha256::digest(description)),
            rootfs: Rootfs::Host,
            config,
            stand_in_for: None,
        }
    }
}
