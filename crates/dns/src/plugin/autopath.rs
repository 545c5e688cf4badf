//! `autopath`: the client's search path is followed here, so that its first question has the answer to all of them.
//!
//! A pod's resolver asks for `www.example.org` as `www.example.org.<namespace>.svc.cluster.local` first and walks on along its
//! search path, name by name and type by type (`ndots:5`). Whoever's first name that is gets the answer of the first name that
//! exists, behind an alias. A name that exists nowhere does not exist, as the first answer says; and what fails on the way
//! fails, so that the client goes on by itself as it would have done.
//!
//! Each name on the way is a question of its own to the whole server, as if the client had asked it: `rewrite` may change it, `acl`
//! judges it, and `cache` keeps what comes of it. The answer that is put together is not kept.
//!
//! `searchpath` does the same where the client's path is known from outside: in the resolver of a pod's own node. Where something
//! fails on the way its answer is the first name's, whose truth that is: so a client that passes failures by (glibc) does, and one
//! that stops at them (musl) stops at that very name. The same holds for names without any address.
//!
//! Nor may somebody's name in full that is not there now turn into a host elsewhere whose name begins alike, and a question does not
//! say which of the two it is. One label before the namespace's may be a Service that is gone; two labels may be a pod of a Service,
//! where the namespace has one that is called like the second label; and what begins with `_` is of a Service always. A client that
//! asks for the next name of its search path as well searches: from then on ([`walks`]) such a name is completed for it, too. All
//! others come from a search. (An absent name in full of three labels, or of two of which the second is no Service, asks the very
//! question that a search for them begins with: nobody can tell them apart.)

mod walks;

use std::{net::IpAddr, sync::Arc};

use podnet_model::Namespace;

use crate::{
    answer::{Alias, Answer, Section, behind_aliases},
    chain::{AutopathOptions, SearchPath},
    message::{Rcode, expand, rtype},
    metrics::{ByListener, Counter, Counting, Family},
    name::{MAX_NAME, Name},
    server::{Answering, ClientSearch, Failure, Link, Look, Next, Parts, Pen, Query, Quick, Reply},
    zone::{Found, Names, Zone},
};

use walks::Walks;

/// The plugin.
pub struct Autopath {
    options: AutopathOptions,
    /// What `kubernetes` of the same server block knows of pods.
    zone: Option<Arc<Zone>>,
    /// Who searches for names that may be the namespace's own.
    walks: Walks,
    /// Names that were found.
    searched: ByListener<Counter>,
    parts: Parts,
}

/// How many labels stand before the namespace's in the longest name with addresses: a pod, or an endpoint, and its Service.
const IN_NAMESPACE: usize = 2;

/// A client's search path, as far as it lies behind the name that was asked for.
struct Search {
    /// How many labels of the question are the client's own.
    labels: usize,
    /// Where they are looked for next.
    rest: Vec<Name>,
}

impl Autopath {
    /// The plugin of a chain that has `zone`.
    pub(crate) fn new(options: AutopathOptions, zone: Option<Arc<Zone>>, counting: &Counting, parts: Parts) -> Self {
        let searched = counting.each(|spot| spot.counter(Family::Searched, &[("server", spot.server.as_str())]));
        Self { options, zone, walks: Walks::default(), searched, parts }
    }

    /// How many labels stand before the first name of the client's search path; none when the question is no such name.
    fn first(&self, look: &Look<'_>) -> Option<usize> {
        let name = look.name;
        if !matches!(look.qtype, rtype::A | rtype::AAAA) {
            return None;
        }
        if !self.options.zones.iter().any(|zone| name.within(zone).is_some()) {
            return None;
        }
        let labels = match &self.options.search {
            SearchPath::Names(names) => name.within(names.first()?)?,
            SearchPath::Plugin(..) => {
                let zone = self.zone.as_ref()?;
                let (_, below) = zone.origin_of(name)?;
                let labels = below.checked_sub(2)?;
                if name.label(labels + 1) != b"svc" {
                    return None;
                }
                let namespace = zone.namespace_of(address(look))?;
                (name.label(labels) == namespace.as_str().as_bytes()).then_some(labels)?
            }
            SearchPath::Client(domain) => {
                let labels = name.within(domain)?.checked_sub(2)?;
                // `_port._protocol.service` is a Service's as well, and `zone._zone.service`.
                let is_service = (0..labels).any(|label| name.label(label).starts_with(b"_"));
                if labels == 0 || is_service || name.label(labels + 1) != b"svc" {
                    return None;
                }
                let search = self.client(look)?;
                let is_own = name.label(labels) == search.namespace.as_str().as_bytes();
                (is_own && self.is_searched(look, labels, &search.namespace)).then_some(labels)?
            }
        };
        (labels > 0).then_some(labels)
    }

    /// What is known of a client from outside.
    fn client(&self, look: &Look<'_>) -> Option<Arc<ClientSearch>> {
        self.parts.outside.search_of(address(look))
    }

    /// Whether what stands before a pod's namespace comes from a search: nobody is called so in full, or this client was seen to
    /// search for it.
    fn is_searched(&self, look: &Look<'_>, labels: usize, namespace: &Namespace) -> bool {
        let outside = &self.parts.outside;
        let may_be_in_full = match labels {
            // It is there, and asked for often.
            1 if outside.has_service(namespace, look.name.label(0)) => return false,
            1 => true,
            IN_NAMESPACE => outside.has_service(namespace, look.name.label(1)),
            _ => false,
        };
        !may_be_in_full || self.walks.begins(address(look), look.name.labels_between(0, labels), look.now)
    }

