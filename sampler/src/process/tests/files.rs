//! What lies behind a mapping.

use std::os::fd::{AsRawFd as _, FromRawFd as _};

use super::*;

#[test]
fn a_function_of_this_test_lies_in_this_program() {
    let mut table = table();
    let own = std::process::id();
    table.scan(|pid| pid == own).unwrap();
    let key = table.find(&Sighting {
        pid: own,
        start_time_ns: 0,
        time_ns: monotonic_ns(),
        leader_comm: Comm::default(),
    });
    let address = seen as *const () as u64;
    let mapping = table.locate(key, monotonic_ns(), address).unwrap();
    let Backing::File(file) = &mapping.backing else {
        panic!("{mapping:?} is not a file");
    };
    let exe = std::env::current_exe().unwrap();
    assert_eq!(file.id, identity(&exe));
    assert_eq!(file.path, exe);
    assert_eq!(table.process(key).unwrap().exe(), Some(exe.as_path()));

    // The bytes at the address are those of the file at the offset.
    let offset = mapping.file_offset_of(address).0 as usize;
    // SAFETY: the code of a function of this program, longer than 16 bytes.
    let in_memory = unsafe { std::slice::from_raw_parts(address as *const u8, 16) };
    assert_eq!(
        &fs::read(file.reopen_path()).unwrap()[offset..offset + 16],
        in_memory
    );
}

#[test]
fn the_vdso_is_in_every_process() {
    let mut table = table();
    let own = std::process::id();
    table.scan(|pid| pid == own).unwrap();
    let (key, _) = table.processes().next().unwrap();
    // SAFETY: getauxval takes a number and returns one.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    let mapping = table.locate(key, monotonic_ns(), vdso + 0x10).unwrap();
    assert!(matches!(mapping.backing, Backing::Vdso));
    assert_eq!(mapping.file_offset_of(vdso + 0x10).0, 0x10);
}

#[test]
fn a_file_that_many_processes_run_is_held_once() {
    let mut table = table();
    let mut children = [sleeping_cat(), sleeping_cat()];
    let pids: Vec<u32> = children.iter().map(Child::id).collect();
    table.scan(|pid| pids.contains(&pid)).unwrap();
    let cat = fs::canonicalize(format!("/proc/{}/exe", pids[0])).unwrap();
    let mut files = Vec::new();
    for (key, process) in table.processes() {
        assert_eq!(process.exe(), Some(cat.as_path()));
        assert_eq!(process.comm(), Comm::new(b"cat"));
        assert_eq!(process.parent_pid(), std::process::id());
        let maps = Procfs::new("/proc").snapshot(process.pid()).unwrap().maps;
        let map = maps
            .iter()
            .find(|map| *map.name == *cat.as_os_str().as_encoded_bytes());
        let found = table.locate(key, u64::MAX, map.unwrap().start).unwrap();
        let Backing::File(file) = &found.backing else {
            panic!("{found:?} is not a file");
        };
        files.push(std::sync::Arc::clone(file));
    }
    assert!(std::sync::Arc::ptr_eq(&files[0], &files[1]));
    for child in &mut children {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

#[test]
fn a_program_deleted_while_it_runs_stays_readable() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("my cat");
    fs::copy("/bin/cat", &program).unwrap();
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    fs::remove_file(&program).unwrap();
    let mut table = table();
    table.scan(|pid| pid == child.id()).unwrap();
    let (key, process) = table.processes().next().unwrap();
    assert_eq!(process.exe(), Some(program.as_path()));
    let maps = Procfs::new("/proc").snapshot(child.id()).unwrap().maps;
    let start = maps
        .iter()
        .find(|map| map.name.ends_with(b" (deleted)"))
        .unwrap()
        .start;
    drop(child.stdin.take());
    child.wait().unwrap();

    let mapping = table.locate(key, u64::MAX, start).unwrap();
    match &mapping.backing {
        Backing::File(file) => {
            assert_eq!(file.path, program);
            assert_eq!(
                fs::read(file.reopen_path()).unwrap(),
                fs::read("/bin/cat").unwrap()
            );
        }
        // Without the right to follow `map_files` nothing leads there.
        other => assert!(!may_follow_map_files(), "{other:?}"),
    }
}

/// Whether this test may follow the links of `map_files`, which takes
/// `CAP_CHECKPOINT_RESTORE`.
fn may_follow_map_files() -> bool {
    let maps = Procfs::new("/proc")
        .snapshot(std::process::id())
        .unwrap()
        .maps;
    let map = maps.iter().find(|map| map.id.inode != 0).unwrap();
    fs::File::open(format!(
        "/proc/self/map_files/{:x}-{:x}",
        map.start, map.end
    ))
    .is_ok()
}

#[test]
fn a_file_of_another_inode_under_the_same_path_is_not_taken_for_it() {
    let mut table = table();
    let path = fs::canonicalize("/bin/true").unwrap();
    let id = FileId {
        inode: identity(&path).inode + 1_000_000_007,
        ..identity(&path)
    };
    let path = path.to_str().unwrap();
    table.apply(vec![
        exec(SECOND_NS, CHILD, "true"),
        map_named(SECOND_NS + 1, CHILD, 0x1000, path, id),
        map_named(SECOND_NS + 2, CHILD, 0x5000, path, id),
    ]);
    let key = table.find(&seen(&table, CHILD, SECOND_NS, SECOND_NS + 2));
    let mapping = table.locate(key, SECOND_NS + 2, 0x1000).unwrap();
    assert!(matches!(mapping.backing, Backing::Unpinned { id: Some(found), .. } if found == id));
    assert_eq!(mapping.name(), path);
    assert_eq!(table.counters().unpinned_files, 1);
}

#[test]
fn a_file_that_is_gone_keeps_the_build_id_that_the_kernel_told() {
    let mut table = table();
    let mut mapped = map_named(
        SECOND_NS + 1,
        CHILD,
        0x1000,
        "/nonexistent/gone",
        FileId {
            device: 1,
            inode: 9,
        },
    );
    let build_id = BuildId([7; 20].into());
    if let Event::Map(map) = &mut mapped.event {
        map.build_id = Some(build_id.clone());
    }
    table.apply(vec![exec(SECOND_NS, CHILD, "gone"), mapped]);
    let key = table.find(&seen(&table, CHILD, SECOND_NS, SECOND_NS + 2));
    let mapping = table.locate(key, SECOND_NS + 2, 0x1000).unwrap();
    assert!(
        matches!(&mapping.backing, Backing::Unpinned { build_id: Some(kept), .. } if *kept == build_id)
    );
}

#[test]
fn the_number_of_files_held_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let mut table = ProcessTable::new(Procfs::new("/proc"), 2);
    let mut records = vec![exec(SECOND_NS, CHILD, "many")];
    for index in 0..5 {
        let path = directory.path().join(index.to_string());
        fs::write(&path, "x").unwrap();
        let start = 0x1000 * (index + 1);
        let name = path.to_str().unwrap();
        records.push(map_named(
            SECOND_NS + 1,
            CHILD,
            start,
            name,
            identity(&path),
        ));
    }
    table.apply(records);
    assert_eq!(table.counters().unpinned_files, 3);
}

