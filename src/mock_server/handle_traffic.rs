//! What administrators decide about traffic, as tests and the program do it.

use super::{audit::Actor, handle::Handle, refusal::Refusal};
use crate::control::wire::{Acl, Egress, EgressRequest};

impl Handle {
    /// Puts a range, or a domain, behind nodes of a network.
    ///
    /// # Errors
    /// If range, domain, network or nodes cannot be.
    pub fn create_egress(&self, asked: EgressRequest) -> Result<Egress, Refusal> {
        self.server.write(|world, now| world.create_egress(asked, &Actor::Library.user_name(), now))
    }

    /// Changes all of an egress but its network.
    ///
    /// # Errors
    /// If there is none of that id, or it cannot be so.
    pub fn edit_egress(&self, asked: EgressRequest) -> Result<Egress, Refusal> {
        self.server.write(|world, now| world.edit_egress(asked, now))
    }

    /// Forgets an egress; policies about nothing else go with it.
    ///
    /// # Errors
    /// If there is none of that id.
    pub fn delete_egress(&self, id: &str) -> Result<(), Refusal> {
        self.server.write(|world, _| world.delete_egress(id))
    }

    /// The policies of a network, by name.
    ///
    /// # Errors
    /// If the store fails.
    pub fn acls(&self, network: &str) -> Result<Vec<Acl>, Refusal> {
        self.server.read(|world, _| world.listed_acls(network, |_| true))
    }

    /// Makes a policy.
    ///
    /// # Errors
    /// If its network does not exist, or a side of it is nothing.
    pub fn create_acl(&self, asked: Acl) -> Result<Acl, Refusal> {
        self.server.write(|world, now| world.create_acl(asked, &Actor::Library.user_name(), now))
    }

    /// Changes a policy; one that came with its network can only be switched on and off.
    ///
    /// # Errors
    /// If there is none of that id in that network, or it cannot be so.
    pub fn edit_acl(&self, asked: Acl) -> Result<Acl, Refusal> {
        self.server.write(|world, _| world.edit_acl(asked, ""))
    }

    /// Deletes a policy.
    ///
    /// # Errors
    /// If there is none of that id, or it came with its network.
    pub fn delete_acl(&self, id: &str) -> Result<(), Refusal> {
        self.server.write(|world, _| world.delete_acl(id).map(drop))
    }
}
