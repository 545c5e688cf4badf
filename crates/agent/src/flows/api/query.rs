//! What a reader asks for: `since=SECONDS`, `after=ID` (what comes behind the record of that id, which they had last), `follow=true`, `ends=true` (that flows ended, and not that they began and go on), `pod-to-pod=true`, and as often as wanted `is=TERM` and `not=TERM`
//! ([`Term`]).

use std::collections::BTreeSet;

use axum::{extract, http::Uri};
use podnet_flow::{
    Drops, Filter, Item, Record, RecordId, Report,
    filter::{Place, Term},
};

/// A question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// What ended that many seconds ago at most. None: all that is kept, or, where somebody follows, none of it.
    pub(super) since: Option<u32>,
    /// What comes behind this one, in place of that.
    pub(super) after: Option<RecordId>,
    pub(super) follow: bool,
    /// Only records of flows that have ended.
    pub(super) ends: bool,
    pub(super) pod_to_pod: bool,
    /// What is wanted of what the reader may see: who may not see a name does not learn it by asking for it.
    filter: Filter,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// A sentence for whoever asked.
    pub(super) fn parse(uri: &Uri) -> Result<Self, String> {
        let mut query = Self::default();
        let extract::Query(pairs) = extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| format!("the query cannot be read: {error}"))?;
        for (name, value) in pairs {
            let term = || {
                let term = value.parse::<Term>().map_err(|error| error.to_string())?;
                term.check().map(|()| term).map_err(|error| error.to_string())
            };
            match name.as_str() {
                "since" => {
                    query.since = Some(value.parse().map_err(|_| format!("since={value} is no number of seconds"))?);
                }
                "after" => {
                    query.after = Some(value.parse().map_err(|error: podnet_flow::NoRecordId| error.to_string())?);
                }
                "follow" => query.follow = flag(&name, &value)?,
                "ends" => query.ends = flag(&name, &value)?,
                "pod-to-pod" => query.pod_to_pod = flag(&name, &value)?,
                "is" => query.filter.wanted.push(term()?),
                "not" => query.filter.unwanted.push(term()?),
                _ => return Err(format!("{name} is none of since, after, follow, ends, pod-to-pod, is, not")),
            }
        }
        Ok(query)
    }

    /// Namespaces of what is wanted.
    pub(super) fn namespaces(&self) -> BTreeSet<&str> {
        let places = self.filter.wanted.iter().filter_map(|term| match term {
            Term::From(place) | Term::To(place) => Some(place),
            _ => None,
        });
        places.filter_map(Place::namespace).collect()
    }

    /// Whether such records are asked for, whatever is in them.
    pub(super) fn is_for(&self, item: &Item) -> bool {
        match item {
            Item::Flow(record) => !self.ends || record.report == Report::End,
            Item::Gap(_) | Item::Drops(_) => true,
        }
    }

    pub(super) fn wants(&self, shown: &Record) -> bool {
        self.filter.wants(shown)
    }

    pub(super) fn wants_drops(&self, shown: &Drops) -> bool {
        self.filter.wants_drops(shown)
    }
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("{name}={value} is neither true nor false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_what_is_wrong_with_it_is_named() {
        let parse = |query: &str| Query::parse(&format!("/flows?{query}").parse().unwrap());
        let query = parse("since=60&follow=true&ends=true&is=port%3D80&is=from%3Dpod/web/a&not=to%3Dworld").unwrap();
        assert_eq!((query.since, query.follow, query.ends, query.pod_to_pod), (Some(60), true, true, false));
        assert_eq!((query.filter.wanted.len(), query.filter.unwanted.len()), (2, 1));
        assert_eq!(query.namespaces(), ["web"].into());
        assert_eq!(parse("after=node1%2F1%2F2").unwrap().after, "node1/1/2".parse().ok());
        assert_eq!(parse(""), Ok(Query::default()));
        for query in ["is=from%3Dservice/shop/cart", "not=from%3Dsvc/shop/cart"] {
            assert!(parse(query).unwrap_err().contains("from=pods/shop/KEY=VALUE"), "{query}");
        }
        for wrong in ["since=-1", "follow=1", "ends=yes", "is=port%3Dx", "last=3", "after=3"] {
            let name = wrong.split('=').next().unwrap();
            let error = parse(wrong).unwrap_err();
            assert!(
                error.contains(match name {
                    "is" => "port",
                    "after" => "node1/1760000000000000/17",
                    name => name,
                }),
                "{error}"
            );
        }
    }
}
