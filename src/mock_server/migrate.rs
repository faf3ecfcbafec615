//! The schema of the store, as steps from one version to the next; a new file takes all of them.

use rusqlite::{Connection, Transaction, params};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{secrets::hash_value, store::StoreError};

/// Brings the store to [`VERSION`], or leaves it as it is.
///
/// # Errors
/// [`StoreError::Version`] if a newer program wrote it.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let steps = usize::try_from(version).ok().and_then(|done| STEPS.get(done..));
    let Some(steps) = steps else { return Err(StoreError::Version(version)) };
    // Even without steps: this takes the lock.
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for step in steps {
        step(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

type Step = fn(&Transaction<'_>) -> Result<(), StoreError>;

/// The step at index n leads from version n to n + 1.
const STEPS: [Step; 5] = [rows_by_id, keys_by_id_and_audit, users, traffic_and_approval, name_servers];

/// Version of the schema, SQLite's `user_version`.
#[expect(clippy::cast_possible_wrap, clippy::as_conversions, reason = "there are few steps")]
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// One table per kind of row.
fn rows_by_id(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    for table in ["network", "enrollment_key", "host", "node", "redemption", "join_later", "setting"] {
        let sql = format!("CREATE TABLE {table} (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT");
        transaction.execute_batch(&sql)?;
    }
    Ok(())
}

/// Keys had been named by their values; they get ids of their own, and the trail of what happens to them.
///
/// The values themselves stay in the rows; the server takes them out when it starts, unless it is to list them.
fn keys_by_id_and_audit(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let rows = |table: &str| -> Result<Vec<(String, String)>, StoreError> {
        let mut statement = transaction.prepare(&format!("SELECT id, body FROM {table}"))?;
        let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let (keys, redemptions) = (rows("enrollment_key")?, rows("redemption")?);
    transaction.execute_batch("DELETE FROM enrollment_key; DELETE FROM redemption")?;
    for (value, body) in keys {
        let id = Uuid::new_v4();
        // The row is not named: its id was the secret.
        let row = |source| StoreError::Row { table: "enrollment_key", id: "…".to_owned(), source };
        let document: Value = serde_json::from_str(&body).map_err(row)?;
        let key = json!({
            "id": id, "hash": hash_value(&value), "previous": null, "note": "", "is_disabled": false,
            "document": document,
        });
        let sql = "INSERT INTO enrollment_key (id, body) VALUES (?1, ?2)";
        transaction.execute(sql, params![id.to_string(), key.to_string()])?;
        for (redemption, body) in &redemptions {
            let Some((_, host)) = redemption.split_once(' ').filter(|(redeemed, _)| *redeemed == value) else {
                continue;
            };
            let sql = "INSERT INTO redemption (id, body) VALUES (?1, ?2)";
            transaction.execute(sql, params![format!("{id} {host}"), body])?;
        }
    }
    Ok(transaction.execute_batch(
        "CREATE TABLE audit (number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, action TEXT NOT NULL, \
         key TEXT, host TEXT, body TEXT NOT NULL) STRICT; \
         CREATE INDEX audit_key ON audit (key); CREATE INDEX audit_host ON audit (host); \
         CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail only grows'); END; \
         CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail only grows'); END;",
    )?)
}

/// Administrators can log in.
fn users(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    Ok(transaction.execute_batch("CREATE TABLE user (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT")?)
}

/// Ranges behind nodes, policies, tokens of programs, hosts that wait to be approved, nodes a host has not heard of.
fn traffic_and_approval(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    for table in ["egress", "acl", "access_token", "pending_host", "join_queue"] {
        let sql = format!("CREATE TABLE {table} (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT");
        transaction.execute_batch(&sql)?;
    }
    Ok(())
}

/// Networks say whom to ask for names.
fn name_servers(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    Ok(transaction.execute_batch("CREATE TABLE name_server (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT")?)
}
