//! A table that holds each distinct value once.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;

use ahash::{HashMap, HashMapExt as _};

/// Numbers distinct values 0, 1, 2, … in the order in which they first come.
///
/// The value itself exists once: the list and the index share it.
#[derive(Debug)]
pub(crate) struct Interner<T: ?Sized> {
    numbers: HashMap<Arc<T>, u32>,
    values: Vec<Arc<T>>,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            values: Vec::new(),
        }
    }
}

impl<T: ?Sized + Hash + Eq> Interner<T> {
    /// The number of `value`, which is copied only when it is new.
    ///
    /// The numbers are 32 bits wide: 2^32 distinct values do not fit into the
    /// memory of a profiler that bounds its own.
    pub(crate) fn intern(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> u32 {
        if let Some(&number) = self.numbers.get(value.borrow()) {
            return number;
        }
        let number = self.values.len() as u32;
        let shared = value.into();
        self.values.push(Arc::clone(&shared));
        self.numbers.insert(shared, number);
        number
    }

    /// The value with this number.
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.values.get(number as usize).map(|value| &**value)
    }

    /// Every value, in the order of the numbers.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.values.iter().map(|value| &**value)
    }

    /// How many distinct values there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Interner;

    #[test]
    fn equal_values_share_a_number_and_numbers_are_dense() {
        let mut strings = Interner::<str>::default();
        assert_eq!(strings.intern("a"), 0);
        assert_eq!(strings.intern("b"), 1);
        assert_eq!(strings.intern("a"), 0);
        assert_eq!(strings.len(), 2);
        assert_eq!(strings.get(1), Some("b"));
        assert_eq!(strings.get(2), None);
        assert_eq!(strings.iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_slice_is_looked_up_without_owning_it() {
        let mut stacks = Interner::<[u32]>::default();
        let stack = [1, 2, 3];
        assert_eq!(stacks.intern(&stack[..2]), 0);
        assert_eq!(stacks.intern(&stack[..]), 1);
        assert_eq!(stacks.intern(&stack[..2]), 0);
    }
}
