//! The child's side of building tables: from an open file to its table.

use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};

use crate::isolation::{Parent, Service};
use crate::object::MappedContents;
use crate::object::unwind::{self, BuildError, Table};

/// What a child does that builds unwind tables.
pub const TABLES_SERVICE: Service = Service {
    name: "tables",
    run: |parent| {
        // An error says that the parent has no more to ask.
        let _ = serve(&parent);
    },
};

/// What comes with a file: what its table may take while it is built, in bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub max_bytes: u64,
}

/// What could be made of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Its table, which follows, encoded.
    Table,
    /// It describes no code.
    Nothing,
    /// It cannot be read, or there is too little room.
    Refused,
}

fn serve(parent: &Parent) -> io::Result<()> {
    loop {
        let (Request { max_bytes }, Some(file)) = parent.receive()? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match build(&File::from(file), max_bytes) {
            Ok(table) => {
                let encoded = table.encode();
                drop(table);
                parent.send(&Reply::Table)?;
                parent.send_bytes(&encoded)?;
            }
            Err(reply) => parent.send(&reply)?,
        }
    }
}

/// Builds a table, and holds no more than so many bytes for it. The file is mapped
/// and not read, a quarter less work: one that is truncated meanwhile ends this
/// process, which is there for that.
fn build(file: &File, max_bytes: u64) -> Result<Table, Reply> {
    let contents = MappedContents::new(file).map_err(|_| Reply::Refused)?;
    unwind::build_within(&contents, max_bytes).map_err(|error| match error {
        BuildError::NoRoom(_) => Reply::Refused,
        _ => Reply::Nothing,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use super::*;

    fn built(max_bytes: u64) -> Result<Table, Reply> {
        let path = std::env::current_exe().unwrap();
        build(&File::open(path).unwrap(), max_bytes)
    }

    #[test]
    fn the_table_is_the_same_however_the_file_is_read() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(built(u64::MAX), Ok(unwind::build(&bytes).unwrap()));
    }

    #[test]
    fn what_would_take_more_than_there_is_room_for_is_refused_and_not_taken_for_nothing() {
        let enough = [10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30]
            .into_iter()
            .find(|power| built(1 << power).is_ok());
        let enough = enough.unwrap();
        assert!(enough > 14, "a table of {enough} bits");
        assert_eq!(built(1 << (enough - 3)), Err(Reply::Refused));
        assert_eq!(built(0), Err(Reply::Refused));
    }
}
