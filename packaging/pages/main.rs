//! Writes man pages and completions into a folder: `cargo run --example pages -- FOLDER DATE`.

mod manual;

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [folder, date] = arguments.as_slice() else {
        return Err(io::Error::other("usage: pages FOLDER DATE"));
    };
    for (name, content) in manual::files(date)? {
        let path = Path::new(folder).join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(path, content)?;
    }
    Ok(())
}
