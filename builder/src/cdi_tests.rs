//! Descriptions of devices: what is found in them, and what is refused.

use std::io::Write as _;

use super::*;

const SPEC: &str = r#"{
  "cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "annotations": {"a": "b"},
  "containerEdits": {"env": ["ALL=1"], "mounts": [{"hostPath": "/opt/lib", "containerPath": "/lib/gpu", "options": ["ro", "rbind"]}]},
  "devices": [
    {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu1", "hostPath": "/dev/null", "permissions": "rw"}], "env": ["ID=1"]}},
    {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/zero", "major": 1, "minor": 5, "type": "c"}], "additionalGids": [44]}},
    {"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/x"}]}}
  ]
}"#;

fn devices(files: &[(&str, &str)]) -> Result<Devices, CdiError> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let mut file = File::create(dir.path().join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    Devices::read(&[PathBuf::from("/no/such/dir"), dir.path().to_owned()])
}

#[test]
fn devices_are_found_by_name_and_class() {
    let devices = devices(&[("gpu.json", SPEC), ("README", "not read")]).unwrap();
    let check = |wanted: &str, nodes: &[&str], env: &[&str]| {
        let found = devices.find(wanted).unwrap();
        let paths: Vec<_> = found.nodes.iter().map(|node| node.path.as_str()).collect();
        assert_eq!(paths, nodes, "{wanted}");
        let pairs: Vec<_> = found
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(pairs, env, "{wanted}");
        let mounts: Vec<_> = found
            .mounts
            .iter()
            .map(|mount| (mount.path.as_str(), mount.is_writable))
            .collect();
        assert_eq!(mounts, [("/lib/gpu", false)], "{wanted}");
    };
    check("vendor.com/gpu=1", &["/dev/gpu1"], &["ALL=1", "ID=1"]);
    check("vendor.com/gpu=0", &["/dev/zero"], &["ALL=1"]);
    check("vendor.com/gpu", &["/dev/zero"], &["ALL=1"]);
    assert_eq!(devices.find("vendor.com/gpu=0").unwrap().groups, [44]);
    let host = &devices.find("vendor.com/gpu=1").unwrap().nodes[0].host;
    assert_eq!(host, Path::new("/dev/null"));
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    let devices = devices(&[("gpu.json", SPEC), ("more.yaml", "kind: vendor.com/nic")]).unwrap();
    let check = |wanted: &str, expected: &[&str]| {
        let text = devices.find(wanted).unwrap_err().to_string();
        assert!(
            expected.iter().all(|part| text.contains(part)),
            "{wanted}: {text}"
        );
    };
    check(
        "vendor.com/gpu=hooked",
        &["vendor.com/gpu=hooked", "gpu.json", "hooks"],
    );
    check("vendor.com/gpu=*", &["hooks"]);
    check("*", &["hooks"]);
    check(
        "vendor.com/gpu=7",
        &["is not known", "/no/such/dir", "more.yaml", "YAML"],
    );
    check("vendor.com/nic=0", &["is not known"]);
}

#[test]
fn malformed_descriptions_are_errors() {
    let check = |text: &str, expected: &str| {
        let error = devices(&[("x.json", text)]).unwrap_err().to_string();
        assert!(
            error.contains("x.json") && error.contains(expected),
            "{text}: {error}"
        );
    };
    check("{", "EOF");
    check(r#"{"cdiVersion": "9.0", "kind": "a/b"}"#, "version 9.0");
    check(
        r#"{"cdiVersion": "0.5.0", "kind": "a/b", "new": 1}"#,
        "unknown field `new`",
    );
    let device = |edits: &str| {
        format!(
            r#"{{"cdiVersion": "0.5.0", "kind": "a/b", "devices": [{{"name": "c", "containerEdits": {edits}}}]}}"#
        )
    };
    check(&device(r#"{"env": ["NAME"]}"#), "`NAME` is no variable");
    check(&device(r#"{"deviceNodes": [{"path": "dev/x"}]}"#), "not absolute");
}
