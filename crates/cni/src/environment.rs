//! What the runtime says in environment variables (CNI specification 1.1.0, section 2, "Parameters").

use std::{collections::BTreeMap, env};

use podnet_kernel::cni_wire::Failure;

/// The parameters of one execution.
pub(crate) struct Environment {
    /// `CNI_COMMAND`.
    pub(crate) command: Command,
    /// `CNI_CONTAINERID`.
    pub(crate) container_id: String,
    /// `CNI_NETNS`.
    pub(crate) netns: String,
    /// `CNI_IFNAME`.
    pub(crate) ifname: String,
    /// `CNI_ARGS`, split at `;` and `=`.
    pub(crate) args: BTreeMap<String, String>,
}

/// The verbs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Environment {
    pub(crate) fn read() -> Result<Self, Failure> {
        Self::from_lookup(|name| env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let value = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let Some(command) = value("CNI_COMMAND") else {
            return Err(invalid(
                "CNI_COMMAND",
                "not set; podnet-cni is executed by a container runtime and not by hand (see the CNI specification)",
            ));
        };
        let command = match command.as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "GC" => Command::Gc,
            "STATUS" => Command::Status,
            "VERSION" => Command::Version,
            other => {
                return Err(invalid(
                    "CNI_COMMAND",
                    &format!("{other:?}; allowed are ADD, DEL, CHECK, GC, STATUS and VERSION"),
                ));
            }
        };
        let environment = Self {
            command,
            container_id: value("CNI_CONTAINERID").unwrap_or_default(),
            netns: value("CNI_NETNS").unwrap_or_default(),
            ifname: value("CNI_IFNAME").unwrap_or_default(),
            args: arguments(&value("CNI_ARGS").unwrap_or_default())?,
        };
        environment.checked()
    }

    fn checked(self) -> Result<Self, Failure> {
        if matches!(self.command, Command::Gc | Command::Status | Command::Version) {
            return Ok(self);
        }
        // "Must start with an alphanumeric character, optionally followed by … underscore, dot, hyphen" (section 2).
        let id = &self.container_id;
        let starts_well = id.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts_well || !id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
            let rule = "allowed are letters, digits, '_', '.' and '-', starting with a letter or digit";
            return Err(invalid("CNI_CONTAINERID", &format!("{id:?}; {rule}")));
        }
        // `dev_valid_name` of the kernel: 1 to 15 bytes, no '/', no ':', no white space, not "." or "..".
        let name = &self.ifname;
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
            return Err(invalid(
                "CNI_IFNAME",
                &format!("{name:?}; 1 to 15 characters without '/', ':' and white space are allowed"),
            ));
        }
        if self.netns.is_empty() && self.command != Command::Del {
            return Err(invalid("CNI_NETNS", "not set; it is the path of the sandbox's network namespace"));
        }
        Ok(self)
    }
}

fn arguments(text: &str) -> Result<BTreeMap<String, String>, Failure> {
    text.split(';')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                invalid("CNI_ARGS", &format!("{pair:?} is not KEY=VALUE (pairs are separated by ';')"))
            })?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn invalid(variable: &str, what: &str) -> Failure {
    Failure::new(Failure::INVALID_ENVIRONMENT, format!("{variable}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Failure> {
        Environment::from_lookup(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn message(variables: &[(&str, &str)]) -> String {
        let failure = read(variables).err().unwrap();
        assert_eq!(failure.code, Failure::INVALID_ENVIRONMENT);
        failure.msg
    }

    #[test]
    fn an_add_is_read_whole() {
        let add = read(&[
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "3f5a"),
            ("CNI_NETNS", "/run/netns/a"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web"),
        ])
        .unwrap();
        assert_eq!(add.command, Command::Add);
        assert_eq!(add.args["K8S_POD_NAME"], "web");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        assert!(message(&[]).starts_with("CNI_COMMAND: not set"));
        assert!(message(&[("CNI_COMMAND", "PLUG")]).contains("allowed are ADD"));
        let base = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "a"), ("CNI_NETNS", "/n")];
        assert!(message(&base).starts_with("CNI_IFNAME"));
        assert!(message(&[base[0], base[1], ("CNI_IFNAME", "eth0")]).starts_with("CNI_NETNS"));
        assert!(
            message(&[base[0], base[2], ("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "eth0")])
                .starts_with("CNI_CONTAINERID")
        );
        assert!(message(&[base[0], base[1], base[2], ("CNI_IFNAME", "sixteen-letters1")]).contains("1 to 15"));
        assert!(message(&[("CNI_COMMAND", "VERSION"), ("CNI_ARGS", "x")]).contains("KEY=VALUE"));
    }

    #[test]
    fn a_del_needs_no_namespace() {
        assert!(read(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0")]).is_ok());
    }
}
