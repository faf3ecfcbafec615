//! Without rights nothing is spent, saved or sent, and the message says what to do.

use std::{fs, os::unix::fs::PermissionsExt, os::unix::process::CommandExt, process::Command};

use nix::unistd::geteuid;

#[test]
fn without_rights_the_key_stays_unspent() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // Nobody may be able to enter the folder that the program was built in.
    let agent = folder.path().join("agent");
    fs::copy(env!("CARGO_BIN_EXE_agent"), &agent).unwrap();
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
    let key = data_encoding::BASE64.encode(br#"{"server":"127.0.0.1:9","value":"AAAA"}"#);
    for backend in ["kernel", "userspace"] {
        let mut command = Command::new(&agent);
        command.args(["join", &key, "--backend", backend]).env("HOME", folder.path()).env_remove("XDG_STATE_HOME");
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }

        let output = command.current_dir("/").output().unwrap();

        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{backend}: {said}");
        assert!(said.contains("not permitted to") && said.contains("run as root"), "{backend}: {said}");
        assert!(!said.contains("redeeming"), "{backend}: {said}");
    }
    let state = folder.path().join(".local/state/enroll-agent");
    assert!(state.join("127.0.0.1:9.lock").exists(), "state belongs in the XDG state folder");
    assert!(!state.join("127.0.0.1:9").exists(), "an identity was made for nothing");
}

/// A user without any rights, by convention.
const NOBODY: u32 = 65534;
