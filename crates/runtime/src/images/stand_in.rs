//! What runs in the place of well-known demonstration images where no registry answers: one row for each.

use super::{Image, Reference, built_in::BuiltIn};

/// How an image is stood in for.
enum Role {
    /// By demoapp, on the port that the original listens on unless it is told otherwise.
    Serves(u16),
    /// By demoapp started with these arguments, the original's own.
    Runs(&'static [&'static str]),
    /// By the host's tools, with this entrypoint and these default arguments.
    Tool { entrypoint: &'static [&'static str], cmd: &'static [&'static str] },
}

const SHELL: Role = Role::Tool { entrypoint: &[], cmd: &["sh"] };
const BASH: Role = Role::Tool { entrypoint: &[], cmd: &["bash"] };

/// As curl's own image does: options and nothing at all go to curl, everything else is a command.
const CURL: Role = Role::Tool {
    entrypoint: &["sh", "-c", r#"case "${1:--}" in -*) exec curl "$@";; *) exec "$@";; esac"#, "curl"],
    cmd: &[],
};

/// Names without tag, as [`Reference::name`] gives them.
const TABLE: &[(&str, Role)] = &[
    // Servers.
    ("docker.io/ikubernetes/demoapp", Role::Runs(&[])),
    ("docker.io/library/nginx", Role::Serves(80)),
    ("docker.io/nginxinc/nginx-unprivileged", Role::Serves(8080)),
    ("docker.io/nginxdemos/hello", Role::Serves(80)),
    ("registry.k8s.io/nginx-slim", Role::Serves(80)),
    ("registry.k8s.io/e2e-test-images/nginx", Role::Serves(80)),
    ("registry.k8s.io/e2e-test-images/httpd", Role::Serves(80)),
    ("docker.io/library/httpd", Role::Serves(80)),
    ("docker.io/library/caddy", Role::Serves(80)),
    ("docker.io/traefik/whoami", Role::Serves(80)),
    ("docker.io/containous/whoami", Role::Serves(80)),
    ("docker.io/jwilder/whoami", Role::Serves(8000)),
    ("docker.io/hashicorp/http-echo", Role::Serves(5678)),
    ("docker.io/kennethreitz/httpbin", Role::Serves(80)),
    ("docker.io/mccutchen/go-httpbin", Role::Serves(8080)),
    ("docker.io/ealen/echo-server", Role::Serves(80)),
    ("docker.io/paulbouwer/hello-kubernetes", Role::Serves(8080)),
    ("docker.io/luksa/kubia", Role::Serves(8080)),
    ("docker.io/stefanprodan/podinfo", Role::Serves(9898)),
    ("ghcr.io/stefanprodan/podinfo", Role::Serves(9898)),
    ("gcr.io/google-samples/hello-app", Role::Serves(8080)),
    ("gcr.io/kuar-demo/kuard-amd64", Role::Serves(8080)),
    ("registry.k8s.io/echoserver", Role::Serves(8080)),
    ("k8s.gcr.io/echoserver", Role::Serves(8080)),
    ("gcr.io/google_containers/echoserver", Role::Serves(8080)),
    ("registry.k8s.io/serve_hostname", Role::Serves(9376)),
    // Tool boxes that stay up because they serve something; demoapp has the host's tools as well.
    ("docker.io/praqma/network-multitool", Role::Serves(80)),
    ("docker.io/wbitt/network-multitool", Role::Serves(80)),
    ("registry.k8s.io/e2e-test-images/agnhost", Role::Runs(&["pause"])),
    ("k8s.gcr.io/e2e-test-images/agnhost", Role::Runs(&["pause"])),
    ("registry.k8s.io/pause", Role::Runs(&["pause"])),
    // Tools.
    ("docker.io/curlimages/curl", CURL),
    ("quay.io/curl/curl", CURL),
    ("docker.io/appropriate/curl", Role::Tool { entrypoint: &["curl"], cmd: &[] }),
    ("docker.io/networkstatic/iperf3", Role::Tool { entrypoint: &["iperf3"], cmd: &["--help"] }),
    ("docker.io/library/busybox", SHELL),
    ("docker.io/library/alpine", SHELL),
    ("docker.io/radial/busyboxplus", SHELL),
    ("docker.io/library/bash", BASH),
    ("docker.io/library/ubuntu", BASH),
    ("docker.io/library/debian", BASH),
    ("docker.io/library/centos", BASH),
    ("docker.io/library/fedora", BASH),
    ("docker.io/library/rockylinux", BASH),
    ("docker.io/nicolaka/netshoot", BASH),
    ("registry.k8s.io/e2e-test-images/busybox", SHELL),
    ("registry.k8s.io/busybox", SHELL),
    ("registry.k8s.io/e2e-test-images/jessie-dnsutils", SHELL),
    ("registry.k8s.io/e2e-test-images/dnsutils", SHELL),
    ("gcr.io/kubernetes-e2e-test-images/dnsutils", SHELL),
    ("k8s.gcr.io/e2e-test-images/dnsutils", SHELL),
    ("docker.io/tutum/dnsutils", BASH),
];

/// Registries that serve Docker Hub's official images under the same paths.
const MIRRORS: &[&str] = &["mirror.gcr.io/", "public.ecr.aws/docker/"];

/// The stand-in for a reference, which keeps its tag.
pub(super) fn find(reference: &Reference) -> Option<Image> {
    let name = reference.name();
    let name = MIRRORS
        .iter()
        .find_map(|mirror| name.strip_prefix(mirror))
        .map_or_else(|| name.clone(), |path| format!("docker.io/{path}"));
    let (_, role) = TABLE.iter().find(|(known, _)| *known == name)?;
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let tag = reference.tag().unwrap_or("latest");
    let mut image = match role {
        Role::Serves(_) | Role::Runs(_) => BuiltIn::Demoapp.image(tag),
        Role::Tool { .. } => BuiltIn::Tools.image(tag),
    };
    match role {
        Role::Serves(port) => image.config.entrypoint.extend(["--default-port".to_owned(), port.to_string()]),
        Role::Runs(arguments) => image.config.cmd = owned(arguments),
        Role::Tool { entrypoint, cmd } => {
            image.config.entrypoint = owned(entrypoint);
            image.config.cmd = owned(cmd);
        }
    }
    image.stand_in_for = Some(reference.to_string());
    Some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(reference: &str) -> Image {
        find(&Reference::parse(reference).unwrap()).unwrap()
    }

    #[test]
    fn every_row_is_a_normalised_name_and_there_once() {
        for (index, (name, _)) in TABLE.iter().enumerate() {
            assert_eq!(Reference::parse(name).unwrap().name(), *name);
            assert!(TABLE[..index].iter().all(|(earlier, _)| earlier != name), "{name} twice");
        }
    }

    #[test]
    fn a_server_keeps_its_port_and_its_version() {
        let nginx = resolved("nginx:1.27");
        assert_eq!(nginx.config.entrypoint, ["/opt/podnet/bin/podnet", "demoapp", "--default-port", "80"]);
        assert_eq!(nginx.stand_in_for.as_deref(), Some("docker.io/library/nginx:1.27"));
        assert_eq!(nginx.reference, "podnet.local/demoapp:1.27");
        assert!(nginx.config.env.contains(&("DEMOAPP_RELEASE".into(), "1.27".into())));
        assert_eq!(resolved("mirror.gcr.io/library/nginx").config.entrypoint, nginx.config.entrypoint);
    }

    #[test]
    fn curl_takes_options_or_a_command_as_its_image_does() {
        let curl = resolved("curlimages/curl:8.8.0").config.entrypoint;
        let run = |arguments: &[&str]| {
            let output = std::process::Command::new(&curl[0]).args(&curl[1..]).args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(run(&["echo", "a  b"]), "a  b\n");
        assert_eq!(run(&["sh", "-c", "echo $0", "x"]), "x\n");
    }

    #[test]
    fn a_tool_image_has_its_usual_shell() {
        assert_eq!(resolved("busybox:1.36").config.cmd, ["sh"]);
        assert_eq!(resolved("debian").config.cmd, ["bash"]);
        assert!(resolved("busybox").config.entrypoint.is_empty());
        assert!(find(&Reference::parse("docker.io/someone/nginx").unwrap()).is_none());
    }
}
