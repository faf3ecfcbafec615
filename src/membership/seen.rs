//! What one membership in work looks like.

use super::{MembershipError, Work};
use crate::{daemon::clock, model::Status, plan};

impl Work {
    /// Summarizes the membership and what the interface shows now.
    pub async fn status(&mut self) -> Status {
        if let Err(error) = self.tunnel.observe().await {
            self.note_failure(&error);
        }
        self.recent_status()
    }

    /// Summarizes the membership and what the interface showed when it was last looked at.
    pub fn recent_status(&self) -> Status {
        let Self { error, membership, tunnel, .. } = self;
        let (last, backend) = (tunnel.last(), Some(tunnel.backend()));
        let status = plan::summarize(membership, last, backend, tunnel.withheld(), error.clone());
        Status { dns: self.dns_status(), firewall: tunnel.firewall(), ..status }
    }

    pub(super) fn note_failure(&mut self, error: &MembershipError) {
        self.error = Some(error.report(clock::unix_seconds()));
    }
}
