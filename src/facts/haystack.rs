//! Where people and programs leave secrets on a machine: read, never changed.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use zeroize::Zeroizing;

use crate::{
    model::PublicKey,
    plan::{FoundSecret, SecretScanner},
};

/// Where to look.
#[derive(Clone, Debug)]
pub struct Haystack {
    /// Files, and folders of which every file is read, but not the folders in it.
    pub files: Vec<PathBuf>,
    /// Programs that print the journal; the first that there is.
    pub journalctl: Vec<PathBuf>,
    /// The list of users, for their homes.
    pub passwd: PathBuf,
    /// The kernel's list of processes.
    pub processes: PathBuf,
}

/// Where a secret was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hideout {
    /// On the command line of a process.
    Argument {
        /// Its number.
        pid: u32,
        /// Its name.
        program: String,
    },
    /// In the environment of a process.
    Environment {
        /// Its number.
        pid: u32,
        /// Its name.
        program: String,
    },
    /// In a file.
    File(PathBuf),
    /// In the journal since the last boot.
    Journal,
    /// In a shell's history.
    ShellHistory(PathBuf),
}

/// What came of the search.
#[derive(Debug, Default)]
pub struct Searched {
    /// What was found, and where.
    pub found: BTreeSet<(Hideout, FoundSecret)>,
    /// Things that were read, whole or in part.
    pub read: usize,
    /// What could not be read.
    pub unread: Vec<PathBuf>,
    /// Processes of others, of which only the command line could be seen.
    pub unseen_processes: usize,
}

impl Haystack {
    /// The usual places of this machine, and `files` beside them.
    pub fn here(mut files: Vec<PathBuf>) -> Self {
        files.extend(USUAL_FILES.iter().map(PathBuf::from));
        Self {
            files,
            journalctl: ["/usr/bin/journalctl", "/bin/journalctl"].map(PathBuf::from).into(),
            passwd: "/etc/passwd".into(),
            processes: "/proc".into(),
        }
    }

    /// Looks for enrollment keys, session tokens and private halves of `own`.
    pub fn search(&self, own: &BTreeSet<PublicKey>) -> Searched {
        let mut search = Search { own, searched: Searched::default() };
        search.processes(&self.processes);
        for home in homes(&self.passwd) {
            for history in HISTORIES {
                let path = home.join(history);
                search.file(&path, &Hideout::ShellHistory(path.clone()));
            }
        }
        for path in &self.files {
            search.file_or_folder(path);
        }
        if let Some(program) = self.journalctl.iter().find(|path| path.is_file()) {
            search.journal(program);
        }
        search.searched
    }
}

struct Search<'a> {
    own: &'a BTreeSet<PublicKey>,
    searched: Searched,
}

