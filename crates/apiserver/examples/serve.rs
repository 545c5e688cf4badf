//! Serves an API on 127.0.0.1 with its files in the directory given, and writes the admin's kubeconfig there.
//!
//! `cargo run -p podnet-apiserver --example serve -- /tmp/api 127.0.0.1:7443`

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use podnet_apiserver::{Config, Pki, kubeconfig, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("first argument: a directory")?);
    let address: SocketAddr = arguments.next().ok_or("second argument: address:port")?.parse()?;
    let pki = Pki::load_or_create(&dir.join("pki"))?;
    let admin = pki.issue_client("admin", &["system:masters"])?;
    let url = format!("https://{address}");
    std::fs::write(dir.join("kubeconfig"), kubeconfig(&url, pki.ca_pem(), &admin.cert_pem, &admin.key_pem))?;
    let config = Config { listen: vec![address], ..Config::in_directory(&dir, address, "10.233.0.0/18".parse()?) };
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    Ok(serve(config, interrupted).await?)
}
