//! A key that is typed or pasted at a terminal, which does not show it.

use std::io::{self, BufRead, Read};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Asks on standard error and reads one line of standard input, which is a terminal.
///
/// # Errors
/// The system's, if the terminal cannot be used; `Interrupted` if whoever sits there gives up (Ctrl-C).
pub(super) fn ask() -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let before = tcgetattr(io::stdin())?;
    let _silence = Silence::begin(before)?;
    eprint!("Enrollment key (not shown): ");
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
            eprintln!();
            return Err(io::Error::new(io::ErrorKind::Interrupted, "given up"));
        }
        if is_end {
            break;
        }
    }
    eprintln!();
    text.push_str(std::str::from_utf8(&line).map_err(|_| io::ErrorKind::InvalidData)?);
    Ok(text)
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
            eprintln!("agent: the terminal stays silent (`stty echo` helps): {error}");
        }
    }
}

/// Ctrl-C.
const INTERRUPT: u8 = 3;

/// Bytes.
const MAX_LINE: u64 = 64 << 10;
