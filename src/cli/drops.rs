//! Notices when somebody drops a key.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{sync::mpsc, time::sleep};

/// A file that may come at any time.
pub(super) struct Drops {
    /// Whether something came that was not told yet.
    came: bool,
    news: mpsc::UnboundedReceiver<()>,
}

impl Drops {
    /// Watches `path`, in a thread of its own that ends with the process.
    ///
    /// # Errors
    /// If there can be no such thread.
    pub(super) fn watch(path: PathBuf) -> io::Result<Self> {
        let (sender, news) = mpsc::unbounded_channel();
        thread::Builder::new().name("drops".to_owned()).spawn(move || while tell(&path, &sender).is_some() {})?;
        Ok(Self { came: false, news })
    }

    /// Waits until the file was written, moved there or got another mode; loses nothing when it is given up.
    pub(super) async fn next(&mut self) {
        if !self.came {
            match self.news.recv().await {
                Some(()) => self.came = true,
                None => std::future::pending().await,
            }
        }
        sleep(SETTLED).await;
        while self.news.try_recv().is_ok() {}
        self.came = false;
    }
}

/// Tells of what comes until the folder goes, or waits a while for a folder; `None` if nobody listens any more.
#[expect(clippy::disallowed_methods, reason = "a thread of its own has nothing to wait for where there is no folder")]
fn tell(path: &Path, sender: &mpsc::UnboundedSender<()>) -> Option<()> {
    let Some(inotify) = begin(path) else {
        thread::sleep(NO_FOLDER);
        return (!sender.is_closed()).then_some(());
    };
    if path.exists() {
        // It may have come while nobody watched.
        sender.send(()).ok()?;
    }
    loop {
        let Ok(events) = inotify.read_events() else {
            thread::sleep(NO_FOLDER);
            return Some(());
        };
        if events.iter().any(|event| event.name.as_deref() == path.file_name()) {
            sender.send(()).ok()?;
        }
        if events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_IGNORED)) {
            return Some(());
        }
    }
}

fn begin(path: &Path) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).ok()?;
    let news = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(path.parent()?, news).ok()?;
    Some(inotify)
}

/// How often a folder is looked for that does not exist.
const NO_FOLDER: Duration = Duration::from_secs(5);

/// How long writing a file and setting its mode may take together.
const SETTLED: Duration = Duration::from_millis(300);
