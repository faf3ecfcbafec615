//! Receipts: what happened to memberships, one line each, each line sealed with the hash of the one before.
//!
//! ```text
//! {"sequence":7,…,"previous":"<hash of line 6>","hash":"<SHA-256 of this line without ,"hash":"…">"}
//! ```
//!
//! A line is on the disk before the change that it tells of is saved: a crash may repeat one, never lose one. What a crash left half
//! written at the end is cut off by whoever writes next; the chain goes on from the last whole line.

mod line;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
};

pub use self::line::Receipt;
use self::line::{Links, first_broken, seal};
use super::{Store, StoreError, make_folder, sync_folder};
use crate::model::{Event, Server};

/// What is wrong with receipts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The line is not the one that was written.
    #[error("line {line} of {file} was changed")]
    Changed {
        /// Which file.
        file: &'static str,
        /// Counted from 1.
        line: usize,
    },
    /// Lines before this one are gone, or others were put there.
    #[error("line {line} of {file} does not follow the one before")]
    Unlinked {
        /// Which file.
        file: &'static str,
        /// Counted from 1.
        line: usize,
    },
}

/// All receipts, the oldest first.
#[derive(Debug, Default)]
pub struct Receipts {
    /// The first that is not as it was written; `None` if the chain holds.
    pub broken: Option<ReceiptError>,
    /// The lines as they are in the files, without one that a crash left half written.
    pub lines: Vec<String>,
}

impl Store {
    /// Writes a receipt durably, at `at` in seconds since 1970.
    ///
    /// What was last written of the same server is not written again.
    pub fn record(&self, at: u64, event: &Event) -> Result<(), StoreError> {
        make_folder(&self.folder)?;
        let path = self.folder.join(RECEIPTS);
        let written = |source| StoreError::Write { path: path.clone(), source };
        let mut file = self.lock_receipts().map_err(written)?;
        let text = whole_lines(&mut file).map_err(written)?;
        let before = Receipt::new(at, event, Links::after(text.last().map(String::as_str)));
        if self.last_of(&event.subject.server, &text)?.is_some_and(|last| last.says_the_same(&before)) {
            return Ok(());
        }
        if text.iter().map(|line| line.len() + 1).sum::<usize>() > MOST_BYTES {
            fs::rename(&path, self.folder.join(EARLIER)).map_err(written)?;
            file = self.lock_receipts().map_err(written)?;
        }
        let line = seal(&before).map_err(|error| written(error.into()))?;
        file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(written)?;
        sync_folder(&self.folder)
    }

    /// Reads all receipts and looks whether the chain holds; changes nothing.
    pub fn receipts(&self) -> Result<Receipts, StoreError> {
        let mut receipts = Receipts::default();
        let mut place = None;
        for name in [EARLIER, RECEIPTS] {
            let path = self.folder.join(name);
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(StoreError::Read { path, source }),
            };
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if !text.is_empty() && !text.ends_with('\n') && lines.last().is_some_and(|line| !line::is_whole(line)) {
                lines.pop();
            }
            if receipts.broken.is_none() {
                receipts.broken = first_broken(name, &lines, &mut place);
            }
            receipts.lines.append(&mut lines);
        }
        Ok(receipts)
    }

    /// Opens the file for one writer at a time, until it is closed.
    fn lock_receipts(&self) -> io::Result<File> {
        loop {
            let file = self.open_receipts()?;
            file.lock()?;
            // Whoever had it may have begun a new one.
            match fs::metadata(self.folder.join(RECEIPTS)) {
                Ok(now) if now.ino() == file.metadata()?.ino() => return Ok(file),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn open_receipts(&self) -> io::Result<File> {
        let path = self.folder.join(RECEIPTS);
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let file = options.create(true).mode(0o600).open(&path)?;
        let (folder, made) = (fs::metadata(&self.folder)?, file.metadata()?);
        if made.uid() != folder.uid() {
            // Root writes for the user that the service runs as.
            fchown(&file, Some(folder.uid()), Some(folder.gid()))?;
        }
        Ok(file)
    }

    fn last_of(&self, server: &Server, lines: &[String]) -> Result<Option<Receipt>, StoreError> {
        let of_server = |lines: &[String]| {
            let mut receipts = lines.iter().rev().filter_map(|line| line.parse::<Receipt>().ok());
            receipts.find(|receipt| receipt.server == *server)
        };
        match of_server(lines) {
            Some(last) => Ok(Some(last)),
            None => Ok(of_server(&self.receipts()?.lines)),
        }
    }
}

/// Reads the whole lines of `file`, and cuts off what a crash left after them.
fn whole_lines(file: &mut File) -> io::Result<Vec<String>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let torn = String::from_utf8_lossy(&bytes[end..]).into_owned();
    if line::is_whole(&torn) {
        // Only its end is missing.
        file.write_all(b"\n")?;
        bytes.push(b'\n');
    } else if !torn.is_empty() {
        tracing::warn!(bytes = torn.len(), "a receipt that a crash left half written is cut off");
        file.set_len(u64::try_from(end).unwrap_or_default())?;
        bytes.truncate(end);
    }
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}

/// Tells whether a file of this name holds receipts.
pub(super) fn is_receipts(file: &str) -> bool {
    file == RECEIPTS || file == EARLIER
}

/// The file in the state folder.
const RECEIPTS: &str = "receipts.jsonl";

/// What it was called when it had grown too long.
const EARLIER: &str = "receipts.earlier.jsonl";

/// A file is about as long as this when the next one is begun; thousands of lines.
const MOST_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
