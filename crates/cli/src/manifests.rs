//! `podnet manifests`: what a cluster needs to run podnet on each of its nodes, ready for `kubectl apply -f -`.

use std::io::Write;

use ipnet::IpNet;
use podnet_apiserver::pki;
use podnet_client::connect::AGENTS;
use podnet_model::{
    balancer::LEASE,
    crd::{self, IPPool},
};
use serde::Serialize;

use crate::{
    addons,
    arguments::manifests::{ApiServer, ManifestsOptions},
    report::{Doing, Failure},
};

/// Everything but the definitions; IMAGE, API_HOST, API_PORT and ARGUMENTS stand for what the options say, AGENT_CERTIFICATE and AGENT_KEY for
/// a certificate that is made each time.
const PODNET: &str = include_str!("../manifests/podnet.yaml");
/// The option by which agents leave load balancers' addresses to others.
const NO_BALANCERS: &str = "--no-load-balancer-controller";

pub(crate) fn run(options: &ManifestsOptions) -> Result<(), Failure> {
    let text = all(options)?;
    // A reader may have seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn all(options: &ManifestsOptions) -> Result<String, Failure> {
    let mut documents = Vec::new();
    for definition in crd::definitions().into_iter().chain(crd::balancer_definitions()) {
        documents.push(document(&definition)?);
    }
    for cidr in &options.pod_cidr {
        documents.push(document(&pool(*cidr))?);
    }
    documents.extend(podnet(options)?);
    Ok(documents.join("---\n"))
}

fn podnet(options: &ManifestsOptions) -> Result<Vec<String>, Failure> {
    let ApiServer { host, port } = &options.api_server;
    let arguments = quoted(&options.arguments)?;
    let agents = pki::self_signed(AGENTS.1).doing(|| "cannot make the agents' certificate".into())?;
    let text = filled(
        PODNET,
        &[
            ("AGENT_CERTIFICATE", quoted(&agents.cert_pem)?),
            ("AGENT_KEY", quoted(&agents.key_pem)?),
            ("ARGUMENTS", arguments),
            ("IMAGE", quoted(&options.image)?),
            ("API_HOST", quoted(host)?),
            ("API_PORT", quoted(&port.to_string())?),
        ],
    );
    let others_give = options.arguments.iter().any(|argument| argument == NO_BALANCERS);
    let is_of_balancers = |document: &str| document.lines().any(|line| line.trim() == format!("name: {}", LEASE.1));
    let documents = text.split("---\n").filter(|document| !(others_give && is_of_balancers(document)));
    Ok(documents.map(str::to_owned).collect())
}

/// The text with values in the place of words. What a value says is no word, whatever it is.
fn filled(text: &str, values: &[(&str, String)]) -> String {
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((at, word, value)) =
        values.iter().filter_map(|(word, value)| Some((rest.find(word)?, word, value))).min_by_key(|(at, ..)| *at)
    {
        filled.push_str(&rest[..at]);
        filled.push_str(value);
        rest = &rest[at + word.len()..];
    }
    filled + rest
}

fn pool(cidr: IpNet) -> IPPool {
    match cidr {
        IpNet::V4(_) => addons::pool(addons::DEFAULT_POOL, cidr.to_string(), 26),
        IpNet::V6(_) => addons::pool(addons::DEFAULT_POOL_V6, cidr.to_string(), 122),
    }
}

fn document(object: &impl Serialize) -> Result<String, Failure> {
    serde_norway::to_string(object).doing(|| "a built-in definition is damaged".into())
}

