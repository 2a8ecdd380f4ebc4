//! The profile: tables of what was seen, and how often.

use ahash::{HashMap, HashMapExt as _};

use super::intern::Interner;
use super::{Function, FunctionId, Header, Labels, Location, LocationId, Mapping, MappingId};

/// One profile: every table interned, equal samples merged.
///
/// An id belongs to the profile that gave it out. Handing in another one's id,
/// or the wrong number of values, is a mistake in the caller and panics: the
/// alternative is a profile that says something false.
#[derive(Debug)]
pub struct Profile {
    header: Header,
    mappings: Interner<Mapping>,
    functions: Interner<Function>,
    locations: Interner<Location>,
    stacks: Interner<[LocationId]>,
    labels: Interner<Labels>,
    /// (stack, labels) to its place in `keys`.
    places: HashMap<(u32, u32), usize>,
    keys: Vec<(u32, u32)>,
    /// One row of `sample_types.len()` values for each entry of `keys`.
    values: Vec<i64>,
    comments: Vec<String>,
    names_sought: bool,
}

/// One merged sample.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// The stack, leaf first.
    pub stack: &'a [LocationId],
    /// Who ran.
    pub labels: &'a Labels,
    /// One value for each sample type.
    pub values: &'a [i64],
}

impl Profile {
    /// An empty profile, which is a valid one.
    pub fn new(header: Header) -> Self {
        Self {
            header,
            mappings: Interner::default(),
            functions: Interner::default(),
            locations: Interner::default(),
            stacks: Interner::default(),
            labels: Interner::default(),
            places: HashMap::new(),
            keys: Vec::new(),
            values: Vec::new(),
            comments: Vec::new(),
            names_sought: true,
        }
    }

    /// Adds a mapping. Readers take the first one for the main binary.
    pub fn mapping(&mut self, mapping: Mapping) -> MappingId {
        MappingId(self.mappings.intern(mapping))
    }

    /// Adds a function.
    pub fn function(&mut self, function: Function) -> FunctionId {
        FunctionId(self.functions.intern(function))
    }

    /// Adds a location.
    ///
    /// # Panics
    /// When the mapping or a function is not of this profile.
    pub fn location(&mut self, location: Location) -> LocationId {
        assert!(
            location.mapping.index() < self.mappings.len(),
            "a location's mapping is of the same profile"
        );
        assert!(
            location
                .lines
                .iter()
                .all(|line| line.function.index() < self.functions.len()),
            "a location's functions are of the same profile"
        );
        LocationId(self.locations.intern(location))
    }

    /// Adds `values` to those of the same stack (leaf first) and labels.
    ///
    /// # Panics
    /// When a location is not of this profile, or when `values` has not one
    /// value for each sample type.
    pub fn add_sample(&mut self, stack: &[LocationId], labels: Labels, values: &[i64]) {
        let width = self.header.sample_types.len();
        assert_eq!(values.len(), width, "one value for each sample type");
        assert!(
            stack.iter().all(|id| id.index() < self.locations.len()),
            "a stack's locations are of the same profile"
        );
        let key = (
            self.stacks.intern(stack),
            self.labels.intern(labels.canonical()),
        );
        let place = *self.places.entry(key).or_insert_with(|| {
            self.keys.push(key);
            self.values.resize(self.keys.len() * width, 0);
            self.keys.len() - 1
        });
        let row = &mut self.values[place * width..(place + 1) * width];
        for (sum, value) in row.iter_mut().zip(values) {
            *sum = sum.saturating_add(*value);
        }
    }

    /// Adds a remark for people, one line. One that starts with `#` is kept
    /// but not shown in reports.
    pub fn comment(&mut self, comment: impl Into<String>) {
        self.comments.push(comment.into());
    }

    /// Says that nobody looked for names, so that readers may.
    pub fn leave_unnamed(&mut self) {
        self.names_sought = false;
    }

    /// Whether names were looked for.
    pub fn names_sought(&self) -> bool {
        self.names_sought
    }

    /// What holds for all samples.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Sets the length of the recording, known only at its end.
    pub fn set_duration_ns(&mut self, duration_ns: i64) {
        self.header.duration_ns = duration_ns;
    }

    /// Every mapping, by [`MappingId::index`].
    pub fn mappings(&self) -> impl ExactSizeIterator<Item = &Mapping> {
        self.mappings.iter()
    }

    /// Every function, by [`FunctionId::index`].
    pub fn functions(&self) -> impl ExactSizeIterator<Item = &Function> {
        self.functions.iter()
    }

    /// Every location, by [`LocationId::index`].
    pub fn locations(&self) -> impl ExactSizeIterator<Item = &Location> {
        self.locations.iter()
    }