impl Search<'_> {
    fn processes(&mut self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            self.searched.unread.push(folder.to_owned());
            return;
        };
        for entry in entries.filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let path = entry.path();
            let program = fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
            // One that has ended meanwhile has no secrets.
            if let Ok(file) = File::open(path.join("cmdline")) {
                let place = Hideout::Argument { pid, program: program.clone() };
                drop(self.stream(file, MOST_OF_PROCESS, &place));
            }
            match File::open(path.join("environ")) {
                Ok(file) => drop(self.stream(file, MOST_OF_PROCESS, &Hideout::Environment { pid, program })),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.searched.unseen_processes += 1,
                Err(_) => {}
            }
        }
    }

    fn file_or_folder(&mut self, path: &Path) {
        match fs::read_dir(path) {
            Ok(entries) => {
                for path in entries.filter_map(Result::ok).take(MOST_FILES).map(|entry| entry.path()) {
                    self.file(&path, &Hideout::File(path.clone()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                self.file(path, &Hideout::File(path.to_owned()));
            }
            Err(error) => self.note_unread(path, &error),
        }
    }

    fn file(&mut self, path: &Path, place: &Hideout) {
        match fs::metadata(path) {
            // A pipe would never end.
            Ok(found) if !found.is_file() => return,
            Ok(_) => {}
            Err(error) => return self.note_unread(path, &error),
        }
        let read = File::open(path).and_then(|file| self.stream(file, MOST_OF_FILE, place));
        if let Err(error) = read {
            self.note_unread(path, &error);
        }
    }

    fn note_unread(&mut self, path: &Path, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            self.searched.unread.push(path.to_owned());
        }
    }

    fn journal(&mut self, program: &Path) {
        let arguments = ["--boot", "--no-pager", "--quiet", "--output=cat", "--lines=200000"];
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else {
            self.searched.unread.push(program.to_owned());
            return;
        };
        let read = child.stdout.take().map(|output| self.stream(output, MOST_OF_FILE, &Hideout::Journal));
        // It may have more to say than is read.
        let ended = child.kill().and_then(|()| child.wait());
        if !matches!((read, ended), (Some(Ok(())), Ok(_))) {
            self.searched.unread.push(program.to_owned());
        }
    }

    fn stream(&mut self, source: impl Read, most: u64, place: &Hideout) -> io::Result<()> {
        let mut scanner = SecretScanner::new(self.own);
        let mut source = source.take(most);
        let mut piece = Zeroizing::new(vec![0; PIECE]);
        self.searched.read += 1;
        let ended = loop {
            match source.read(&mut piece) {
                Ok(0) => break Ok(()),
                Ok(length) => scanner.read(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let found = scanner.finish().into_iter();
        self.searched.found.extend(found.map(|found| (place.clone(), found)));
        ended
    }
}

/// Folders of users, as passwd(5) lists them.
fn homes(passwd: &Path) -> BTreeSet<PathBuf> {
    let text = fs::read_to_string(passwd).unwrap_or_default();
    let home = |line: &str| line.split(':').nth(5).filter(|home| home.len() > 1).map(PathBuf::from);
    text.lines().filter_map(home).collect()
}

/// In every home.
const HISTORIES: &[&str] = &[
    ".ash_history",
    ".bash_history",
    ".history",
    ".local/share/fish/fish_history",
    ".sh_history",
    ".zsh_history",
    ".zhistory",
];

/// What cloud-init was given, which it keeps, and the defaults of the service.
const USUAL_FILES: &[&str] = &[
    "/etc/default/enroll-agent",
    "/run/cloud-init",
    "/var/lib/cloud/instance",
    "/var/lib/cloud/instance/scripts",
    "/var/lib/cloud/seed/nocloud",
    "/var/lib/cloud/seed/nocloud-net",
    "/var/log/cloud-init-output.log",
    "/var/log/cloud-init.log",
];

/// Bytes.
const PIECE: usize = 64 << 10;
const MOST_OF_FILE: u64 = 64 << 20;
const MOST_OF_PROCESS: u64 = 2 << 20;

const MOST_FILES: usize = 1000;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use data_encoding::BASE64;

    use super::*;

    #[test]
    fn each_kind_of_place_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), text).unwrap();
        };
        write("proc/7/comm", "sleep\n");
        write("proc/7/cmdline", &format!("sleep\0{}\0", key("argument")));
        write("proc/7/environ", &format!("A=b\0ENROLL_AGENT_KEY={}\0", key("environment")));
        write("proc/self/cmdline", &key("no process"));
        write("passwd", &format!("one:x:0:0::{}:/bin/sh\nnobody:x:1:1::/:\n", at("home").display()));
        write("home/.bash_history", &format!("ls\nagent join {}\n", key("bash")));
        write("home/.local/share/fish/fish_history", &format!("- cmd: agent join {}\n", key("fish")));
        write("cloud/user-data.txt", &format!("#cloud-config\nruncmd:\n- agent join {}\n", key("cloud")));
        write("cloud/deeper/text", &key("not looked at"));
        write("defaults", &format!("ENROLL_AGENT_KEY={}\n", key("defaults")));
        write("journalctl", &format!("#!/bin/sh\necho before\necho 'joined with {}'\n", key("journal")));
        fs::set_permissions(at("journalctl"), fs::Permissions::from_mode(0o755)).unwrap();
        let haystack = Haystack {
            files: vec![at("cloud"), at("defaults"), at("nowhere")],
            journalctl: vec![at("missing"), at("journalctl")],
            passwd: at("passwd"),
            processes: at("proc"),
        };

        let Searched { found, unread, unseen_processes, .. } = haystack.search(&BTreeSet::new());

        let program = "sleep".to_owned();
        let expected = [
            (Hideout::Argument { pid: 7, program: program.clone() }, "argument", 1),
            (Hideout::Environment { pid: 7, program }, "environment", 1),
            (Hideout::File(at("cloud/user-data.txt")), "cloud", 3),
            (Hideout::File(at("defaults")), "defaults", 1),
            (Hideout::Journal, "journal", 2),
            (Hideout::ShellHistory(at("home/.bash_history")), "bash", 2),
            (Hideout::ShellHistory(at("home/.local/share/fish/fish_history")), "fish", 1),
        ];
        let found: Vec<_> = found.into_iter().map(|(place, found)| (place, found.fingerprint, found.line)).collect();
        let expected: Vec<_> =
            expected.into_iter().map(|(place, value, line)| (place, fingerprint(value), line)).collect();
        assert_eq!(found, expected);
        assert_eq!((unread, unseen_processes), (Vec::new(), 0));
    }

    #[test]
    fn a_key_across_two_pieces_of_a_large_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let text = format!("{}\n{}\n", "x ".repeat(PIECE / 2 - 20), key("large"));
        fs::write(&path, text).unwrap();
        let haystack = Haystack {
            files: vec![path.clone()],
            journalctl: Vec::new(),
            passwd: folder.path().join("none"),
            processes: folder.path().to_owned(),
        };

        let found = haystack.search(&BTreeSet::new()).found;

        assert_eq!(found.first().map(|(place, found)| (place, found.line)), Some((&Hideout::File(path), 2)));
    }

    fn key(value: &str) -> String {
        BASE64.encode(format!(r#"{{"server":"api.example.net","value":"{value}"}}"#).as_bytes())
    }

    fn fingerprint(value: &str) -> String {
        key(value).parse::<crate::model::Token>().unwrap().fingerprint()
    }
}
