//! `rewrite`: questions are changed on their way in, and answers on their way out.

mod answer;
mod edns;

use std::borrow::Cow;

use self::answer::Change;
use crate::{
    chain::{Rewrite, RewriteOptions},
    message::{CLASS_IN, question},
    name::{Name, QueryName},
    server::{Answering, Failure, Link, Look, Next, Pen, Query, Quick, Reply},
};

/// The plugin: its rules, in the file's order.
#[derive(Clone, Debug)]
pub struct Rewriting(pub Vec<RewriteOptions>);

/// What the rules make of a question.
#[derive(Debug)]
struct Plan<'a> {
    name: Cow<'a, QueryName>,
    qtype: u16,
    qclass: u16,
    /// What happens to the answer, in the order of the rules.
    changes: Vec<Change<'a>>,
    /// EDNS options for upstreams; what an answer that is known here has nothing to do with.
    options: Vec<(u16, Vec<u8>)>,
}

impl Rewriting {
    /// What the rules make of a question; none when no rule has to do with it.
    fn plan<'a>(
        &'a self,
        look: &Look<'a>,
        sent: &[u8],
        meta: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Plan<'a>>, Failure> {
        let mut plan = Plan {
            name: Cow::Borrowed(look.name),
            qtype: look.qtype,
            qclass: look.qclass,
            changes: Vec::new(),
            options: Vec::new(),
        };
        let mut text = look.name.to_string();
        let mut applied = false;
        for rule in &self.0 {
            let applies = match &rule.rewrite {
                Rewrite::Edns(rule) => {
                    edns::apply(rule, look, &plan, &text, sent, meta).map(|option| plan.options.push(option)).is_some()
                }
                rule => plan.apply(rule, &mut text)?,
            };
            if !applies {
                continue;
            }
            applied = true;
            if !rule.goes_on {
                break;
            }
        }
        Ok(applied.then_some(plan))
    }

    async fn answer(&self, query: &Query, plan: Plan<'_>, next: Next<'_>) -> Result<Reply, Failure> {
        let Plan { name, qtype, qclass, changes, options } = plan;
        let asked = Query {
            question: question(name.wire(), qtype).into(),
            name: name.into_owned(),
            qtype,
            qclass,
            onward: edns::written(&options).into(),
            ..query.clone()
        };
        let reply = next.run(&asked).await;
        answer::change(query, &asked, reply, &changes, next).await
    }
}

impl<'a> Plan<'a> {
    /// Neither the question nor its answer.
    fn changes_nothing(&self, look: &Look<'_>) -> bool {
        self.changes.is_empty()
            && self.name.wire() == look.name.wire()
            && (self.qtype, self.qclass) == (look.qtype, look.qclass)
    }

    /// Applies a rule; false when it has nothing to do with the question. `text` is the name as it stands now.
    fn apply(&mut self, rule: &'a Rewrite, text: &mut String) -> Result<bool, Failure> {
        match rule {
            Rewrite::Name { replacement, answers } => {
                let Some(new) = replacement.replace(text) else { return Ok(false) };
                let to = Name::from_query(&self.name);
                let from = Name::of_text(&new).map_err(|_| Failure::Malformed)?;
                self.name = Cow::Owned(QueryName::from(&from));
                *text = from.to_string();
                // Where nothing is said of the answer, it would be one to another question, which nobody takes.
                if answers.auto || (answers.names.is_empty() && answers.values.is_empty()) {
                    self.changes.push(Change::Names { from, to, values: true });
                }
                self.changes.extend(answers.names.iter().map(Change::Owners));
                self.changes.extend(answers.values.iter().map(Change::Values));
            }
            Rewrite::Type { from, to } if self.qtype == *from => self.qtype = *to,
            Rewrite::Class { from, to } if self.qclass == *from => self.qclass = *to,
            Rewrite::Ttl { names, min, max } if names.matches(text) => {
                self.changes.push(Change::Ttl { min: *min, max: *max });
            }
            Rewrite::Rcode { names, from, to } if names.matches(text) => {
                self.changes.push(Change::Rcode { from: *from, to: *to });
            }
            Rewrite::Cname(replacement) => self.changes.push(Change::Target(replacement)),
            Rewrite::Type { .. }
            | Rewrite::Class { .. }
            | Rewrite::Ttl { .. }
            | Rewrite::Rcode { .. }
            | Rewrite::Edns(_) => return Ok(false),
        }
        Ok(true)
    }
}

impl Link for Rewriting {
    fn takes_chaos(&self) -> bool {
        self.0
            .iter()
            .any(|rule| matches!(rule.rewrite, Rewrite::Class { from, to } if from != CLASS_IN || to != CLASS_IN))
    }

    fn quick(&self, look: &Look<'_>, _: &mut Pen<'_>) -> Quick {
        // What others tell of the question is asked for on the way through the chain.
        if self.0.iter().any(edns::wants_label) {
            return Quick::Slow;
        }
        match self.plan(look, &[], &|_| None) {
            Ok(None) => Quick::Pass,
            // Options are for upstreams: what is answered at once needs none.
            Ok(Some(plan)) if plan.changes_nothing(look) => Quick::Around,
            Ok(Some(_)) => Quick::Slow,
            Err(failure) => Quick::Fail(failure),
        }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        Box::pin(async move {
            let look = query.look();
            match self.plan(&look, &query.options, &|label| next.label(label, &look))? {
                None => next.run(query).await,
                Some(plan) => self.answer(query, plan, next).await,
            }
        })
    }
}
