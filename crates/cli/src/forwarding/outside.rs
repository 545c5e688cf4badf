//! Addresses of names outside of the cluster.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use podnet_model::{Family, Pod};
use podnet_planner::resolver::PORT;

use super::{inside, state::State};

/// Why no address of a name is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Who was asked says that nobody has the name.
    NoSuchName(SocketAddr),
    /// It could not be asked, or was not answered, as is said.
    Unanswered(String),
}

impl From<&str> for Unknown {
    fn from(why: &str) -> Self {
        Self::Unanswered(why.to_owned())
    }
}

/// What cluster DNS tells the sender, asked from the sender's own network where that is on this machine, and who told it; or why that is not known.
pub(super) fn addresses(state: &State, pod: Option<&Pod>, name: &str) -> Result<(SocketAddr, Vec<IpAddr>), Unknown> {
    let pod = pod.filter(|pod| !pod.host_network).ok_or("the sender has no network of a pod")?;
    // Who has no search path of the cluster asks others.
    if pod.searches.is_none() {
        return Err("the sender does not ask cluster DNS".into());
    }
    let netns = inside::namespace_of_pod(state, pod).ok_or("the sender is not on this machine")?;
    let server = state.asked_for_names().ok_or("there is no cluster DNS")?;
    let server = SocketAddr::new(server, PORT);
    let mut told = Vec::new();
    for family in Family::ALL {
        if pod.addrs.iter().any(|addr| Family::of(&addr.0) == family) {
            let answer = inside::resolve(&netns, server, name, family);
            told.push(answer.map_err(|failure| Unknown::Unanswered(failure.sentence()))?);
        }
    }
    Ok((server, together(server, told)?))
}

/// The addresses of all families that were told; where there is none, the first reason.
fn together(server: SocketAddr, told: Vec<io::Result<Vec<IpAddr>>>) -> Result<Vec<IpAddr>, Unknown> {
    let (mut found, mut first) = (Vec::new(), None);
    for answer in told {
        match answer {
            Ok(addrs) => found.extend(addrs),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    match first {
        _ if !found.is_empty() => Ok(found),
        Some(error) if error.kind() == io::ErrorKind::NotFound => Err(Unknown::NoSuchName(server)),
        Some(error) => Err(Unknown::Unanswered(format!("cluster DNS at {server}: {error}"))),
        None => Err(Unknown::Unanswered(format!("cluster DNS at {server} knows none of a family that the sender has"))),
    }
}

#[cfg(test)]
mod tests {
    use podnet_model::PodKey;

    use super::*;
    use crate::forwarding::lab;

    #[test]
    fn why_no_address_is_known_is_said() {
        let state = lab::state();
        let own = state.cluster.pods()[&PodKey::new("default", "p1")].clone();
        let asks = Pod { searches: Some(Default::default()), ..own.clone() };
        let of_node = Pod { host_network: true, ..asks.clone() };
        for (pod, words) in [
            (None, "the sender has no network of a pod"),
            (Some(&of_node), "the sender has no network of a pod"),
            (Some(&own), "the sender does not ask cluster DNS"),
            (Some(&asks), "the sender is not on this machine"),
        ] {
            assert_eq!(addresses(&state, pod, "example.org").unwrap_err(), Unknown::from(words));
        }
    }

    #[test]
    fn what_one_family_has_is_known_though_the_other_one_is_not_told_of() {
        let server: SocketAddr = "10.96.0.10:53".parse().unwrap();
        let addr: IpAddr = "192.0.2.7".parse().unwrap();
        let silent = || Err(io::Error::other("it answers with the error 2 (RCODE)"));
        let nobody = || Err(io::Error::new(io::ErrorKind::NotFound, "there is no such name"));
        let unanswered = |words: &str| Err(Unknown::from(words));
        for (told, expected) in [
            (vec![Ok(vec![addr]), silent()], Ok(vec![addr])),
            (vec![silent(), Ok(vec![addr])], Ok(vec![addr])),
            (vec![nobody(), nobody()], Err(Unknown::NoSuchName(server))),
            (vec![silent(), nobody()], unanswered("cluster DNS at 10.96.0.10:53: it answers with the error 2 (RCODE)")),
            (
                vec![Ok(Vec::new())],
                unanswered("cluster DNS at 10.96.0.10:53 knows none of a family that the sender has"),
            ),
        ] {
            assert_eq!(together(server, told), expected);
        }
    }
}