    /// Every merged sample, in the order in which each was first seen.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = Sample<'_>> {
        let width = self.header.sample_types.len();
        self.keys
            .iter()
            .enumerate()
            .map(move |(place, key)| Sample {
                stack: of_this_profile(self.stacks.get(key.0)),
                labels: of_this_profile(self.labels.get(key.1)),
                values: &self.values[place * width..(place + 1) * width],
            })
    }

    /// The remarks, in order.
    pub fn comments(&self) -> impl ExactSizeIterator<Item = &str> {
        self.comments.iter().map(String::as_str)
    }

    /// The mapping of an id that this profile gave out.
    ///
    /// # Panics
    /// When the id is of another profile.
    pub fn get_mapping(&self, id: MappingId) -> &Mapping {
        of_this_profile(self.mappings.get(id.0))
    }

    /// The function of an id that this profile gave out.
    ///
    /// # Panics
    /// When the id is of another profile.
    pub fn get_function(&self, id: FunctionId) -> &Function {
        of_this_profile(self.functions.get(id.0))
    }

    /// The location of an id that this profile gave out.
    ///
    /// # Panics
    /// When the id is of another profile.
    pub fn get_location(&self, id: LocationId) -> &Location {
        of_this_profile(self.locations.get(id.0))
    }

    /// The sum over all samples of the value at this place in
    /// [`Header::sample_types`], 0 where there is none.
    pub fn total(&self, value: usize) -> i64 {
        self.samples()
            .filter_map(|sample| sample.values.get(value).copied())
            .fold(0, i64::saturating_add)
    }
}

fn of_this_profile<T>(found: Option<T>) -> T {
    let Some(found) = found else {
        panic!("an id is used with the profile that gave it out");
    };
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Line;

    fn profile() -> Profile {
        Profile::new(Header::cpu(10_101_010, 1, 2))
    }

    fn mapping(file: &str) -> Mapping {
        Mapping {
            start: 0x1000,
            limit: 0x2000,
            file_offset: 0,
            file: file.into(),
            build_id: None,
        }
    }

    fn unnamed(profile: &mut Profile, address: u64) -> LocationId {
        let mapping = profile.mapping(mapping("/bin/x"));
        profile.location(Location {
            mapping,
            address,
            lines: Vec::new(),
        })
    }

    fn tid(tid: i64) -> Labels {
        Labels {
            strings: Vec::new(),
            numbers: vec![("tid", tid)],
        }
    }

    #[test]
    fn samples_with_the_same_stack_and_labels_become_one() {
        let mut profile = profile();
        let leaf = unnamed(&mut profile, 0x1010);
        let root = unnamed(&mut profile, 0x1020);
        profile.add_sample(&[leaf, root], tid(1), &[1, 10]);
        profile.add_sample(&[leaf, root], tid(2), &[1, 10]);
        profile.add_sample(&[leaf, root], tid(1), &[2, 20]);
        profile.add_sample(&[root, leaf], tid(1), &[1, 10]);
        let rows: Vec<_> = profile
            .samples()
            .map(|s| (s.stack.to_vec(), s.labels.number("tid"), s.values.to_vec()))
            .collect();
        assert_eq!(
            rows,
            [
                (vec![leaf, root], Some(1), vec![3, 30]),
                (vec![leaf, root], Some(2), vec![1, 10]),
                (vec![root, leaf], Some(1), vec![1, 10]),
            ]
        );
        assert_eq!(profile.total(0), 5);
        assert_eq!(profile.total(1), 50);
        assert_eq!(profile.total(2), 0);
    }

    #[test]
    fn the_first_mapping_stays_the_first() {
        let mut profile = profile();
        let main = profile.mapping(mapping("/bin/main"));
        profile.mapping(mapping("/lib/libc.so.6"));
        assert_eq!(profile.mapping(mapping("/bin/main")), main);
        assert_eq!(main.index(), 0);
        let files: Vec<_> = profile.mappings().map(|m| m.file.as_str()).collect();
        assert_eq!(files, ["/bin/main", "/lib/libc.so.6"]);
    }

    #[test]
    fn one_address_with_two_meanings_is_two_locations() {
        let mut profile = profile();
        let id = unnamed(&mut profile, 0x1010);
        let function = profile.function(Function {
            name: "f".into(),
            system_name: "f".into(),
            file: String::new(),
        });
        let named = profile.location(Location {
            lines: vec![Line {
                function,
                line: 0,
                column: 0,
            }],
            ..profile.get_location(id).clone()
        });
        assert_ne!(id, named);
        assert_eq!(unnamed(&mut profile, 0x1010), id);
    }

    #[test]
    fn a_sum_stops_at_the_largest_number() {
        let mut profile = profile();
        profile.add_sample(&[], Labels::default(), &[i64::MAX, 1]);
        profile.add_sample(&[], Labels::default(), &[1, 1]);
        assert_eq!(profile.total(0), i64::MAX);
        assert_eq!(profile.total(1), 2);
    }

    #[test]
    #[should_panic(expected = "same profile")]
    fn a_location_of_another_profile_is_refused() {
        let mut other = profile();
        let foreign = unnamed(&mut other, 1);
        profile().add_sample(&[foreign], Labels::default(), &[1, 1]);
    }

    #[test]
    #[should_panic(expected = "one value for each sample type")]
    fn a_sample_without_all_its_values_is_refused() {
        profile().add_sample(&[], Labels::default(), &[1]);
    }
}
