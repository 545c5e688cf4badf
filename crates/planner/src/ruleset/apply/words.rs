//! Elements in words, for errors.

use std::{fmt, net::IpAddr};

use crate::ruleset::{FrontendKey, Sender};

/// A pair as it reads in an error.
pub(super) struct Pair(pub(super) (IpAddr, IpAddr));

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {}", self.0.0, self.0.1)
    }
}

/// A frontend and what belongs to it as they read in an error.
pub(super) struct Of<'a, T>(pub(super) &'a (FrontendKey, T));

impl<T: fmt::Display> fmt::Display for Of<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {}", self.0.0, self.0.1)
    }
}

/// A sender as it reads in an error.
pub(super) struct SenderText<'a>(pub(super) &'a Sender);

impl fmt::Display for SenderText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {} . {}", self.0.0, self.0.1, self.0.2)
    }
}
