#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

use super::*;

const HYBRID: &[u8] = b"\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 master:1 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 /inner /mnt/with\\040space rw,relatime - cgroup2 cgroup2 rw
truncated line
";

#[test]
fn mounts_of_both_kinds_are_found_whatever_stands_between() {
    let mounts = CgroupMounts::parse(HYBRID);
    assert_eq!(mounts.version1, [PathBuf::from("/sys/fs/cgroup/memory")]);
    assert_eq!(mounts.version2.len(), 2);
    assert_eq!(mounts.version2[1].point, PathBuf::from("/mnt/with space"));
}

#[test]
fn a_path_of_the_file_system_becomes_one_of_the_hierarchy() {
    let mounts = CgroupMounts::parse(HYBRID);
    let path = |at: &str| mounts.hierarchy_path(Path::new(at));
    assert_eq!(path("/sys/fs/cgroup/unified"), Path::new("/"));
    assert_eq!(path("/sys/fs/cgroup/unified/a/b"), Path::new("/a/b"));
    assert_eq!(path("/mnt/with space/a"), Path::new("/inner/a"));
}

#[test]
fn escapes_are_undone_and_damaged_ones_kept() {
    assert_eq!(unescape(b"/a\\040b"), Path::new("/a b"));
    assert_eq!(unescape(b"/a\\134b"), Path::new("/a\\b"));
    assert_eq!(unescape(b"/a\\04"), Path::new("/a\\04"));
    assert_eq!(unescape(b"/a\\999"), Path::new("/a\\999"));
}

#[test]
fn a_path_below_the_top_cannot_leave_it() {
    assert_eq!(below_top(Path::new("/a/b")), Path::new("a/b"));
    assert_eq!(below_top(Path::new("a/../../../etc")), Path::new("etc"));
    assert_eq!(below_top(Path::new("/")), Path::new(""));
}

#[test]
fn what_is_no_cgroup_is_told_from_what_does_not_exist() {
    let mounts = CgroupMounts::read().unwrap();
    let error = |path: &str| mounts.find(Path::new(path)).unwrap_err();
    assert!(matches!(error("/usr/bin"), CgroupError::NotACgroup(_)));
    assert!(matches!(error("/etc/passwd"), CgroupError::NotACgroup(_)));
    assert!(matches!(error("/no/such/cgroup"), CgroupError::NotFound(_)));
}

#[test]
fn an_empty_path_is_not_the_whole_host() {
    let mounts = CgroupMounts::read().unwrap();
    let error = |path: &str| mounts.find(Path::new(path)).unwrap_err();
    assert!(matches!(error(""), CgroupError::NotFound(_)));
    assert!(matches!(error("."), CgroupError::NotACgroup(_)));
}

#[test]
fn paths_of_version_1_are_named_as_such() {
    let mounts = CgroupMounts::read().unwrap();
    let Some(point) = mounts.version1.first() else {
        eprintln!("skipped: no cgroup of version 1 is mounted here");
        return;
    };
    assert!(matches!(mounts.find(point), Err(CgroupError::Version1(_))));
    if !mounts
        .version2
        .iter()
        .any(|mount| Some(mount.point.as_path()) == point.parent())
    {
        assert!(matches!(
            mounts.find(point.parent().unwrap()),
            Err(CgroupError::Version1(_))
        ));
    }
}

/// A cgroup of its own for a test; removed with it.
struct OwnCgroup(PathBuf);

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_cgroup_is_the_same_by_either_name() {
    let mounts = CgroupMounts::read().unwrap();
    let name = format!("sampler-test-{}", std::process::id());
    let made = mounts.version2.iter().find_map(|mount| {
        let at = mount.point.join(&name);
        std::fs::create_dir(&at)
            .ok()
            .map(|()| (mount, OwnCgroup(at)))
    });
    let Some((mount, made)) = made else {
        eprintln!("skipped: no cgroup2 here that this caller may write to");
        return;
    };
    let by_path = mounts.find(&made.0).unwrap();
    let by_name = mounts.find(&Path::new("/").join(&name)).unwrap();
    assert_eq!(by_path.id, by_name.id);
    assert_eq!(by_path.path, mount.root.join(&name));
    assert_eq!(by_path.path, by_name.path);
    assert!(mounts.find(&made.0.join("absent")).is_err());
}
