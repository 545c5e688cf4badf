use std::os::unix::fs::PermissionsExt;

use super::*;

struct Plugins {
    dir: tempfile::TempDir,
    cni: Cni,
}

/// A plugin that appends what it was told to `log` and then runs `answer`.
fn plugins(scripts: &[(&str, &str)], conflist: &Value) -> Plugins {
    let dir = tempfile::tempdir().unwrap();
    let (bin, conf) = (dir.path().join("bin"), dir.path().join("net.d"));
    for made in [&bin, &conf, &dir.path().join("sandbox")] {
        fs::create_dir(made).unwrap();
    }
    for (name, answer) in scripts {
        let log = dir.path().join("log");
        let path = bin.join(name);
        let script = format!(
            "#!/bin/sh\necho \"{name} $CNI_COMMAND $CNI_IFNAME $CNI_ARGS $(cat)\" >> {}\n{answer}\n",
            log.display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(conf.join("10-test.conflist"), conflist.to_string()).unwrap();
    let cni = Cni { bin_dirs: vec![bin], conf_dir: conf };
    Plugins { dir, cni }
}

impl Plugins {
    fn sandbox(&self) -> PathBuf {
        self.dir.path().join("sandbox")
    }

    fn log(&self) -> Vec<String> {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default().lines().map(Into::into).collect()
    }

    fn attachment(&self) -> Attachment {
        Attachment {
            conflist: conflist::first(&self.cni.conf_dir).unwrap(),
            container_id: "c1".into(),
            netns: "/run/netns/none".into(),
            args: "IgnoreUnknown=1".into(),
            capabilities: serde_json::Map::from_iter([("portMappings".to_owned(), json!([{ "hostPort": 80 }]))]),
            result: None,
        }
    }
}

const ADDRESS: &str = r#"echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/32"}]}'"#;

fn chain() -> Value {
    json!({ "cniVersion": "1.0.0", "name": "net", "plugins": [
        { "type": "first" }, { "type": "second", "capabilities": { "portMappings": true } } ] })
}

#[tokio::test]
async fn plugins_are_chained_and_undone_in_reverse() {
    let plugins = plugins(&[("first", ADDRESS), ("second", ADDRESS)], &chain());
    let addresses = plugins.cni.add(&plugins.sandbox(), plugins.attachment()).await.unwrap();
    assert_eq!(addresses, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
    plugins.cni.delete(&plugins.sandbox()).await.unwrap();
    let log = plugins.log();
    let order: Vec<String> = log.iter().map(|line| line.split(' ').take(4).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        order,
        [
            "first ADD eth0 IgnoreUnknown=1",
            "second ADD eth0 IgnoreUnknown=1",
            "second DEL eth0 IgnoreUnknown=1",
            "first DEL eth0 IgnoreUnknown=1"
        ]
    );
    assert!(!log[0].contains("prevResult") && log[1].contains("prevResult") && log[2].contains("prevResult"));
    assert!(
        !log[0].contains("runtimeConfig") && log[1].contains(r#""runtimeConfig":{"portMappings":[{"hostPort":80}]}"#)
    );
    assert!(load(&plugins.sandbox()).is_none());
}

#[tokio::test]
async fn a_refused_add_says_what_the_plugin_said_and_is_undone() {
    let refuse =
        r#"[ "$CNI_COMMAND" = DEL ] && exit 0; echo '{"cniVersion":"1.0.0","code":11,"msg":"pool is empty"}'; exit 1"#;
    let plugins = plugins(&[("first", ADDRESS), ("second", refuse)], &chain());
    let error = plugins.cni.add(&plugins.sandbox(), plugins.attachment()).await.unwrap_err();
    assert_eq!(error.to_string(), r#"plugin type="second" name="net" failed (add): pool is empty"#);
    assert_eq!(plugins.log().iter().filter(|line| line.contains(" DEL ")).count(), 2);
}

#[tokio::test]
async fn a_failed_delete_keeps_what_is_needed_to_try_again() {
    let stuck = r#"[ "$CNI_COMMAND" = ADD ] && { echo '{"ips":[{"address":"10.1.2.3/32"}]}'; exit 0; }; echo broken >&2; exit 1"#;
    let conflist = json!({ "cniVersion": "1.0.0", "name": "net", "plugins": [{ "type": "stuck" }] });
    let plugins = plugins(&[("stuck", stuck)], &conflist);
    plugins.cni.add(&plugins.sandbox(), plugins.attachment()).await.unwrap();
    assert!(plugins.cni.delete(&plugins.sandbox()).await.unwrap_err().to_string().contains("broken"));
    assert!(load(&plugins.sandbox()).is_some());
}

#[tokio::test]
async fn a_network_is_ready_when_its_plugins_say_so() {
    let conflist = json!({ "cniVersion": "1.1.0", "name": "net", "plugins": [{ "type": "late" }] });
    let plugins = plugins(&[("late", "echo '{\"code\":50,\"msg\":\"not yet\"}'; exit 1")], &conflist);
    assert!(plugins.cni.ready().await.unwrap_err().to_string().contains("not yet"));
    assert!(plugins.log()[0].starts_with("late STATUS"));
}

#[tokio::test]
async fn without_a_conflist_the_network_is_not_initialized() {
    let dir = tempfile::tempdir().unwrap();
    let cni = Cni { bin_dirs: vec![], conf_dir: dir.path().into() };
    assert!(cni.ready().await.unwrap_err().to_string().contains("cni plugin not initialized"));
}
