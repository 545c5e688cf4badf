//! A container runtime's side of CNI: plugins executed as `libcni` executes them.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

/// Where Debian's containernetworking-plugins are.
pub const DEBIAN: &str = "/usr/lib/cni";

/// One execution of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// It exited with code 0.
    pub success: bool,
    /// What it printed; null where it printed nothing.
    pub value: Value,
}

impl Answer {
    /// The result of a success.
    ///
    /// # Panics
    ///
    /// When it failed.
    #[must_use]
    pub fn done(self) -> Value {
        assert!(self.success, "{:#}", self.value);
        self.value
    }

    /// The code and message of a failure.
    ///
    /// # Panics
    ///
    /// When it succeeded, or printed no error of the specification's form.
    #[must_use]
    pub fn refused(self) -> (u64, String) {
        assert!(!self.success, "succeeded: {:#}", self.value);
        assert!(self.value["cniVersion"].is_string() && self.value["details"].is_string(), "{:#}", self.value);
        let code = self.value["code"].as_u64().expect("an error has a code");
        (code, self.value["msg"].as_str().expect("an error has a message").to_owned())
    }
}

/// Executes a program with these variables and this input.
///
/// # Panics
///
/// When it cannot be started, or prints what is no JSON.
#[must_use]
pub fn execute(program: &Path, variables: &[(&str, &str)], input: &str) -> Answer {
    executed(Command::new(program), program, variables, input)
}

fn executed(mut command: Command, program: &Path, variables: &[(&str, &str)], input: &str) -> Answer {
    let mut child = command
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    // One that ends without reading says why in its answer.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("a plugin ends");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let value = if out.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{}: {error}: {out}{err}", program.display()))
    };
    Answer { success: output.status.success(), value }
}

/// A network configuration list, and where its plugins are.
#[derive(Clone, Debug)]
pub struct Conflist {
    /// Directories with plugins.
    pub path: Vec<PathBuf>,
    /// The version that is spoken.
    pub version: String,
    /// The network's name.
    pub name: String,
    /// The plugins' configurations.
    pub plugins: Vec<Value>,
    /// Values of capabilities.
    pub capabilities: Value,
    /// `CNI_ARGS`.
    pub args: String,
    /// The namespace that the plugins run in, by its name in `/run/netns`; none is the test's own.
    pub node: Option<String>,
}

impl Conflist {
    /// A list of these plugins, found in the directory of `podnet` and in Debian's.
    #[must_use]
    pub fn new(podnet: &Path, version: &str, name: &str, plugins: Vec<Value>) -> Self {
        let own = podnet.parent().unwrap_or(Path::new("/")).to_path_buf();
        let (path, version, name) = (vec![own, DEBIAN.into()], version.to_owned(), name.to_owned());
        Self { path, version, name, plugins, capabilities: json!({}), args: "IgnoreUnknown=1".to_owned(), node: None }
    }

    /// The same with values of capabilities.
    #[must_use]
    pub fn with(&self, capabilities: Value) -> Self {
        Self { capabilities, ..self.clone() }
    }

    /// ADD of each plugin, each given the result of the one before; the last one's answer, or the first refusal.
    #[must_use]
    pub fn add(&self, id: &str, netns: &str, ifname: &str) -> Answer {
        let mut answer = Answer { success: true, value: Value::Null };
        for plugin in &self.plugins {
            answer = self.call("ADD", plugin, id, netns, ifname, &answer.value);
            if !answer.success {
                break;
            }
        }
        answer
    }

    /// CHECK of each plugin, each given the result of the ADD.
    #[must_use]
    pub fn check(&self, id: &str, netns: &str, ifname: &str, result: &Value) -> Answer {
        let answers = self.plugins.iter().map(|plugin| self.call("CHECK", plugin, id, netns, ifname, result));
        last_or_refused(answers)
    }

    /// DEL of each plugin, last first.
    #[must_use]
    pub fn del(&self, id: &str, netns: &str, ifname: &str, result: &Value) -> Answer {
        let answers = self.plugins.iter().rev().map(|plugin| self.call("DEL", plugin, id, netns, ifname, result));
        last_or_refused(answers)
    }

    /// GC of each plugin, with the attachments `(container, interface)` that are still valid.
    #[must_use]
    pub fn gc(&self, valid: &[(&str, &str)]) -> Answer {
        let valid: Vec<Value> = valid.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect();
        last_or_refused(self.plugins.iter().map(|plugin| {
            let mut config = self.config(plugin, &Value::Null);
            config["cni.dev/valid-attachments"] = valid.clone().into();
            self.execute(plugin, &[("CNI_COMMAND", "GC"), ("CNI_PATH", &self.path())], &config)
        }))
    }

    /// STATUS of each plugin.
    #[must_use]
    pub fn status(&self) -> Answer {
        last_or_refused(self.plugins.iter().map(|plugin| {
            let config = self.config(plugin, &Value::Null);
            self.execute(plugin, &[("CNI_COMMAND", "STATUS"), ("CNI_PATH", &self.path())], &config)
        }))
    }

    fn call(&self, verb: &str, plugin: &Value, id: &str, netns: &str, ifname: &str, previous: &Value) -> Answer {
        let path = self.path();
        let variables = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", ifname),
            ("CNI_ARGS", self.args.as_str()),
            ("CNI_PATH", path.as_str()),
            // Debian's plugins execute `iptables`.
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ];
        self.execute(plugin, &variables, &self.config(plugin, previous))
    }

    fn execute(&self, plugin: &Value, variables: &[(&str, &str)], config: &Value) -> Answer {
        let program = self.program(plugin);
        let command = match &self.node {
            None => Command::new(&program),
            Some(node) => {
                let mut command = Command::new("/usr/bin/nsenter");
                command.arg(format!("--net=/run/netns/{node}")).arg(&program);
                command
            }
        };
        executed(command, &program, variables, &config.to_string())
    }

    /// A plugin's configuration as it gets it on standard input.
    fn config(&self, plugin: &Value, previous: &Value) -> Value {
        let mut config = plugin.clone();
        config["cniVersion"] = self.version.clone().into();
        config["name"] = self.name.clone().into();
        if !previous.is_null() {
            config["prevResult"] = previous.clone();
        }
        for (name, value) in self.capabilities.as_object().into_iter().flatten() {
            if plugin["capabilities"][name] == true {
                config["runtimeConfig"][name] = value.clone();
            }
        }
        config
    }

    fn path(&self) -> String {
        self.path.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":")
    }

    fn program(&self, plugin: &Value) -> PathBuf {
        let name = plugin["type"].as_str().expect("a plugin has a type");
        let found = self.path.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
        found.unwrap_or_else(|| panic!("plugin {name} is not in {:?}", self.path))
    }
}

fn last_or_refused(answers: impl Iterator<Item = Answer>) -> Answer {
    let mut last = Answer { success: true, value: Value::Null };
    for answer in answers {
        last = answer;
        if !last.success {
            break;
        }
    }
    last
}
