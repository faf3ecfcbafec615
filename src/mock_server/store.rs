//! The world on disk: SQLite, one table per kind of row, one transaction per rule that succeeded.

use std::{collections::BTreeMap, fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::PathBuf, time::Duration};

use rusqlite::{Connection, Transaction, params};
use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    audit::{Actor, AuditFilter, AuditPage},
    audit_log, migrate,
    table::{Row, Table},
    world::{Manners, World},
};

/// Where the server keeps its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// In a file that survives the server; only one server may use it at a time.
    File(PathBuf),
    /// In memory, for tests.
    #[default]
    Memory,
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made or written.
    #[error("cannot write {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// SQLite refused.
    #[error("cannot use the store")]
    Sqlite(#[from] rusqlite::Error),
    /// A row is not what was written.
    #[error("row {id} of table {table} cannot be read")]
    Row {
        /// Name of the table.
        table: &'static str,
        /// Id of the row.
        id: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The file was written by a newer program.
    #[error("the store has version {0}, this program knows {VERSION}", VERSION = migrate::VERSION)]
    Version(i64),
}

/// An open store.
pub(super) struct Database(Connection);

impl Database {
    pub(super) fn open(store: &Store) -> Result<Self, StoreError> {
        let mut connection = match store {
            Store::File(path) => {
                // Keys and sessions are in it, so it is made for its owner alone; SQLite gives its other files its mode.
                let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
                made.map_err(|source| StoreError::File { path: path.clone(), source })?;
                Connection::open(path)?
            }
            Store::Memory => Connection::open_in_memory()?,
        };
        connection.busy_timeout(Duration::from_millis(500))?;
        // The world in memory is the truth while the server runs, so nobody else may write.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Secrets that were removed are gone from the file too.
        connection.pragma_update(None, "secure_delete", "ON")?;
        migrate::migrate(&mut connection)?;
        Ok(Self(connection))
    }

    /// Leaves nothing that was overwritten in the write-ahead log.
    pub(super) fn scrub(&self) -> Result<(), StoreError> {
        Ok(self.0.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?)
    }

    pub(super) fn load(&self) -> Result<World, StoreError> {
        Ok(World {
            networks: self.rows("network", |id| Some(id.to_owned()))?,
            keys: self.rows("enrollment_key", uuid)?,
            hosts: self.rows("host", uuid)?,
            nodes: self.rows("node", uuid)?,
            redemptions: self.rows("redemption", |id| id.rsplit_once(' ').and_then(redemption_id))?,
            joins: self.rows("join_later", uuid)?,
            users: self.rows("user", |id| Some(id.to_owned()))?,
            settings: self.rows("setting", |id| Some(id.to_owned()))?,
            pending: self.rows("pending_host", uuid)?,
            queues: self.rows("join_queue", uuid)?,
            egresses: self.rows("egress", |id| Some(id.to_owned()))?,
            acls: self.rows("acl", |id| Some(id.to_owned()))?,
            name_servers: self.rows("name_server", |id| Some(id.to_owned()))?,
            access_tokens: self.rows("access_token", uuid)?,
            lowest: Table::new(BTreeMap::new()),
            default_values: Table::new(BTreeMap::new()),
            events: Vec::new(),
            audit: Vec::new(),
            mark: (0, 0),
            actor: Actor::default(),
            manners: Manners::default(),
        })
    }

    /// Writes what changed, all of it or nothing.
    pub(super) fn save(&mut self, world: &World, now: OffsetDateTime) -> Result<(), StoreError> {
        let World {
            networks,
            keys,
            hosts,
            nodes,
            redemptions,
            joins,
            pending,
            queues,
            egresses,
            acls,
            name_servers,
            users,
            access_tokens,
            settings,
            audit,
            lowest: _,
            default_values: _,
            events: _,
            mark: _,
            actor: _,
            manners: _,
        } = world;
        let transaction = self.0.transaction()?;
        write(&transaction, "network", networks, Clone::clone)?;
        write(&transaction, "enrollment_key", keys, Uuid::to_string)?;
        write(&transaction, "host", hosts, Uuid::to_string)?;
        write(&transaction, "node", nodes, Uuid::to_string)?;
        write(&transaction, "redemption", redemptions, |(key, host)| format!("{key} {host}"))?;
        write(&transaction, "join_later", joins, Uuid::to_string)?;
        write(&transaction, "pending_host", pending, Uuid::to_string)?;
        write(&transaction, "join_queue", queues, Uuid::to_string)?;
        write(&transaction, "egress", egresses, Clone::clone)?;
        write(&transaction, "acl", acls, Clone::clone)?;
        write(&transaction, "name_server", name_servers, Clone::clone)?;
        write(&transaction, "user", users, Clone::clone)?;
        write(&transaction, "access_token", access_tokens, Uuid::to_string)?;
        write(&transaction, "setting", settings, Clone::clone)?;
        for entry in audit {
            audit_log::append(&transaction, entry, now)?;
        }
        Ok(transaction.commit()?)
    }

    /// Lists what the audit trail has for a filter.
    pub(super) fn audit(&self, filter: &AuditFilter) -> Result<AuditPage, StoreError> {
        audit_log::list(&self.0, filter)
    }

    fn rows<K: Ord + Clone, V: DeserializeOwned + Row<K>>(
        &self,
        table: &'static str,
        key: impl Fn(&str) -> Option<K>,
    ) -> Result<Table<K, V>, StoreError> {
        let mut statement = self.0.prepare(&format!("SELECT id, body FROM {table}"))?;
        let mut rows = statement.query(())?;
        let mut found = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (id, body): (String, String) = (row.get(0)?, row.get(1)?);
            let value =
                serde_json::from_str(&body).map_err(|source| StoreError::Row { table, id: id.clone(), source })?;
            // An id that is none of ours cannot be referred to; it is left alone.
            if let Some(id) = key(&id) {
                found.insert(id, value);
            }
        }
        Ok(Table::new(found))
    }
}

fn write<K: Ord + Clone, V: Serialize + Row<K>>(
    transaction: &Transaction<'_>,
    table: &'static str,
    rows: &Table<K, V>,
    id: impl Fn(&K) -> String,
) -> Result<(), StoreError> {
    for (key, value) in rows.changes() {
        let id = id(key);
        let Some(value) = value else {
            transaction.prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1"))?.execute(params![id])?;
            continue;
        };
        let body = serde_json::to_string(value).map_err(|source| StoreError::Row { table, id: id.clone(), source })?;
        let sql = format!("INSERT INTO {table} (id, body) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET body = ?2");
        transaction.prepare_cached(&sql)?.execute(params![id, body])?;
    }
    Ok(())
}

fn uuid(id: &str) -> Option<Uuid> {
    Uuid::parse_str(id).ok()
}

fn redemption_id((key, host): (&str, &str)) -> Option<(Uuid, Uuid)> {
    Some((uuid(key)?, uuid(host)?))
}
