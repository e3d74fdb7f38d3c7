//! A table of entries by name, each with a number by which it is found without its name.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::{Index, IndexMut};

/// Entries that stay for as long as the table.
#[derive(Debug)]
pub struct Numbered<K, V> {
    numbers: HashMap<K, u32, foldhash::fast::RandomState>,
    entries: Vec<(K, V)>,
}

impl<K, V> Default for Numbered<K, V> {
    fn default() -> Self {
        Self { numbers: HashMap::default(), entries: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash, V: Default> Numbered<K, V> {
    /// The number of an entry, which is made if there is none.
    pub fn number(&mut self, name: &K) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = u32::try_from(self.entries.len()).expect("each takes some hundred bytes");
        self.numbers.insert(name.clone(), number);
        self.entries.push((name.clone(), V::default()));
        number
    }
}

impl<K: Eq + Hash, V> Numbered<K, V> {
    pub fn get<Q: Eq + Hash + ?Sized>(&self, name: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.numbers.get(name).map(|&number| &self[number])
    }

    pub fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, name: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let number = *self.numbers.get(name)?;
        Some(&mut self[number])
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(name, entry)| (name, entry))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(name, entry)| (&*name, entry))
    }
}

impl<K, V> Index<u32> for Numbered<K, V> {
    type Output = V;

    fn index(&self, number: u32) -> &V {
        &self.entries[number as usize].1
    }
}

impl<K, V> IndexMut<u32> for Numbered<K, V> {
    fn index_mut(&mut self, number: u32) -> &mut V {
        &mut self.entries[number as usize].1
    }
}
