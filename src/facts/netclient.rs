//! Whether Netmaker's own client is at work on this machine, and what it left in its folder.

use std::{fs, io, path::Path};

use zeroize::Zeroizing;

/// Reads the two files of `folder` that tell who the host is: `netclient.json` and `servers.json`.
///
/// # Errors
/// The system's answer for the first that cannot be read.
pub fn netclient_files(folder: &Path) -> io::Result<[Zeroizing<String>; 2]> {
    let read = |name| fs::read_to_string(folder.join(name)).map(Zeroizing::new);
    Ok([read("netclient.json")?, read("servers.json")?])
}

/// Returns the process number of a netclient in this network namespace; `None` if there is none.
pub fn running_netclient() -> Option<u32> {
    let here = fs::read_link("/proc/self/ns/net").ok();
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|number| {
        let name = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
        // Where another namespace cannot be seen, it counts as this one.
        let there = fs::read_link(format!("/proc/{number}/ns/net")).ok();
        name.trim_end() == "netclient" && (there.is_none() || there == here)
    })
}
