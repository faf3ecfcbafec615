//! A key that is typed or pasted at a terminal, which does not show it.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, Read, Write},
};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::ConfigError;

/// Asks at the terminal that standard input is, and reads one line of it.
///
/// # Errors
/// [`ConfigError::Read`] if the terminal cannot be used, or whoever sits there gives up (Ctrl-C).
pub(super) fn ask() -> Result<Zeroizing<String>, ConfigError> {
    read().map_err(|source| ConfigError::Read { path: "the terminal".into(), source })
}

fn read() -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let before = tcgetattr(io::stdin())?;
    let mut terminal = terminal()?;
    let _silence = Silence::begin(before)?;
    terminal.write_all(b"Enrollment key (not shown): ")?;
    let mut input = io::stdin().lock().take(MAX_LINE);
    let mut line = Zeroizing::new(Vec::new());
    loop {
        let buffered = input.fill_buf()?;
        let end = buffered.iter().position(|byte| matches!(*byte, b'\n' | INTERRUPT));
        let taken = end.map_or(buffered.len(), |end| end + 1);
        let (is_end, is_interrupt) = (taken == 0 || end.is_some(), end.is_some_and(|end| buffered[end] == INTERRUPT));
        line.extend_from_slice(&buffered[..taken]);
        input.consume(taken);
        if is_interrupt {
            terminal.write_all(b"\n")?;
            return Err(io::Error::new(io::ErrorKind::Interrupted, "given up"));
        }
        if is_end {
            break;
        }
    }
    terminal.write_all(b"\n")?;
    text.push_str(std::str::from_utf8(&line).map_err(|_| io::ErrorKind::InvalidData)?);
    Ok(text)
}

/// The terminal that standard input is, whatever the other streams are.
fn terminal() -> io::Result<File> {
    OpenOptions::new().write(true).open("/proc/self/fd/0")
}

/// A terminal that shows nothing, until dropped.
struct Silence(Termios);

impl Silence {
    /// Keys that would end or stop this process end the line instead: the terminal must not stay silent.
    fn begin(before: Termios) -> io::Result<Self> {
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        silent.local_flags.insert(LocalFlags::ICANON);
        silent.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0) {
            tracing::warn!(%error, "the terminal stays silent; `stty echo` helps");
        }
    }
}

/// Ctrl-C.
const INTERRUPT: u8 = 3;

/// Bytes.
const MAX_LINE: u64 = 64 << 10;
