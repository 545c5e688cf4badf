//! kubectl itself: the one in PATH.

use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::cluster::Cluster;

const MANIFEST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: demo}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: podnet.local/demoapp, ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

struct Kubectl<'c> {
    cluster: &'c Cluster,
}

impl<'c> Kubectl<'c> {
    fn of(cluster: &'c Cluster) -> Self {
        let text = cluster.kubeconfig("admin", &["system:masters"]);
        std::fs::write(cluster.directory.path().join("kubeconfig"), text).unwrap();
        Self { cluster }
    }

    async fn output(&self, arguments: &str, stdin: &str) -> Output {
        let home = self.cluster.directory.path();
        let mut child = Command::new("kubectl")
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", home.join("kubeconfig"))
            .env("HOME", home)
            .env("KUBE_EDITOR", "sed -i s/replicas:.*/replicas:\\ 5/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is in PATH");
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap();
        child.wait_with_output().await.unwrap()
    }

    /// What kubectl prints when it succeeds, as it has to.
    async fn run(&self, arguments: &str) -> String {
        self.run_with(arguments, "").await
    }

    async fn run_with(&self, arguments: &str, stdin: &str) -> String {
        let output = self.output(arguments, stdin).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What kubectl complains about when it fails, as it has to.
    async fn fail(&self, arguments: &str) -> String {
        let output = self.output(arguments, "").await;
        assert!(!output.status.success(), "kubectl {arguments} succeeds");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_shows_changes_and_deletes() {
    let cluster = Cluster::start().await;
    let kubectl = Kubectl::of(&cluster);
    let created = "namespace/demo created\ndeployment.apps/web created\nservice/web created\n";
    assert_eq!(kubectl.run_with("apply -f -", MANIFEST).await, created);
    assert_eq!(kubectl.run_with("apply -f -", MANIFEST).await, created.replace("created", "unchanged"));
    let changed = MANIFEST.replace("replicas: 2", "replicas: 4");
    assert!(kubectl.run_with("apply -f -", &changed).await.contains("deployment.apps/web configured"));
    let wide = kubectl.run("get deployment web -n demo -o wide").await;
    assert!(wide.contains("0/4") && wide.contains("podnet.local/demoapp"), "{wide}");
    kubectl.run("scale deployment web -n demo --replicas=3").await;
    assert_eq!(kubectl.run("get deploy web -n demo -o jsonpath={.spec.replicas}").await, "3");
    kubectl.run("edit deployment web -n demo").await;
    assert_eq!(kubectl.run("get deploy web -n demo -o jsonpath={.spec.replicas}").await, "5");
    kubectl.run("label service web -n demo tier=front").await;
    kubectl.run("annotate service web -n demo note=here").await;
    assert!(kubectl.run("get svc -n demo -l tier=front").await.contains("web"));
    assert!(kubectl.run("describe service web -n demo").await.contains("app=web"));
    assert!(kubectl.run("api-resources").await.contains("endpointslices"));
    assert!(kubectl.run("version").await.contains("v1.32.0+podnet"));
    let patch = r#"patch service web -n demo --type=merge -p {"spec":{"sessionAffinity":"ClientIP"}}"#;
    assert!(kubectl.run(patch).await.contains("patched"));
    kubectl.run("delete service web -n demo").await;
    assert!(kubectl.fail("get service web -n demo").await.contains("services \"web\" not found"));
    kubectl.run("delete namespace demo --wait=false").await;
    kubectl.run("wait namespace/demo --for=jsonpath={.status.phase}=Terminating --timeout=5s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_creates_without_manifests_and_knows_itself() {
    let cluster = Cluster::start().await;
    let kubectl = Kubectl::of(&cluster);
    kubectl.run("create namespace demo").await;
    kubectl.run("create deployment web --image=podnet.local/demoapp --replicas=0 -n demo").await;
    assert_eq!(kubectl.run("get deploy web -n demo -o jsonpath={.spec.replicas}").await, "0");
    kubectl.run("expose deployment web --port=80 -n demo").await;
    kubectl.run("create configmap settings --from-literal=a=b -n demo").await;
    assert_eq!(kubectl.run("get cm settings -n demo -o jsonpath={.data.a}").await, "b");
    kubectl.run("create serviceaccount robot -n demo").await;
    assert_eq!(kubectl.run("create token robot -n demo").await.split('.').count(), 3);
    kubectl.run("run probe --image=podnet.local/tools -n demo -- sleep 1").await;
    assert_eq!(kubectl.run("auth can-i create pods").await, "yes\n");
    let unknown = kubectl.fail("create deployment web --image=x -n nowhere").await;
    assert!(unknown.contains("namespaces \"nowhere\" not found"), "{unknown}");
}
