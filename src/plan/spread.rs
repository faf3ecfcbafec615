//! When a host makes its first contact, so that a fleet that starts together does not arrive together.

use std::time::Duration;

use ring::digest::{SHA256, digest};

use crate::model::Server;

/// Returns a time below `within` that is the same for this machine and server whenever it starts, and even over a fleet.
pub fn spread(machine_id: &str, server: &Server, within: Duration) -> Duration {
    let hash = digest(&SHA256, format!("{machine_id}\n{server}").as_bytes());
    let share = hash.as_ref().first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    within * u32::from(share) / (u32::from(u16::MAX) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_arrives_evenly_and_each_machine_at_its_own_time() {
        let server: Server = "api.example.net".parse().unwrap();
        let within = Duration::from_secs(600);
        let mut minutes = [0; 10];
        for machine in 0..10_000 {
            let id = format!("machine-{machine}");
            let wait = spread(&id, &server, within);
            assert_eq!(wait, spread(&id, &server, within));
            minutes[usize::try_from(wait.as_secs() / 60).unwrap()] += 1;
        }

        assert!(minutes.iter().all(|count| (850..1150).contains(count)), "{minutes:?}");
        assert_eq!(spread("machine-1", &server, Duration::ZERO), Duration::ZERO);
    }
}
