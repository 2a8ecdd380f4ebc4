//! What a profile is made of.

/// What a value counts and in which unit: `samples` in `count`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ValueType {
    /// Name in `[a-z_]+`; some readers refuse others.
    pub kind: String,
    /// Unit: `count`, `nanoseconds`, `bytes`.
    pub unit: String,
}

impl ValueType {
    /// A value type from its name and unit.
    pub fn new(kind: impl Into<String>, unit: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            unit: unit.into(),
        }
    }
}

/// What holds for all samples of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the values of each sample are, in order. Readers show the last one
    /// unless told otherwise.
    pub sample_types: Vec<ValueType>,
    /// What lies between two samples.
    pub period_type: ValueType,
    /// How much of it: for the CPU 1e9 / frequency.
    pub period: i64,
    /// Start of the recording in nanoseconds since 1970, UTC.
    pub start_unix_ns: i64,
    /// Length of the recording in nanoseconds.
    pub duration_ns: i64,
}

impl Header {
    /// The header of a CPU profile: how often a stack was seen, and the CPU
    /// time that stands for, at one sample each `period_ns`.
    pub fn cpu(period_ns: i64, start_unix_ns: i64, duration_ns: i64) -> Self {
        let cpu = ValueType::new("cpu", "nanoseconds");
        Self {
            sample_types: vec![ValueType::new("samples", "count"), cpu.clone()],
            period_type: cpu,
            period: period_ns,
            start_unix_ns,
            duration_ns,
        }
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(super) u32);

        impl $name {
            /// Position in the profile's table, from 0 and without gaps.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id! {
    /// A [`Mapping`] of one profile.
    MappingId
}
id! {
    /// A [`Function`] of one profile.
    FunctionId
}
id! {
    /// A [`Location`] of one profile.
    LocationId
}

/// A file, or what stands for one, mapped into the process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// First address, in the process.
    pub start: u64,
    /// First address behind it.
    pub limit: u64,
    /// Where in the file `start` lies, in bytes.
    pub file_offset: u64,
    /// Path, or a name such as `[vdso]` or `[kernel.kallsyms]`.
    pub file: String,
    /// GNU build ID in lowercase hexadecimal.
    pub build_id: Option<String>,
}

impl Mapping {
    /// Where in the file `address` lies, unless it lies below the mapping.
    pub fn file_offset_of(&self, address: u64) -> Option<u64> {
        address
            .checked_sub(self.start)?
            .checked_add(self.file_offset)
    }
}

/// A function, inlined or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Function {
    /// Demangled name, for people.
    pub name: String,
    /// Name as the symbol table has it.
    pub system_name: String,
    /// Source file, empty where it is not known.
    pub file: String,
}

/// A place in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function it is in.
    pub function: FunctionId,
    /// Line from 1, or 0 where it is not known.
    pub line: u32,
    /// Column from 1, or 0 where it is not known.
    pub column: u32,
}

/// An address of code and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// The mapping the address lies in.
    pub mapping: MappingId,
    /// Address in the process. Callers point into their call: it is the return
    /// address less 1.
    pub address: u64,
    /// The functions at this address, the innermost inlined one first and the
    /// physical one last; empty where no name was found.
    pub lines: Vec<Line>,
}

#[cfg(test)]
mod tests {
    use super::Mapping;

    #[test]
    fn a_file_offset_counts_from_the_start_of_the_file() {
        let mapping = Mapping {
            start: 0x5000,
            limit: 0x6000,
            file_offset: 0x1000,
            file: "/bin/x".into(),
            build_id: None,
        };
        assert_eq!(mapping.file_offset_of(0x5010), Some(0x1010));
        assert_eq!(mapping.file_offset_of(0x4fff), None);
        let at_the_top = Mapping {
            start: 0,
            file_offset: 2,
            ..mapping
        };
        assert_eq!(at_the_top.file_offset_of(u64::MAX), None);
    }
}