    /// Sees who goes on to the second name of a search path.
    fn notice(&self, look: &Look<'_>) {
        let SearchPath::Client(domain) = &self.options.search else { return };
        let labels = look.name.within(domain).and_then(|before| before.checked_sub(1));
        let Some(labels) = labels.filter(|labels| (1..=IN_NAMESPACE).contains(labels)) else { return };
        if matches!(look.qtype, rtype::A | rtype::AAAA) && look.name.label(labels) == b"svc" {
            self.walks.goes_on(address(look), look.name.labels_between(0, labels), look.now);
        }
    }

    /// What is asked next when the question's own name does not exist.
    fn search(&self, look: &Look<'_>) -> Option<Search> {
        let labels = self.first(look)?;
        let mut rest = match &self.options.search {
            SearchPath::Names(names) => names.get(1..).unwrap_or_default().to_vec(),
            SearchPath::Plugin(_, host) => {
                let (origin, _) = self.zone.as_ref()?.origin_of(look.name)?;
                let cluster = [origin.prefixed_text("svc").ok()?, origin.clone()];
                cluster.into_iter().chain(host.iter().cloned()).collect()
            }
            SearchPath::Client(domain) => {
                let cluster = [domain.prefixed_text("svc").ok()?, domain.clone()];
                cluster.into_iter().chain(self.client(look)?.behind.iter().cloned()).collect()
            }
        };
        // The name as the client's user wrote it.
        rest.push(Name::root());
        Some(Search { labels, rest })
    }

    /// Whether a name has addresses, be they of the other family than the one that was asked for.
    async fn has_addresses(&self, query: &Query, name: &Name, reply: &Reply, next: Next<'_>) -> bool {
        let has = |reply: &Reply, qtype| expand(name, &reply.answer).iter().any(|record| record.rtype == qtype);
        if has(reply, query.qtype) || reply.truncated {
            return true;
        }
        let other = if query.qtype == rtype::A { rtype::AAAA } else { rtype::A };
        let asked = Query { searched: true, ..query.instead(name, other) };
        next.ask(asked).await.is_ok_and(|reply| has(&reply, other))
    }

    /// What fails on the way is left for the client to find.
    const fn passes_failures(&self) -> bool {
        matches!(self.options.search, SearchPath::Client(..))
    }

    async fn answer(&self, query: &Query, search: Search, next: Next<'_>) -> Result<Reply, Failure> {
        let first = Reply { fresh: true, ..next.run(query).await? };
        if first.answer.rcode != Rcode::NXDOMAIN {
            return Ok(first);
        }
        let wire = query.name.wire();
        let base = &wire[..wire.len() - query.name.suffix(search.labels).len()];
        for place in &search.rest {
            let candidate = [base, place.wire()].concat();
            // A resolver passes over what is too long to be asked for.
            let Some(name) = Name::from_wire(&candidate).ok().filter(|_| candidate.len() <= MAX_NAME) else { continue };
            let asked = Query { searched: true, ..query.instead(&name, query.qtype) };
            let reply = match next.ask(asked).await {
                Err(_) if self.passes_failures() => return Ok(first),
                reply => reply?,
            };
            match reply.answer.rcode {
                Rcode::NXDOMAIN => {}
                // A name that is empty, such as a namespace's: some clients go on from there and others do not.
                Rcode::NOERROR if self.passes_failures() && !self.has_addresses(query, &name, &reply, next).await => {
                    return Ok(first);
                }
                Rcode::NOERROR => {
                    if let Some(searched) = self.searched.at(&query.arrival) {
                        searched.count();
                    }
                    return Ok(found(query, &name, &reply));
                }
                _ if self.passes_failures() => return Ok(first),
                _ => return Ok(Reply { fresh: true, ..reply }),
            }
        }
        Ok(first)
    }
}

fn address(look: &Look<'_>) -> IpAddr {
    look.arrival.from.ip().to_canonical()
}

/// The answer for a name of the search path, as that of the name that was asked for. It holds for this client alone: others have
/// other search paths.
fn found(query: &Query, name: &Name, reply: &Reply) -> Reply {
    let records = expand(name, &reply.answer);
    let ttl = records.iter().filter(|record| record.section != Section::Additional).map(|record| record.ttl).min();
    let alias = Alias { owner: Name::from_query(&query.name), target: name.clone(), ttl: ttl.unwrap_or(0) };
    let Answer { authoritative, authentic, .. } = reply.answer;
    let answer = behind_aliases(&[alias], name, &reply.answer);
    Reply { answer: Answer { authoritative, authentic, ..answer }, truncated: reply.truncated, fresh: true }
}

impl Link for Autopath {
    fn quick(&self, look: &Look<'_>, _: &mut Pen<'_>) -> Quick {
        self.notice(look);
        if self.first(look).is_none() {
            return Quick::Pass;
        }
        // Where the first name exists, there is nothing to search for; this is what pods of one namespace ask for each other.
        let exists = |found: Option<Found<'_>>| !matches!(found, None | Some(Found::Unknown | Found::NoName(_)));
        match self.zone.as_ref().is_some_and(|zone| zone.find(look.name, look.qtype, exists)) {
            true => Quick::Pass,
            false => Quick::Slow,
        }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        // What this server asks on the way tells nothing of the client.
        if query.searched {
            return next.run(query);
        }
        self.notice(&query.look());
        match self.search(&query.look()) {
            Some(search) => Box::pin(self.answer(query, search, next)),
            None => next.run(query),
        }
    }
}
