//! Further users, as the community edition has them: a super-admin makes and deletes administrators.

use axum::{body::Bytes, extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    answers::{self, Admin, Path, body, wrapped},
    audit::Actor,
    calls::Call,
    clock::go_time,
    refusal::Refusal,
    server::Server,
    users::{PasswordHash, Role, User},
    world::World,
};
use crate::control::wire::{GoTime, Secret};

/// The calls about users beside the first.
pub(super) fn calls() -> Vec<Call> {
    let one = "/api/users/{user}";
    vec![
        Call::get("/api/users", list, "List the users"),
        Call::get(one, show, "Show the user who asks"),
        Call::post(one, create, "Make a user").takes::<Account>(),
        Call::put(one, edit, "Change a user's password").takes::<Account>(),
        Call::delete(one, delete, "Delete a user"),
        Call::get("/api/v1/users/roles", roles, "List what users may be"),
    ]
}

/// What is said about a user; every further one becomes an administrator, whatever role is asked for.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Account {
    username: String,
    password: Secret,
    platform_role_id: String,
}

async fn list(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    Ok(answers::json(
        &server.read(|world, _| world.users.values().map(|user| world.shown_user(user)).collect::<Vec<_>>())?,
    ))
}

async fn show(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let own = matches!(&actor, Actor::User(user) if *user == name);
    let user = server.read(|world, _| world.users.get(&name).filter(|_| own).map(|user| world.shown_user(user)))?;
    Ok(answers::json(&user.ok_or_else(Refusal::forbidden)?))
}

async fn create(State(server): State<Server>, Admin(actor): Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let Account { username, password, platform_role_id: _ } = body(&bytes)?;
    let hash = PasswordHash::new(&password);
    let user = server.write(|world, now| {
        let caller = world.caller(&actor).ok_or_else(|| Refusal::bad_request("record not found"))?;
        if caller.role != Role::SuperAdmin {
            return Err(Refusal { status: 403, message: "only superadmin can create admin users".to_owned() });
        }
        check(&username, &password)?;
        if world.users.contains(&username) {
            return Err(Refusal::bad_request("user exists"));
        }
        Ok(world.create_user(&username, hash, Role::Admin, now))
    })?;
    tracing::info!(user = %user.name, "user created");
    Ok(answers::json(&shown(&user, 0)))
}

async fn edit(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let Account { username, password, platform_role_id } = body(&bytes)?;
    let hash = PasswordHash::new(&password);
    let user = server.write(|world, _| {
        let caller = world.caller(&actor).map(|caller| (caller.name.clone(), caller.role));
        let user = world.users.get_mut(&name).ok_or_else(|| Refusal::internal("record not found"))?;
        let forbidden = |message: &str| Refusal { status: 403, message: message.to_owned() };
        if username != name {
            return Err(Refusal::bad_request("user in param and request body not matching"));
        }
        match caller {
            Some((caller, _)) if caller == name && platform_role_id != user.role.name() => {
                return Err(forbidden("user not allowed to self assign role"));
            }
            Some((caller, Role::Admin)) if caller != name => {
                return Err(forbidden("an admin user does not have permissions to update another admin user"));
            }
            Some(_) | None => {}
        }
        if !password.is_empty() {
            check(&name, &password)?;
            user.password = hash;
        }
        let user = user.clone();
        Ok(world.shown_user(&user))
    })?;
    Ok(answers::json(&user))
}

async fn delete(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    server.write_as(&actor, |world, _| {
        let caller = world.caller(&actor).map(|caller| caller.role);
        let user = world.users.get(&name).map(|user| user.role);
        let (Some(caller), Some(user)) = (caller, user) else { return Err(Refusal::internal("record not found")) };
        match (caller, user) {
            (_, Role::SuperAdmin) => Err(Refusal::internal("superadmin cannot be deleted")),
            (Role::Admin, Role::Admin) => {
                Err(Refusal::internal("admin cannot delete another admin user, including oneself"))
            }
            (Role::SuperAdmin, Role::Admin) => {
                world.users.remove(&name);
                world.forget_access_tokens(&name);
                Ok(())
            }
        }
    })?;
    Ok(answers::json(&format!("{name} deleted.")))
}

async fn roles(_: Admin) -> Response {
    let role = |role: Role| {
        json!({
            "id": role.name(), "name": "", "default": true, "meta_data": "", "deny_dashboard_access": false,
            "full_access": true, "network_id": "", "network_level_access": null, "global_level_access": null,
        })
    };
    wrapped("successfully fetched user roles permission templates", Some([Role::SuperAdmin, Role::Admin].map(role)))
}

impl World {
    /// The user who asks; the master key is none.
    fn caller(&self, actor: &Actor) -> Option<&User> {
        match actor {
            Actor::Device | Actor::Library | Actor::MasterKey => None,
            Actor::User(name) => self.users.get(name),
        }
    }

    fn shown_user(&self, user: &User) -> Value {
        shown(user, self.access_tokens_of(&user.name).len())
    }

    /// Makes a user, over any of this name.
    pub(super) fn create_user(&mut self, name: &str, password: PasswordHash, role: Role, now: OffsetDateTime) -> User {
        let user = User { name: name.to_owned(), password, created_at: go_time(now), role };
        self.users.insert(name.to_owned(), user.clone());
        user
    }
}

/// Shows a user as it is listed, with the number of its access tokens.
pub(super) fn shown(user: &User, tokens: usize) -> Value {
    let User { name, password: _, created_at, role } = user;
    json!({
        "username": name, "external_identity_provider_id": "", "is_mfa_enabled": false, "display_name": "",
        "account_disabled": false, "isadmin": true, "issuperadmin": *role == Role::SuperAdmin,
        "auth_type": "basic_auth", "remote_gw_ids": null, "user_group_ids": {}, "platform_role_id": role.name(),
        "network_roles": null, "last_login_time": GoTime::default(), "num_access_tokens": tokens, "created_by": "",
        "created_at": created_at, "updated_at": created_at,
    })
}

/// Refuses a name or a password; a name may be an address for mail.
fn check(name: &str, password: &Secret) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let is_mail = name.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    let mut reasons = Vec::new();
    if name.is_empty() {
        reasons.push("username cannot be empty");
    } else if name.len() <= 3 {
        reasons.push("username must have more than 3 characters");
    }
    if !is_mail && !name.chars().all(allowed) {
        reasons.push("invalid character(s) in username");
    }
    if password.expose().len() < 5 {
        reasons.push("password must have a minimum of 5 characters");
    }
    if reasons.is_empty() { Ok(()) } else { Err(Refusal::bad_request(reasons.join("\n"))) }
}
