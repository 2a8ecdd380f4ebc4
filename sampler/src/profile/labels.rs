//! What a sample says about itself beside its stack.

/// The labels of a sample: who ran, not where.
///
/// The unit of a number is its key (`pid` is counted in `pid`s), the
/// convention by which pprof finds `pid=7` and keeps a zero. A reader shows one
/// value for each key, so a key stands once over both lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Names: `comm`, `thread_name`, ….
    pub strings: Vec<(&'static str, String)>,
    /// Numbers: `pid`, `tid`, ….
    pub numbers: Vec<(&'static str, i64)>,
}

impl Labels {
    /// The text under `key`.
    pub fn string(&self, key: &str) -> Option<&str> {
        let (_, value) = self.strings.iter().find(|(k, _)| *k == key)?;
        Some(value)
    }

    /// The number under `key`.
    pub fn number(&self, key: &str) -> Option<i64> {
        let (_, value) = self.numbers.iter().find(|(k, _)| *k == key)?;
        Some(*value)
    }

    /// The same labels in the one order in which equal sets are equal: by key,
    /// the first value of a repeated key, a text before a number.
    pub(super) fn canonical(mut self) -> Self {
        self.strings.sort_by_key(|(key, _)| *key);
        self.strings.dedup_by_key(|(key, _)| *key);
        self.numbers.sort_by_key(|(key, _)| *key);
        self.numbers.dedup_by_key(|(key, _)| *key);
        let strings = &self.strings;
        self.numbers
            .retain(|(key, _)| strings.iter().all(|(other, _)| other != key));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::Labels;

    #[test]
    fn the_order_in_which_labels_were_set_does_not_matter() {
        let one = Labels {
            strings: vec![("comm", "a".into()), ("thread_name", "b".into())],
            numbers: vec![("pid", 1), ("tid", 2)],
        };
        let other = Labels {
            strings: vec![("thread_name", "b".into()), ("comm", "a".into())],
            numbers: vec![("tid", 2), ("pid", 1)],
        };
        assert_eq!(one.canonical(), other.canonical());
    }

    #[test]
    fn a_key_keeps_its_first_value_and_a_text_wins() {
        let labels = Labels {
            strings: vec![("comm", "first".into()), ("comm", "second".into())],
            numbers: vec![("pid", 0), ("comm", 5)],
        }
        .canonical();
        assert_eq!(labels.string("comm"), Some("first"));
        assert_eq!(labels.number("comm"), None);
        assert_eq!(labels.number("pid"), Some(0));
    }
}
