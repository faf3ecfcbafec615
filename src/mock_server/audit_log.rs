//! The audit trail on disk: one row per entry; triggers refuse to change or remove any.

use rusqlite::{Connection, Transaction, named_params, params};
use time::OffsetDateTime;

use super::{
    audit::{Action, AuditEntry, AuditFilter, AuditPage},
    clock::go_time,
    store::StoreError,
};

/// Adds an entry; its number and time are set here.
pub(super) fn append(transaction: &Transaction<'_>, entry: &AuditEntry, now: OffsetDateTime) -> Result<(), StoreError> {
    let entry = AuditEntry { at: go_time(now), ..entry.clone() };
    let body = serde_json::to_string(&entry).map_err(|source| StoreError::Row {
        table: TABLE,
        id: entry.key_name.clone(),
        source,
    })?;
    let AuditEntry { action, key, host, .. } = &entry;
    let sql = "INSERT INTO audit (at, action, key, host, body) VALUES (?1, ?2, ?3, ?4, ?5)";
    let (key, host) = (key.map(|id| id.to_string()), host.map(|id| id.to_string()));
    transaction.prepare_cached(sql)?.execute(params![now.unix_timestamp(), action.name(), key, host, body])?;
    Ok(())
}

/// Lists entries, oldest first.
pub(super) fn list(connection: &Connection, filter: &AuditFilter) -> Result<AuditPage, StoreError> {
    let AuditFilter { key, host, action, since, until, limit, cursor } = filter;
    let limit = limit.unwrap_or(USUAL_LIMIT).clamp(1, GREATEST_LIMIT);
    let mut statement = connection.prepare_cached(
        "SELECT number, body FROM audit WHERE number > :cursor AND (:key IS NULL OR key = :key) \
         AND (:host IS NULL OR host = :host) AND (:action IS NULL OR action = :action) \
         AND (:since IS NULL OR at >= :since) AND (:until IS NULL OR at < :until) ORDER BY number LIMIT :limit",
    )?;
    let mut rows = statement.query(named_params! {
        ":cursor": cursor.unwrap_or_default(),
        ":key": key.map(|id| id.to_string()),
        ":host": host.map(|id| id.to_string()),
        ":action": action.map(Action::name),
        ":since": since,
        ":until": until,
        ":limit": limit + 1,
    })?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let (number, body): (i64, String) = (row.get(0)?, row.get(1)?);
        let entry: AuditEntry = serde_json::from_str(&body).map_err(|source| StoreError::Row {
            table: TABLE,
            id: number.to_string(),
            source,
        })?;
        entries.push(AuditEntry { number, ..entry });
    }
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries.last().filter(|_| more).map(|entry| entry.number);
    Ok(AuditPage { entries, next })
}

const TABLE: &str = "audit";

const USUAL_LIMIT: u32 = 100;

pub(super) const GREATEST_LIMIT: u32 = 1000;
