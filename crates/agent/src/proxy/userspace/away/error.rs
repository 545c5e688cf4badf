//! What can be wrong with a program in a process of its own.

use std::{io, path::PathBuf, process::ExitStatus};

use podnet_kernel::netns::NetNsError;

use crate::proxy::mode::RulesError;

/// Why a program does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub(super) enum AwayError {
    #[error("cannot start the program that passes on connections to Services (podnet proxy)")]
    Start { source: io::Error },
    #[error("the program that passes on connections to Services cannot be started in the node's network namespace")]
    Namespace(#[from] NetNsError),
    #[error("the program that passes on connections to Services ended as it began ({how}); its log says why")]
    Stillborn { how: ExitStatus },
    #[error(
        "the program that passes on connections to Services cannot be told anything at {}; where it goes on like that, end it (podnet proxy): \
         another one is started",
        socket.display()
    )]
    Lost { socket: PathBuf, source: io::Error },
    #[error("the program that passes on connections to Services: {0}")]
    Refused(String),
}

impl From<AwayError> for RulesError {
    fn from(error: AwayError) -> Self {
        Self::Other(Box::new(error))
    }
}
