//! Rows in memory that remember what they were, so that a rule can fail half-way without a trace, and a batch of rules
//! as a whole.
//!
//! ```text
//!  rule ─► failed: restore         batch ─► stored: keep
//!      └─► done:   merge ─► batch       └─► not stored: restore_batch
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    vec::IntoIter,
};

/// What a row can be found by, beside its key.
pub(super) trait Row<K>: Clone {
    /// Rows at the same place are found together.
    type Place: Ord;

    /// Where a row is; mostly nowhere.
    fn places(&self, key: &K) -> Vec<Self::Place>;
}

/// Rows by key, with the previous value of every row that changed since the last [`Undo::keep`].
#[derive(Debug)]
pub(super) struct Table<K, V: Row<K>> {
    rows: BTreeMap<K, V>,
    /// Where rows were when the running rule began.
    index: BTreeMap<V::Place, BTreeSet<K>>,
    /// By the running rule.
    changed: BTreeMap<K, Option<V>>,
    /// By the rules before it in the same batch.
    batch: BTreeMap<K, Option<V>>,
}

/// Taking back what rules did.
pub(super) trait Undo {
    /// Makes what the running rule did part of the batch.
    fn merge(&mut self);

    /// Takes back what the running rule did.
    fn restore(&mut self);

    /// Forgets how things were before the batch.
    fn keep(&mut self);

    /// Takes back the whole batch.
    fn restore_batch(&mut self);
}

impl<K: Ord + Clone, V: Row<K>> Table<K, V> {
    pub(super) fn new(rows: BTreeMap<K, V>) -> Self {
        let mut table =
            Self { rows: BTreeMap::new(), index: BTreeMap::new(), changed: BTreeMap::new(), batch: BTreeMap::new() };
        for (key, row) in &rows {
            table.enter(key, row.places(key));
        }
        table.rows = rows;
        table
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

    /// The rows at a place.
    pub(super) fn find(&self, place: &V::Place) -> IntoIter<(&K, &V)> {
        let unchanged = self.index.get(place).into_iter().flatten().filter(|key| !self.changed.contains_key(key));
        let unchanged = unchanged.filter_map(|key| self.rows.get_key_value(key));
        let changed = self.changed.keys().filter_map(|key| self.rows.get_key_value(key));
        let changed = changed.filter(|(key, row)| row.places(key).contains(place));
        unchanged.chain(changed).collect::<Vec<_>>().into_iter()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let previous = self.rows.insert(key.clone(), value);
        self.changed.entry(key).or_insert(previous);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let previous = self.rows.remove(key)?;
        self.changed.entry(key.clone()).or_insert_with(|| Some(previous.clone()));
        Some(previous)
    }

    /// Gives one row to change; `None` if there is none.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let row = self.rows.get_mut(key)?;
        self.changed.entry(key.clone()).or_insert_with(|| Some(row.clone()));
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

    /// The rows that the batch changed, with what they are now; `None` for removed ones.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&K, Option<&V>)> {
        self.batch.keys().map(|key| (key, self.rows.get(key)))
    }

    fn enter(&mut self, key: &K, places: Vec<V::Place>) {
        for place in places {
            self.index.entry(place).or_default().insert(key.clone());
        }
    }

    fn leave(&mut self, key: &K, places: Vec<V::Place>) {
        for place in places {
            if let Some(keys) = self.index.get_mut(&place) {
                keys.remove(key);
                if keys.is_empty() {
                    self.index.remove(&place);
                }
            }
        }
    }

    /// Puts a row back to what it was; the index is not touched.
    fn put_back(&mut self, key: K, row: Option<V>) {
        match row {
            Some(row) => self.rows.insert(key, row),
            None => self.rows.remove(&key),
        };
    }
}

impl<K: Ord + Clone, V: Row<K>> Undo for Table<K, V> {
    fn merge(&mut self) {
        for (key, before) in std::mem::take(&mut self.changed) {
            self.leave(&key, places(&key, before.as_ref()));
            self.enter(&key, places(&key, self.rows.get(&key)));
            self.batch.entry(key).or_insert(before);
        }
    }

    fn restore(&mut self) {
        for (key, before) in std::mem::take(&mut self.changed) {
            self.put_back(key, before);
        }
    }

    fn keep(&mut self) {
        self.merge();
        self.batch.clear();
    }

    fn restore_batch(&mut self) {
        self.restore();
        for (key, before) in std::mem::take(&mut self.batch) {
            self.leave(&key, places(&key, self.rows.get(&key)));
            self.enter(&key, places(&key, before.as_ref()));
            self.put_back(key, before);
        }
    }
}

fn places<K, V: Row<K>>(key: &K, row: Option<&V>) -> Vec<V::Place> {
    row.map(|row| row.places(key)).unwrap_or_default()
}

/// Rows that are found by their keys alone.
macro_rules! nowhere {
    ($($row:ty),*) => {
        $(impl<K> crate::mock_server::table::Row<K> for $row {
            type Place = ();

            fn places(&self, _: &K) -> Vec<()> {
                Vec::new()
            }
        })*
    };
}
pub(super) use nowhere;

#[cfg(test)]
mod tests {
    use super::*;

    impl Row<u8> for &'static str {
        type Place = char;

        fn places(&self, _: &u8) -> Vec<char> {
            self.chars().collect()
        }
    }

    #[test]
    fn a_row_is_found_where_the_running_rule_has_put_it() {
        let mut table = Table::new(BTreeMap::from([(1, "a"), (2, "ab")]));
        assert_eq!(found(&table, 'a'), [1, 2]);

        table.insert(1, "b");
        table.remove(&2);
        table.insert(3, "a");

        assert_eq!((found(&table, 'a'), found(&table, 'b')), (vec![3], vec![1]));
    }

    #[test]
    fn a_rule_that_fails_leaves_the_batch_as_it_was() {
        let mut table = Table::new(BTreeMap::from([(1, "a")]));
        table.insert(1, "b");
        table.insert(2, "b");
        table.merge();

        table.insert(1, "c");
        table.remove(&2);
        table.restore();

        assert_eq!(table.rows(), BTreeMap::from([(1, "b"), (2, "b")]));
        assert_eq!((found(&table, 'b'), found(&table, 'c')), (vec![1, 2], vec![]));
        let changes: Vec<_> = table.changes().collect();
        assert_eq!(changes, [(&1, Some(&"b")), (&2, Some(&"b"))]);
    }

    #[test]
    fn a_batch_that_is_not_stored_leaves_nothing() {
        let mut table = Table::new(BTreeMap::from([(1, "a"), (2, "b")]));
        table.insert(1, "c");
        table.merge();
        table.insert(1, "d");
        table.remove(&2);
        table.merge();

        table.restore_batch();

        assert_eq!(table.rows(), BTreeMap::from([(1, "a"), (2, "b")]));
        assert_eq!((found(&table, 'a'), found(&table, 'b')), (vec![1], vec![2]));
        assert_eq!((found(&table, 'c'), found(&table, 'd')), (vec![], vec![]));
    }

    fn found(table: &Table<u8, &'static str>, place: char) -> Vec<u8> {
        let mut keys: Vec<_> = table.find(&place).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    }
}
