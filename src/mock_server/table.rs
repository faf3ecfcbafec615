//! Rows in memory that remember what they were, so that a rule can fail half-way without a trace.

use std::collections::BTreeMap;

/// Rows by key, with the previous value of every row that changed since the last [`Table::keep`].
#[derive(Debug)]
pub(super) struct Table<K, V> {
    rows: BTreeMap<K, V>,
    before: BTreeMap<K, Option<V>>,
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    pub(super) fn new(rows: BTreeMap<K, V>) -> Self {
        Self { rows, before: BTreeMap::new() }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.rows.values()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let previous = self.rows.insert(key.clone(), value);
        self.before.entry(key).or_insert(previous);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let previous = self.rows.remove(key)?;
        self.before.entry(key.clone()).or_insert_with(|| Some(previous.clone()));
        Some(previous)
    }

    /// Gives one row to change; `None` if there is none.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let row = self.rows.get_mut(key)?;
        self.before.entry(key.clone()).or_insert_with(|| Some(row.clone()));
        Some(row)
    }

    /// A copy of all rows.
    pub(super) fn rows(&self) -> BTreeMap<K, V> {
        self.rows.clone()
    }

    /// Takes these rows instead.
    pub(super) fn replace(&mut self, rows: &BTreeMap<K, V>) {
        let gone: Vec<_> = self.rows.keys().filter(|key| !rows.contains_key(key)).cloned().collect();
        for key in gone {
            self.remove(&key);
        }
        for (key, value) in rows {
            self.insert(key.clone(), value.clone());
        }
    }

    /// The rows that changed, with what they are now; `None` for removed ones.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&K, Option<&V>)> {
        self.before.keys().map(|key| (key, self.rows.get(key)))
    }

    /// Forgets how the rows were.
    pub(super) fn keep(&mut self) {
        self.before.clear();
    }

    /// Puts every changed row back.
    pub(super) fn restore(&mut self) {
        for (key, value) in std::mem::take(&mut self.before) {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }
}