/// A value as JSON has it, which is YAML, too.
fn quoted(value: &(impl Serialize + ?Sized)) -> Result<String, Failure> {
    serde_json::to_string(value).doing(|| "an argument cannot be written as JSON".into())
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use clap::Parser;
    use k8s_openapi::{
        api::{
            apps::v1::DaemonSet,
            core::v1::{ConfigMap, Namespace, Secret, ServiceAccount},
            rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
        },
        apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    };
    use podnet_client::connect::AGENTS_CERTIFICATE;
    use serde::{Deserialize, de::DeserializeOwned};
    use serde_json::Value;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn printed(more: &[&str]) -> Vec<Value> {
        let line = ["podnet", "manifests", "--image", "example.com/podnet:1", "--api-server", "[fd00::1]:6443"];
        let Command::Manifests(options) = Arguments::parse_from(line.iter().chain(more)).command else {
            panic!("not manifests")
        };
        let text = all(&options).unwrap_or_else(|failure| panic!("{failure}"));
        serde_norway::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
    }

    /// Nothing in it is unknown to Kubernetes.
    fn is_a<K: DeserializeOwned + Serialize + Debug>(object: &Value) {
        let known: K = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(serde_json::to_value(known).unwrap(), *object);
    }

    fn named<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o str> {
        let of_kind = objects.iter().filter(|object| object["kind"] == kind);
        of_kind.map(|object| object["metadata"]["name"].as_str().unwrap()).collect()
    }

    #[test]
    fn everything_that_is_printed_is_of_a_kind_that_kubernetes_knows() {
        let objects = printed(&["--pod-cidr", "10.244.0.0/16", "--pod-cidr", "fd00:10:244::/56"]);
        for object in &objects {
            match object["kind"].as_str().unwrap() {
                "CustomResourceDefinition" => is_a::<CustomResourceDefinition>(object),
                "IPPool" => is_a::<IPPool>(object),
                "Namespace" => is_a::<Namespace>(object),
                "ServiceAccount" => is_a::<ServiceAccount>(object),
                "Secret" => is_a::<Secret>(object),
                "ConfigMap" => is_a::<ConfigMap>(object),
                "ClusterRole" => is_a::<ClusterRole>(object),
                "ClusterRoleBinding" => is_a::<ClusterRoleBinding>(object),
                "Role" => is_a::<Role>(object),
                "RoleBinding" => is_a::<RoleBinding>(object),
                "DaemonSet" => is_a::<DaemonSet>(object),
                kind => panic!("{kind}"),
            }
        }
        assert_eq!(named(&objects, "IPPool"), ["default-ipv4-ippool", "default-ipv6-ippool"]);
        assert_eq!(named(&objects, "ClusterRole"), ["podnet-agent", "podnet-load-balancers"]);
        assert!(named(&objects, "CustomResourceDefinition").contains(&"ipaddresspools.metallb.io"));
        let lease = objects.iter().find(|object| object["kind"] == "Role").unwrap();
        assert_eq!(lease["metadata"]["namespace"], LEASE.0);
        assert_eq!(lease["rules"][1]["resourceNames"][0], LEASE.1);
    }

    #[test]
    fn the_agents_container_is_started_as_the_options_say() {
        let objects =
            printed(&["--", "--service-cidr", "10.96.0.0/12", NO_BALANCERS, "--iptables-forward-rules=false"]);
        let pod = &objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap()["spec"]["template"]["spec"];
        assert_eq!([&pod["hostNetwork"], &pod["hostPID"]], [true, true]);
        let container = &pod["containers"][0];
        assert_eq!(container["image"], "example.com/podnet:1");
        assert_eq!(pod["initContainers"][0]["image"], "example.com/podnet:1");
        let value = |name: &str| {
            let variables = container["env"].as_array().unwrap();
            variables.iter().find(|variable| variable["name"] == name).unwrap()["value"].clone()
        };
        assert_eq!([value("KUBERNETES_SERVICE_HOST"), value("KUBERNETES_SERVICE_PORT")], ["fd00::1", "6443"]);
        let words = container["command"].as_array().unwrap().iter().chain(container["args"].as_array().unwrap());
        let line: Vec<_> = words.map(|word| word.as_str().unwrap()).chain(["--name", "node1"]).collect();
        let Command::Agent(agent) = Arguments::parse_from(&line).command else { panic!("{line:?}") };
        assert!(agent.no_load_balancer_controller && agent.service_cidr.is_some() && !agent.iptables_forward_rules);
        assert_eq!(named(&objects, "ClusterRole"), ["podnet-agent"], "what it does not need");
        let others = ["podnet-agents", "podnet-agent"];
        assert_eq!([named(&objects, "Role"), named(&objects, "RoleBinding")], [others, others]);

        let mounted = |path: &str| {
            let mounts = container["volumeMounts"].as_array().unwrap().iter();
            mounts.filter_map(|mount| mount["mountPath"].as_str()).any(|mount| path.starts_with(mount))
        };
        let shown = [value("PODNET_FLOW_CERTIFICATE"), value("PODNET_FLOW_KEY")];
        assert_eq!(shown, ["/etc/podnet/agents/tls.crt", "/etc/podnet/agents/tls.key"], "keys of the Secret");
        assert!(mounted("/etc/podnet/agents/tls.crt"));
        for path in [&agent.state_dir, &agent.socket, &agent.cni_conf_dir, &agent.subnet_file] {
            assert!(mounted(&path.display().to_string()), "{}", path.display());
        }
        assert_eq!(container["readinessProbe"]["httpGet"]["port"], agent.health_address.port());
    }

    #[test]
    fn agents_show_the_certificate_that_everybody_may_read_and_nobody_else_has_its_key() {
        let of = |objects: &[Value], kind: &str| {
            let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == AGENTS.1;
            objects.iter().find(is_it).unwrap().clone()
        };
        let objects = printed(&[]);
        let (secret, public) = (of(&objects, "Secret"), of(&objects, "ConfigMap"));
        assert_eq!([&secret["metadata"]["namespace"], &public["metadata"]["namespace"]], [AGENTS.0, AGENTS.0]);
        let certificate = public["data"][AGENTS_CERTIFICATE].as_str().unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----\n"), "{certificate}");
        assert_eq!(secret["stringData"]["tls.crt"], certificate);
        assert!(secret["stringData"]["tls.key"].as_str().unwrap().contains("PRIVATE KEY"));
        assert_eq!(public["data"].as_object().unwrap().len(), 1, "the certificate alone");
        assert_eq!(of(&objects, "Role")["rules"][0]["resourceNames"], serde_json::json!([AGENTS.1]));
        let other = printed(&[]);
        assert_ne!(of(&other, "Secret")["stringData"]["tls.key"], secret["stringData"]["tls.key"]);
    }

    #[test]
    fn what_an_option_says_is_no_place_for_another_one() {
        let objects = printed(&["--", "--node-name", "IMAGE-API_HOST-API_PORT-ARGUMENTS"]);
        let daemons = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
        let arguments = &daemons["spec"]["template"]["spec"]["containers"][0]["args"];
        assert_eq!(arguments[1], "IMAGE-API_HOST-API_PORT-ARGUMENTS");
    }

    #[test]
    fn an_api_server_without_a_port_is_refused() {
        for wrong in ["192.0.2.1", "192.0.2.1:", "fd00::1:6443", ":6443", "https://192.0.2.1:6443"] {
            let line = ["podnet", "manifests", "--image", "i", "--api-server", wrong];
            assert!(Arguments::try_parse_from(line).is_err(), "{wrong}");
        }
    }
}
