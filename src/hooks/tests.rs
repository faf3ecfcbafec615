use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::*;

#[test]
fn only_safe_programs_are_run_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mode) in [("20-b", 0o755), ("10-a", 0o700), ("30-plain", 0o644), ("40-loose", 0o775)] {
        put(folder.path(), name, mode, "#!/bin/sh\n");
    }
    std::os::unix::fs::symlink("/bin/true", folder.path().join("50-link")).unwrap();
    fs::create_dir(folder.path().join("60-folder")).unwrap();

    let names: Vec<_> = program::list(folder.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();

    assert_eq!(names, ["10-a", "20-b"]);
    assert_eq!(program::list(folder.path()), [""; 0].map(PathBuf::from));
}

#[tokio::test]
async fn a_hook_that_takes_too_long_ends_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let text = format!("#!/bin/sh\nsleep 600 &\necho $$ $! > {}.new\nmv {0}.new {0}\nwait\n", told.display());
    let hook = put(folder.path(), "slow", 0o755, &text);

    program::run(&hook, "up", "{}", Duration::from_secs(2), watch::channel(false).1).await;

    for pid in fs::read_to_string(&told).unwrap().split_whitespace() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        assert!(status.is_empty() || status.contains("State:\tZ"), "{pid} goes on: {status}");
    }
}

#[tokio::test]
async fn a_hook_has_no_environment_and_need_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let hook = put(folder.path(), "env", 0o755, &format!("#!/bin/sh\n{{ echo \"$1\"; env; }} > {}\n", told.display()));

    program::run(&hook, "joined", &"x".repeat(1 << 20), TIME_LIMIT, watch::channel(false).1).await;

    let said = fs::read_to_string(&told).unwrap();
    let variables: Vec<_> =
        said.lines().skip(1).filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert_eq!(said.lines().next(), Some("joined"));
    // The shell sets PWD and _ by itself.
    assert!(variables.iter().all(|name| ["PATH", "PWD", "_", "SHLVL", "OLDPWD"].contains(name)), "{said}");
}

fn put(folder: &Path, name: &str, mode: u32, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}
