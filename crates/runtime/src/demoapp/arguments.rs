//! demoapp's command line. It also understands the arguments of the images that it stands in for, so that their manifests work
//! unchanged: `-text=… -listen=:5678` (http-echo), `netexec --http-port=8080` and `serve-hostname` (agnhost), `--port` and `--name`
//! (whoami), and `HOST` and `PORT` in the environment (ikubernetes/demoapp).

use std::{
    iter::Peekable,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{DemoappError, DemoappOptions, Listen};

/// Where it listens if nothing says otherwise.
const DEFAULT_PORT: u16 = 80;

impl DemoappOptions {
    /// Reads the command line (without the program's name) and, through `variable`, the environment: `HOST`, `PORT`, `POD_IP`,
    /// `DEMOAPP_RELEASE`.
    ///
    /// ```text
    /// [netexec | serve-hostname | pause] [--port N | --listen [ADDRESS:]PORT[,…]]… [--default-port N] [--name NAME] [--text TEXT]
    /// ```
    ///
    /// # Errors
    /// [`DemoappError::Argument`] with the first argument that is not understood.
    pub fn from_args(
        arguments: impl IntoIterator<Item = String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<DemoappOptions, DemoappError> {
        let mut options = DemoappOptions {
            pod_ip: variable("POD_IP").and_then(|address| address.parse().ok()),
            release: variable("DEMOAPP_RELEASE").filter(|release| !release.is_empty()),
            ..DemoappOptions::default()
        };
        let (mut default_port, mut pause) = (None, false);
        let mut arguments = arguments.into_iter().peekable();
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix('-') else {
                match argument.as_str() {
                    "pause" => pause = true,
                    "netexec" => default_port = Some(8080),
                    "serve-hostname" => default_port = Some(9376),
                    _ => return Err(bad(argument, "the commands are netexec, serve-hostname and pause")),
                }
                continue;
            };
            match flag(name.strip_prefix('-').unwrap_or(name), &mut arguments) {
                ("port" | "http-port", Some(value)) => options.listen.push(Listen::Port(port(&value)?)),
                ("listen", Some(value)) => {
                    for place in value.split(',') {
                        options.listen.push(listen(place)?);
                    }
                }
                ("default-port", Some(value)) => default_port = Some(port(&value)?),
                ("name", Some(value)) => options.pod_name = Some(value),
                ("text", Some(value)) => options.text = Some(value),
                // agnhost's other listeners, which nothing here is asked through.
                ("udp-port" | "sctp-port" | "delay-shutdown", Some(_)) => {}
                _ => {
                    return Err(bad(
                        argument,
                        "the flags are --port, --listen, --default-port, --name and --text, each with a value",
                    ));
                }
            }
        }
        if options.listen.is_empty() && !pause {
            let listen = match default_port {
                Some(port) => Listen::Port(port),
                None => from_environment(variable)?,
            };
            options.listen.push(listen);
        }
        Ok(options)
    }
}

/// A flag's name and value, which follows `=` or is the next argument.
fn flag<'a>(flag: &'a str, arguments: &mut Peekable<impl Iterator<Item = String>>) -> (&'a str, Option<String>) {
    match flag.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (flag, arguments.next()),
    }
}

fn port(value: &str) -> Result<u16, DemoappError> {
    value.parse().ok().filter(|port| *port != 0).ok_or_else(|| bad(value, "a port is a number from 1 to 65535"))
}

/// `address:port`, or `:port` or `port` for all addresses.
fn listen(value: &str) -> Result<Listen, DemoappError> {
    let place = value.strip_prefix(':').unwrap_or(value);
    if place.bytes().all(|byte| byte.is_ascii_digit()) {
        return port(place).map(Listen::Port);
    }
    value.parse().map(Listen::Address).map_err(|_| bad(value, "a place to listen is ADDRESS:PORT, :PORT or PORT"))
}

fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Listen, DemoappError> {
    // Kubernetes itself may set PORT-like variables to URLs for Services; those are none of ours.
    let port = variable("PORT").and_then(|text| port(&text).ok()).unwrap_or(DEFAULT_PORT);
    match variable("HOST").filter(|host| !host.is_empty()) {
        None => Ok(Listen::Port(port)),
        Some(host) => match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ok(Listen::Port(port)),
            Ok(address) => Ok(Listen::Address(SocketAddr::new(address, port))),
            Err(_) => Err(bad(host, "HOST in the environment has to be an address")),
        },
    }
}

fn bad(argument: impl Into<String>, reason: &'static str) -> DemoappError {
    DemoappError::Argument { argument: argument.into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str, environment: &[(&str, &str)]) -> Result<DemoappOptions, DemoappError> {
        let variable =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        DemoappOptions::from_args(line.split_whitespace().map(str::to_owned), variable)
    }

    fn ports(line: &str) -> Vec<Listen> {
        options(line, &[]).unwrap().listen
    }

    #[test]
    fn port_80_is_the_default_and_others_replace_it() {
        assert_eq!(ports(""), [Listen::Port(80)]);
        assert_eq!(ports("--default-port 5678"), [Listen::Port(5678)]);
        assert_eq!(ports("--default-port 80 --port 8080 --port=8443"), [Listen::Port(8080), Listen::Port(8443)]);
        assert_eq!(ports("--listen 127.0.0.1:81"), [Listen::Address("127.0.0.1:81".parse().unwrap())]);
        assert_eq!(ports("--listen 7000,:9030"), [Listen::Port(7000), Listen::Port(9030)]);
    }

    #[test]
    fn the_arguments_of_well_known_images_are_understood() {
        let echo = options("--default-port 5678 -text=hello -listen=:9000", &[]).unwrap();
        assert_eq!((echo.listen, echo.text.as_deref()), (vec![Listen::Port(9000)], Some("hello")));
        assert_eq!(ports("netexec --http-port=8081 --udp-port=8081"), [Listen::Port(8081)]);
        assert_eq!(ports("netexec"), [Listen::Port(8080)]);
        assert_eq!(ports("pause"), []);
        let whoami = options("--port 8000 --name me", &[]).unwrap();
        assert_eq!((whoami.listen, whoami.pod_name.as_deref()), (vec![Listen::Port(8000)], Some("me")));
    }

    #[test]
    fn the_environment_fills_in_what_the_command_line_leaves_open() {
        let environment = [("PORT", "8080"), ("HOST", "0.0.0.0"), ("POD_IP", "10.1.2.3"), ("DEMOAPP_RELEASE", "v1.1")];
        let open = options("", &environment).unwrap();
        assert_eq!(open.listen, [Listen::Port(8080)]);
        assert_eq!((open.pod_ip, open.release.as_deref()), (Some("10.1.2.3".parse().unwrap()), Some("v1.1")));
        assert_eq!(options("--port 9090", &environment).unwrap().listen, [Listen::Port(9090)]);
        assert_eq!(options("", &[("PORT", "tcp://10.0.0.1:80")]).unwrap().listen, [Listen::Port(80)]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for line in ["--prot 80", "--port", "--port 0", "--port http", "connect", "--listen nowhere", "--listen 80,"] {
            assert!(matches!(options(line, &[]), Err(DemoappError::Argument { .. })), "{line}");
        }
    }
}