/// Memory of this process that can be executed, and comes from `file`.
fn map_code(file: &fs::File) -> u64 {
    // SAFETY: a new mapping at an address of the kernel's choice, which stays.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            0x1000,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(address, libc::MAP_FAILED);
    address as u64
}

#[test]
fn memory_that_is_a_file_to_the_kernel_only_has_no_path() {
    // SAFETY: the name is a string of C; the descriptor is checked.
    let fd = unsafe { libc::memfd_create(c"jit".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: it was just opened and belongs to nobody else.
    let file = unsafe { fs::File::from_raw_fd(fd) };
    file.set_len(0x1000).unwrap();
    let address = map_code(&file);
    let mut table = table();
    let own = std::process::id();
    table.scan(|pid| pid == own).unwrap();
    let (key, _) = table.processes().next().unwrap();
    let mapping = table.locate(key, u64::MAX, address).unwrap();
    assert!(
        mapping.name().starts_with("/memfd:jit"),
        "{}",
        mapping.name()
    );
    match &mapping.backing {
        Backing::File(file) => assert_eq!(file.build_id, None),
        other => {
            assert!(matches!(other, Backing::Anonymous { .. }));
            assert!(!may_follow_map_files());
        }
    }
}

#[test]
fn a_file_that_is_held_is_not_taken_for_the_one_before_it_in_its_inode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conftest");
    fs::write(&path, "x").unwrap();
    let told = |time_ns, start, generation| {
        let path = path.to_str().unwrap();
        let mut record = map_named(time_ns, CHILD, start, path, identity(path.as_ref()));
        if let Event::Map(map) = &mut record.event {
            map.generation = generation;
        }
        record
    };
    let mut table = table();
    table.apply(vec![
        exec(SECOND_NS, CHILD, "conftest"),
        told(SECOND_NS + 1, 0x1000, None),
        told(SECOND_NS + 2, 0x3000, Some(1)),
        told(SECOND_NS + 3, 0x5000, Some(2)),
    ]);
    let (key, _) = table.processes().next().unwrap();
    let held = |start| {
        let mapping = table.locate(key, u64::MAX, start).unwrap();
        matches!(mapping.backing, Backing::File(_))
    };
    assert!(held(0x1000));
    // File systems that tell no generation cannot tell the two apart.
    let file = fs::File::open(&path).unwrap();
    let mut generation: libc::c_long = 0;
    // SAFETY: the kernel writes an int or a long, and there is room for both.
    let told = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::FS_IOC_GETVERSION,
            &raw mut generation,
        )
    };
    if told == 0 && !(1..=2).contains(&generation) {
        assert!(!held(0x3000) && !held(0x5000));
    }
}

#[test]
fn files_that_nobody_uses_are_closed() {
    let directory = tempfile::tempdir().unwrap();
    let directory_path = fs::canonicalize(directory.path()).unwrap();
    let held = || {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        let is_ours = |path: &std::path::PathBuf| path.starts_with(&directory_path);
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets.filter(is_ours).count()
    };
    // There is room for all of them.
    let mut table = ProcessTable::new(Procfs::new("/proc"), 64);
    let mut sampled = None;
    for round in 0..6_u64 {
        let path = directory.path().join(round.to_string());
        fs::write(&path, "x").unwrap();
        let time_ns = (round + 1) * SECOND_NS;
        table.apply(vec![
            exec(time_ns, CHILD, "short"),
            map_named(
                time_ns + 1,
                CHILD,
                0x1000,
                path.to_str().unwrap(),
                identity(&path),
            ),
            record(time_ns + 2, CHILD, Event::Exit),
        ]);
        let (key, _) = table.processes().next().unwrap();
        let mapping = table.locate(key, time_ns + 1, 0x1000).unwrap();
        assert_eq!(held(), usize::from(sampled.is_some()) + 1);
        // One was sampled, and is still to be named.
        sampled = sampled.or((round == 2).then_some(mapping));
        table.forget(time_ns + 3);
        assert_eq!(held(), usize::from(sampled.is_some()));
    }
    assert_eq!(table.counters().unpinned_files, 0);
    drop(sampled);
    table.forget(7 * SECOND_NS);
    assert_eq!(held(), 0);
}
