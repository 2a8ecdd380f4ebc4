//! Opening a file that a process mapped, and nothing else by mistake.
//!
//! A path told by a process may lead to a device or a FIFO, whose mere opening
//! has effects, or by now to another file. So it is opened without access
//! (`O_PATH`) first, looked at, and only then opened for reading, through the
//! descriptor and not through the path again.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::ptr;

use super::proc_text::parse_maps_range;
use crate::object::FileId;

/// Which file is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// Device and inode as the kernel tells them of a mapping.
    pub id: FileId,
    /// The generation of the inode, where it is known.
    pub generation: Option<u32>,
}

/// A file that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub file: File,
    /// Device and inode as `stat` tells them, which btrfs and overlayfs make
    /// different from a mapping's.
    pub id: FileId,
    pub generation: Option<u32>,
    /// Whether no name is left that leads to it.
    pub deleted: bool,
}

/// Opens the regular file at `path` for reading if it is the one meant; with
/// no identity, if it is a regular file. `follow` is for the links of
/// `map_files`, which lead to a file and not to a name.
pub(super) fn open_regular(path: &Path, follow: bool, meant: Option<Identity>) -> Option<Found> {
    let no_follow = if follow { 0 } else { libc::O_NOFOLLOW };
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC | no_follow)
        .open(path)
        .ok()?;
    let metadata = handle.metadata().ok()?;
    if !metadata.is_file() {
        return None;
    }
    let id = FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    // Only file systems without a device of their own show two of them.
    if let Some(meant) = meant
        && meant.id != id
        && (libc::major(meant.id.device) != 0 || meant.id.device == id.device)
    {
        return None;
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", handle.as_raw_fd()))
        .ok()?;
    let generation = generation(&file);
    if let Some(meant) = meant {
        let same_generation = match (meant.generation, generation) {
            (Some(meant), Some(found)) => meant == found,
            _ => true,
        };
        if !same_generation || (meant.id != id && id_when_mapped(&file) != Some(meant.id)) {
            return None;
        }
    }
    Some(Found {
        file,
        id,
        generation,
        deleted: metadata.nlink() == 0,
    })
}

/// The generation of a file's inode, on file systems that tell it: a number
/// that a new file has not in common with the deleted one whose inode it got.
fn generation(file: &File) -> Option<u32> {
    let mut generation: libc::c_long = 0;
    // SAFETY: the kernel writes an int or a long, and there is room for both.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::FS_IOC_GETVERSION,
            &raw mut generation,
        )
    };
    (result == 0).then_some(generation as u32)
}

/// What the kernel would call this file in a mapping's record: it is mapped
/// (and not touched), and looked up among our own mappings.
fn id_when_mapped(file: &File) -> Option<FileId> {
    const LENGTH_BYTES: usize = 4096;
    // SAFETY: a new private mapping at an address of the kernel's choice, which
    // nothing reads and which is unmapped below.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            LENGTH_BYTES,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    let found = File::open("/proc/self/maps").ok().and_then(|maps| {
        BufReader::new(maps)
            .split(b'\n')
            .map_while(Result::ok)
            .filter_map(|line| parse_maps_range(&line))
            .find(|map| (map.start..map.end).contains(&(address as u64)))
    });
    // SAFETY: the mapping made above, of the same length, used by nobody.
    unsafe { libc::munmap(address, LENGTH_BYTES) };
    Some(found?.id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    fn identity(path: &Path) -> Identity {
        let metadata = fs::metadata(path).unwrap();
        let id = FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        };
        Identity {
            id,
            generation: None,
        }
    }

    #[test]
    fn only_the_file_meant_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::write(&path, "one").unwrap();
        let meant = identity(&path);
        assert_eq!(
            open_regular(&path, false, Some(meant)).unwrap().id,
            meant.id
        );

        // Held back, so that its inode cannot be given to the next.
        let _held = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "two").unwrap();
        assert!(open_regular(&path, false, Some(meant)).is_none());
    }

    #[test]
    fn another_generation_of_the_inode_is_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::write(&path, "one").unwrap();
        let meant = identity(&path);
        let Some(generation) = open_regular(&path, false, Some(meant)).unwrap().generation else {
            eprintln!("skipped: this file system tells no generation");
            return;
        };
        let of = |generation| Identity {
            generation: Some(generation),
            ..meant
        };
        assert!(open_regular(&path, false, Some(of(generation))).is_some());
        assert!(open_regular(&path, false, Some(of(!generation))).is_none());
    }

    #[test]
    fn what_is_no_regular_file_is_never_opened() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        // With nobody at its other end, opening it would not return.
        assert!(open_regular(&fifo, false, None).is_none());
        assert!(open_regular(Path::new("/dev/null"), false, None).is_none());
        assert!(open_regular(directory.path(), false, None).is_none());
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        let link = directory.path().join("link");
        fs::write(&target, "x").unwrap();
        symlink(&target, &link).unwrap();
        assert!(open_regular(&link, false, None).is_none());
        assert!(open_regular(&link, true, None).is_some());
    }

    #[test]
    fn a_file_without_a_name_says_so() {
        let file = tempfile::tempfile().unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert!(open_regular(Path::new(&path), true, None).unwrap().deleted);
    }

    #[test]
    fn a_mapping_of_a_file_shows_the_kernels_name_for_it() {
        let exe = std::env::current_exe().unwrap();
        let own_maps = fs::read("/proc/self/maps").unwrap();
        let expected = own_maps
            .split(|&byte| byte == b'\n')
            .filter_map(parse_maps_range)
            .find(|map| *map.name == *exe.as_os_str().as_encoded_bytes())
            .unwrap();
        let file = File::open(&exe).unwrap();
        assert_eq!(id_when_mapped(&file), Some(expected.id));
    }
}
