//! How many files this process may have open.

use rustix::{
    io,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// More are of no use, and a program that is started may go through all that it could have.
const MOST: u64 = 1 << 16;

/// Lets this process have as many open files as it may, up to 65,536: it begins with as few as programs of old can bear (1,024 as a rule).
/// Programs that it starts have as many. Tells how many.
///
/// # Errors
/// Where the kernel refuses.
pub fn raise_limit() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(MOST).min(MOST);
    match current {
        Some(current) if current < wanted => {
            setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
            Ok(wanted)
        }
        current => Ok(current.unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be_and_never_lowered() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum }).unwrap();
        let raised = raise_limit().unwrap();
        assert_eq!(raised, maximum.unwrap_or(MOST).min(MOST));
        assert_eq!(getrlimit(Resource::Nofile).current, Some(raised));
        assert_eq!(raise_limit().unwrap(), raised);
    }
}
