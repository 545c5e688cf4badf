//! Keys and certificates: made once, kept over restarts. Each identity is a kubeconfig that its owner alone can read.

use podnet_apiserver::pki::{Pki, kubeconfig};

use crate::{
    cluster::{Cluster, NodePlace, write_private},
    layout::{self, NodeLayout},
    report::{Doing, Failure},
};

pub(crate) fn ensure(cluster: &Cluster) -> Result<(), Failure> {
    let pki = Pki::load_or_create(&layout::data("pki")).doing(|| "cannot make the cluster's keys".into())?;
    let [local, underlay] = cluster.api_addresses();
    if !layout::kubeconfig().exists() {
        let admin = pki
            .issue_client("kubernetes-admin", &["system:masters"])
            .doing(|| "cannot make the admin's certificate".into())?;
        let text = kubeconfig(&format!("https://{local}"), pki.ca_pem(), &admin.cert_pem, &admin.key_pem);
        write_private(&layout::kubeconfig(), text.as_bytes())?;
    }
    for place in cluster.places() {
        ensure_node(&pki, &place, &format!("https://{underlay}"))?;
    }
    Ok(())
}

fn ensure_node(pki: &Pki, place: &NodePlace, server: &str) -> Result<(), Failure> {
    let files = NodeLayout::new(&place.name);
    // Written last: where it is, the others are.
    if files.kubeconfig().exists() {
        return Ok(());
    }
    let what = || format!("cannot make the certificates of {}", place.name);
    let serving = pki.issue_server(std::slice::from_ref(&place.name), &[place.address.into()]).doing(what)?;
    write_private(&files.serving_certificate(), serving.cert_pem.as_bytes())?;
    write_private(&files.serving_key(), serving.key_pem.as_bytes())?;
    write_private(&files.client_ca(), pki.ca_pem().as_bytes())?;
    let client = pki.issue_client(&format!("system:node:{}", place.name), &["system:nodes"]).doing(what)?;
    let text = kubeconfig(server, pki.ca_pem(), &client.cert_pem, &client.key_pem);
    write_private(&files.kubeconfig(), text.as_bytes())
}
