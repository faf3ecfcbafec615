//! Notices when somebody drops a key.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tokio::{io::unix::AsyncFd, time::sleep};

/// A file that may come at any time.
pub(super) struct Drops {
    /// Whether something came that was not told yet.
    came: bool,
    path: PathBuf,
    /// The watch on its folder; `None` while there is no such folder.
    watch: Option<AsyncFd<Inotify>>,
}

impl Drops {
    pub(super) fn watch(path: PathBuf) -> Self {
        let watch = watch(&path);
        Self { came: false, path, watch }
    }

    /// Waits until the file was written, moved there or made readable; loses nothing when it is given up.
    pub(super) async fn next(&mut self) {
        while !self.came {
            let Some(watch) = &self.watch else {
                sleep(NO_FOLDER).await;
                self.watch = watch(&self.path);
                self.came = self.watch.is_some() && self.path.exists();
                continue;
            };
            let events = match watch.readable().await {
                Ok(mut ready) => match ready.get_inner().read_events() {
                    Err(Errno::EAGAIN) => {
                        ready.clear_ready();
                        continue;
                    }
                    events => events,
                },
                Err(_) => Err(Errno::EIO),
            };
            let Ok(events) = events else {
                self.watch = None;
                continue;
            };
            self.came = events.iter().any(|event| event.name.as_deref() == self.path.file_name());
            if events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_IGNORED)) {
                // The folder is gone.
                self.watch = None;
            }
        }
        sleep(SETTLED).await;
        self.came = false;
    }
}

fn watch(path: PathBuf) -> Self {
        let watch = watch(&path);
        Self { came: false, path, watch }
    }

    /// Waits until the file was written, moved there or made readable; loses nothing when it is given up.
    pub(super) async fn next(&mut self) {
        while !self.came {
            let Some(watch) = &self.watch else {
                sleep(NO_FOLDER).await;
                self.watch = watch(&self.path);
                self.came = self.watch.is_some() && self.path.exists();
                continue;
            };
            let events = match watch.readable().await {
                Ok(mut ready) => match ready.get_inner().read_events() {
                    Err(Errno::EAGAIN) => {
                        ready.clear_ready();
                        continue;
                    }
                    events => events,
                },
                Err(_) => Err(Errno::EIO),
            };
            let Ok(events) = events else {
                self.watch = None;
                continue;
            };
            self.came = events.iter().any(|event| event.name.as_deref() == self.path.file_name());
            if events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_IGNORED)) {
                // The folder is gone.
                self.watch = None;
            }
        }
        sleep(SETTLED).await;
        self.came = false;
    }
}

struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn watch(path: &Path) -> Option<AsyncFd<Inotify>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let news = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(path.parent()?, news).ok()?;
    AsyncFd::register(inotify).ok()
}

/// How often a folder is looked for that does not exist.
const NO_FOLDER: Duration = Duration::from_secs(30);

/// How long writing a file and setting its mode may take together.
const SETTLED: Duration = Duration::from_millis(300);
