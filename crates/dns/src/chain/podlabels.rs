//! Which of the pods' labels a Corefile has use for: all labels of all pods would be many times what else is kept of them.

use std::collections::BTreeSet;

use super::{
    EdnsData, EdnsOption, EdnsRewrite, LogOptions, LogPiece, Plugin, Rewrite, RewriteOptions, TemplateOptions,
    ViewOptions,
};

/// What stands before the key of a label of the client's pod, behind `kubernetes/`.
pub(crate) const CLIENT_LABEL: &str = "client-label/";

/// The labels of pods that somebody asks for (`kubernetes/client-label/<key>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodLabels {
    /// Those with these keys.
    These(BTreeSet<String>),
    /// All: which ones are asked for depends on the question.
    All,
}

impl Default for PodLabels {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl PodLabels {
    /// Whether none are asked for.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::These(keys) if keys.is_empty())
    }

    /// Whether that with this key is among them.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        match self {
            Self::These(keys) => keys.contains(key),
            Self::All => true,
        }
    }

    /// Whether all of the others are among them.
    #[must_use]
    pub fn suffice(&self, others: &Self) -> bool {
        match (self, others) {
            (Self::All, _) => true,
            (Self::These(_), Self::All) => false,
            (Self::These(keys), Self::These(others)) => others.is_subset(keys),
        }
    }

    /// Takes in those that a plugin asks for.
    pub(super) fn take_in(&mut self, plugin: &Plugin) {
        match plugin {
            Plugin::Log(LogOptions { format, .. }) => {
                for piece in &format.0 {
                    if let LogPiece::Metadata(label) = piece {
                        self.ask(Some(label));
                    }
                }
            }
            Plugin::Rewrite(RewriteOptions { rewrite: Rewrite::Edns(rewrite), .. }) => self.of_option(rewrite),
            Plugin::View(ViewOptions { conditions, .. }) => {
                conditions.iter().for_each(|condition| self.join(condition.pod_labels()));
            }
            Plugin::Template(TemplateOptions { answer, additional, authority, .. }) => {
                let templates = answer.iter().chain(additional).chain(authority);
                templates.for_each(|template| self.join(template.pod_labels()));
            }
            _ => {}
        }
    }

    fn of_option(&mut self, EdnsRewrite { option, .. }: &EdnsRewrite) {
        if let EdnsOption::Local { data: EdnsData::Metadata(label), .. } = option {
            self.ask(Some(label));
        }
    }

    /// Plugins are asked what they tell under a label; none: which one is not known before there is a question.
    pub(super) fn ask(&mut self, label: Option<&str>) {
        let Some(label) = label else {
            *self = Self::All;
            return;
        };
        let key = label.strip_prefix("kubernetes/").and_then(|label| label.strip_prefix(CLIENT_LABEL));
        if let (Self::These(keys), Some(key)) = (self, key) {
            keys.insert(key.to_owned());
        }
    }

    /// From here on the others are among them, too.
    pub fn join(&mut self, others: &Self) {
        match (self, others) {
            (Self::These(keys), Self::These(others)) => keys.extend(others.iter().cloned()),
            (all, Self::All) => *all = Self::All,
            (Self::All, Self::These(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PodLabels;
    use crate::{Config, Environment};

    fn these(keys: &[&str]) -> PodLabels {
        PodLabels::These(keys.iter().map(|key| (*key).to_owned()).collect())
    }

    fn asked(lines: &str) -> PodLabels {
        let text = format!(". {{\n{lines}\n}}\n");
        let config = Config::load("Corefile", &text, &Environment::EMPTY);
        config.unwrap_or_else(|error| panic!("{text}: {error}")).pod_labels()
    }

    #[test]
    fn labels_of_pods_are_asked_for_by_log_rewrite_view_and_template() {
        let log = "log . \"{/kubernetes/client-label/app} {/kubernetes/service} {/kubernetes/client-label/a.b/c}\"";
        let rewrite = "rewrite edns0 local set 0xffee {kubernetes/client-label/rewritten}";
        let view =
            |label: &str| format!("view v {{\n expr metadata({label}) == 'x' && client_ip() != metadata('a/b')\n }}");
        let template =
            |action: &str| format!("template IN TXT {{\n answer \"{{{{ .Name }}}} 5 IN TXT a{{{{ {action} }}}}\"\n }}");
        for (line, expected) in [
            (log.to_owned(), these(&["app", "a.b/c"])),
            (rewrite.to_owned(), these(&["rewritten"])),
            (view("'kubernetes/client-label/app'"), these(&["app"])),
            (view("'kubernetes/service'"), these(&[])),
            // Which one it is only the question tells.
            (view("'kubernetes/client-label/' + type()"), PodLabels::All),
            (view("lower('kubernetes/client-label/app')"), PodLabels::All),
            (template(".Meta \\\"kubernetes/client-label/app\\\""), these(&["app"])),
            (template("print (.Meta \\\"kubernetes/service\\\")"), these(&[])),
            (template("\\\"kubernetes/client-label/app\\\" | .Meta"), PodLabels::All),
            (format!("{log}\n{rewrite}"), these(&["app", "a.b/c", "rewritten"])),
            (format!("{log}\n{}", view("type()")), PodLabels::All),
            ("whoami".to_owned(), these(&[])),
        ] {
            let with = |more: &str| asked(&format!("{more}\n{line}"));
            let kubernetes = "kubernetes cluster.local {\n pods verified\n}";
            assert_eq!(with(&format!("metadata\n{kubernetes}")), expected, "{line}");
            // Nobody tells them, or knows pods.
            assert_eq!(with(kubernetes), these(&[]), "{line}");
            assert_eq!(with("metadata\nkubernetes cluster.local"), these(&[]), "{line}");
        }
    }

    #[test]
    fn labels_that_are_joined_are_all_that_are_among_either() {
        for (these, others, joined) in [
            (these(&["a", "b"]), these(&["b", "c"]), these(&["a", "b", "c"])),
            (PodLabels::All, these(&["a"]), PodLabels::All),
            (these(&["a"]), PodLabels::All, PodLabels::All),
        ] {
            let mut labels = these.clone();
            labels.join(&others);
            assert_eq!(labels, joined, "{these:?} {others:?}");
        }
    }

    #[test]
    fn labels_suffice_where_all_that_are_asked_for_are_among_them() {
        for (there, asked, suffice) in [
            (these(&[]), these(&[]), true),
            (these(&["a", "b"]), these(&["b"]), true),
            (these(&["a"]), these(&["a", "b"]), false),
            (these(&["a"]), PodLabels::All, false),
            (PodLabels::All, these(&["a"]), true),
            (PodLabels::All, PodLabels::All, true),
        ] {
            assert_eq!(there.suffice(&asked), suffice, "{there:?} {asked:?}");
        }
    }
}
