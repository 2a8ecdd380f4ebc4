//! Who it is, and what they ran when.

use super::*;

#[test]
fn only_processes_in_scope_are_read() {
    let mut table = table();
    let own = std::process::id();
    table.scan(|pid| pid == own).unwrap();
    let pids: Vec<u32> = table
        .processes()
        .map(|(_, process)| process.pid())
        .collect();
    assert_eq!(pids, [own]);
}

#[test]
fn a_process_that_is_gone_is_known_by_its_records() {
    let mut table = table();
    let program = fs::canonicalize("/bin/true").unwrap();
    let name = program.to_str().unwrap();
    table.apply(vec![
        exec(100 * SECOND_NS, PARENT, "make"),
        map(100 * SECOND_NS + 1, PARENT, 0x1000, "make"),
        fork(101 * SECOND_NS, CHILD, PARENT),
        exec(102 * SECOND_NS, CHILD, "true"),
        map_named(
            102 * SECOND_NS + 1,
            CHILD,
            0x40_0000,
            name,
            identity(&program),
        ),
        record(103 * SECOND_NS, CHILD, Event::Exit),
    ]);
    let key = table.find(&seen(&table, CHILD, 101 * SECOND_NS, 102 * SECOND_NS + 2));
    let process = table.process(key).unwrap();
    assert_eq!(process.comm(), Comm::new(b"true"));
    assert_eq!(process.exe(), Some(program.as_path()));
    assert_eq!(process.parent_pid(), PARENT);
    assert_eq!(process.exited_ns(), Some(103 * SECOND_NS));
    let mapping = table.locate(key, 102 * SECOND_NS + 2, 0x40_0123).unwrap();
    assert_eq!(mapping.file_offset_of(0x40_0123).0, 0x3123);
    let Backing::File(file) = &mapping.backing else {
        panic!("{mapping:?} is not a file");
    };
    assert!(file.build_id.is_some());
    // Between fork and exec it ran what its parent runs.
    assert_eq!(
        name_at(&table, key, 101 * SECOND_NS + 5, 0x1000).unwrap(),
        "[anon:make]"
    );
    assert_eq!(name_at(&table, key, 102 * SECOND_NS + 5, 0x1000), None);
    assert_eq!(table.counters().records, 6);
}

#[test]
fn a_pid_that_comes_round_is_another_process() {
    let mut table = table();
    table.apply(vec![
        fork(100 * SECOND_NS, CHILD, PARENT),
        exec(100 * SECOND_NS + 1, CHILD, "first"),
        map(100 * SECOND_NS + 2, CHILD, 0x1000, "first"),
        record(110 * SECOND_NS, CHILD, Event::Exit),
        fork(200 * SECOND_NS, CHILD, PARENT),
        exec(200 * SECOND_NS + 1, CHILD, "second"),
        map(200 * SECOND_NS + 2, CHILD, 0x1000, "second"),
    ]);
    let first = table.find(&seen(&table, CHILD, 100 * SECOND_NS, 105 * SECOND_NS));
    let second = table.find(&seen(&table, CHILD, 200 * SECOND_NS, 205 * SECOND_NS));
    assert_ne!(first, second);
    assert_eq!(
        name_at(&table, first, 105 * SECOND_NS, 0x1000).unwrap(),
        "[anon:first]"
    );
    assert_eq!(
        name_at(&table, second, 205 * SECOND_NS, 0x1000).unwrap(),
        "[anon:second]"
    );
    assert_eq!(table.process(first).unwrap().comm(), Comm::new(b"first"));

    // One that no record told of, between the two.
    let between = table.find(&seen(&table, CHILD, 150 * SECOND_NS, 155 * SECOND_NS));
    assert!(between != first && between != second);
    assert_eq!(name_at(&table, between, 155 * SECOND_NS, 0x1000), None);
    assert!(!table.process(between).unwrap().is_known_at(155 * SECOND_NS));

    table.forget(150 * SECOND_NS);
    assert!(table.process(first).is_none());
    assert!(table.process(second).is_some());
}

/// A pid that is used twice within 300 ms, the first time by one whose fork
/// may have gone unheard; the news come in batches.
fn assert_two_lives(batches: impl FnOnce([Record; 3], Record, [Record; 3]) -> Vec<Vec<Record>>) {
    let (first_ns, second_ns) = (100 * SECOND_NS, 100 * SECOND_NS + 300_000_000);
    let begin = |time_ns, comm: &str| {
        [
            fork(time_ns, CHILD, PARENT),
            exec(time_ns + 1, CHILD, comm),
            map(time_ns + 2, CHILD, 0x1000, comm),
        ]
    };
    let end = record(second_ns - 1_000_000, CHILD, Event::Exit);
    let mut table = table();
    let (first_seen_ns, second_seen_ns) = (first_ns + 100_000_000, second_ns + 100_000_000);
    let mut first = None;
    for batch in batches(begin(first_ns, "first"), end, begin(second_ns, "second")) {
        table.apply(batch);
        // A sample tells its start to the nanosecond.
        first.get_or_insert_with(|| table.find(&seen(&table, CHILD, first_ns, first_seen_ns)));
    }
    let first = first.unwrap();
    let second = table.find(&seen(&table, CHILD, second_ns, second_seen_ns));
    assert_ne!(first, second);
    assert_eq!(table.processes().count(), 2);
    assert_eq!(table.process(second).unwrap().parent_pid(), PARENT);
    let comm = |key| table.process(key).unwrap().comm();
    assert_eq!(comm(first), Comm::new(b"first"));
    assert_eq!(comm(second), Comm::new(b"second"));
    let name = |key, time_ns| name_at(&table, key, time_ns, 0x1000);
    assert_eq!(name(first, first_seen_ns).unwrap(), "[anon:first]");
    assert_eq!(name(second, second_seen_ns).unwrap(), "[anon:second]");
    assert_eq!(
        table.process(first).unwrap().exited_ns().is_some(),
        table.process(second).unwrap().exited_ns().is_none()
    );
}

#[test]
fn a_pid_that_comes_round_within_a_second_is_another_process() {
    assert_two_lives(|first, end, second| vec![[&first[..], &[end], &second].concat()]);
    assert_two_lives(|first, end, second| vec![first.into(), [&[end], &second[..]].concat()]);
}

#[test]
fn a_pid_may_come_round_before_its_end_is_heard() {
    assert_two_lives(|first, end, second| vec![first.into(), second.into(), vec![end]]);
    assert_two_lives(|first, _, second| vec![first.into(), second.into()]);
}

#[test]
fn a_pid_may_come_round_of_a_process_whose_fork_was_not_heard() {
    assert_two_lives(|first, end, second| vec![first[1..].into(), [&[end], &second[..]].concat()]);
}

#[test]
fn a_fork_may_be_heard_after_the_first_news_of_the_child() {
    assert_two_lives(|first, end, second| {
        let [fork, news @ ..] = second;
        vec![first.into(), [&[end], &news[..]].concat(), vec![fork]]
    });
}

#[test]
fn news_after_an_unheard_end_do_not_change_the_one_that_ended() {
    let mut table = table();
    table.apply(vec![
        fork(100 * SECOND_NS, CHILD, PARENT),
        exec(100 * SECOND_NS + 1, CHILD, "first"),
        record(110 * SECOND_NS, CHILD, Event::Exit),
        // Its fork was lost.
        exec(200 * SECOND_NS, CHILD, "second"),
        map(200 * SECOND_NS + 1, CHILD, 0x1000, "second"),
    ]);
    let first = table.find(&seen(&table, CHILD, 100 * SECOND_NS, 105 * SECOND_NS));
    let second = table.find(&seen(&table, CHILD, 199 * SECOND_NS, 205 * SECOND_NS));
    assert_ne!(first, second);
    assert_eq!(table.process(first).unwrap().comm(), Comm::new(b"first"));
    assert_eq!(
        name_at(&table, second, 205 * SECOND_NS, 0x1000).unwrap(),
        "[anon:second]"
    );
}

#[test]
fn a_sample_is_located_in_the_program_of_its_time() {
    let mut table = table();
    table.apply(vec![
        exec(10, CHILD, "sh"),
        map(11, CHILD, 0x1000, "sh"),
        exec(20, CHILD, "cc"),
        map(21, CHILD, 0x1000, "cc"),
    ]);
    let key = table.find(&seen(&table, CHILD, 5_000, 12));
    assert_eq!(key, table.find(&seen(&table, CHILD, 5_000, 22)));
    assert_eq!(name_at(&table, key, 12, 0x1000).unwrap(), "[anon:sh]");
    assert_eq!(name_at(&table, key, 22, 0x1000).unwrap(), "[anon:cc]");
    assert_eq!(table.process(key).unwrap().comm(), Comm::new(b"cc"));
    table.forget(20);
    assert_eq!(name_at(&table, key, 22, 0x1000).unwrap(), "[anon:cc]");
}

#[test]
fn a_forked_process_changes_its_own_memory_only() {
    let mut table = table();
    table.apply(vec![
        exec(SECOND_NS, PARENT, "zygote"),
        map(SECOND_NS + 1, PARENT, 0x1000, "shared"),
        fork(2 * SECOND_NS, CHILD, PARENT),
        map(3 * SECOND_NS, CHILD, 0x1000, "own"),
        map(3 * SECOND_NS, PARENT, 0x8000, "later"),
    ]);
    let now = 4 * SECOND_NS;
    let parent = table.find(&seen(&table, PARENT, SECOND_NS, now));
    let child = table.find(&seen(&table, CHILD, 2 * SECOND_NS, now));
    assert_eq!(
        name_at(&table, parent, now, 0x1000).unwrap(),
        "[anon:shared]"
    );
    assert_eq!(name_at(&table, child, now, 0x1000).unwrap(), "[anon:own]");
    assert_eq!(name_at(&table, child, now, 0x8000), None);
    assert_eq!(table.process(child).unwrap().comm(), Comm::new(b"zygote"));
}

#[test]
fn the_order_in_which_rings_are_read_does_not_matter() {
    let told = [
        exec(SECOND_NS, PARENT, "make"),
        map(SECOND_NS + 1, PARENT, 0x9000, "make"),
        fork(SECOND_NS + 10, CHILD, PARENT),
        map(SECOND_NS + 20, CHILD, 0x1000, "before"),
        exec(SECOND_NS + 30, CHILD, "cc"),
        map(SECOND_NS + 40, CHILD, 0x2000, "after"),
    ];
    // The child's records in one batch, and any one of them in the next.
    for late in 2..told.len() {
        let mut table = table();
        let mut first = told.to_vec();
        let second = first.remove(late);
        table.apply(first);
        table.apply(vec![second]);
        let key = table.find(&seen(&table, CHILD, SECOND_NS + 10, SECOND_NS + 50));
        let at = |time_ns, address| name_at(&table, key, SECOND_NS + time_ns, address);
        assert_eq!(
            at(50, 0x2000).as_deref(),
            Some("[anon:after]"),
            "late: {late}"
        );
        assert_eq!(at(50, 0x1000), None, "late: {late}");
        assert_eq!(at(50, 0x9000), None, "late: {late}");
        assert_eq!(
            at(25, 0x1000).as_deref(),
            Some("[anon:before]"),
            "late: {late}"
        );
        assert_eq!(
            at(25, 0x9000).as_deref(),
            Some("[anon:make]"),
            "late: {late}"
        );
        assert_eq!(table.processes().count(), 2, "late: {late}");
    }
}

#[test]
fn what_proc_showed_already_is_not_applied_again() {
    let mut table = table();
    let mut child = sleeping_cat();
    let before_ns = monotonic_ns();
    table.scan(|pid| pid == child.id()).unwrap();
    let after_ns = monotonic_ns();
    let (key, _) = table.processes().next().unwrap();
    table.apply(vec![
        map(before_ns, child.id(), 0x1000, "old"),
        map(after_ns, child.id(), 0x2000, "new"),
    ]);
    assert_eq!(name_at(&table, key, after_ns, 0x1000), None);
    assert_eq!(
        name_at(&table, key, after_ns, 0x2000).unwrap(),
        "[anon:new]"
    );

    // An exec before the reading: what was read is the new program's.
    let exe = table.process(key).unwrap().exe().unwrap().to_path_buf();
    table.apply(vec![exec(before_ns - 1, child.id(), "cat")]);
    assert!(!table.process(key).unwrap().is_known_at(before_ns - 2));
    assert!(table.process(key).unwrap().is_known_at(before_ns - 1));
    assert_eq!(
        name_at(&table, key, after_ns, 0x2000).unwrap(),
        "[anon:new]"
    );
    assert_eq!(table.process(key).unwrap().exe(), Some(exe.as_path()));
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_process_nobody_told_of_is_read_when_it_is_seen() {
    let mut table = table();
    let mut child = sleeping_cat();
    let sighting = Sighting {
        pid: child.id(),
        start_time_ns: start_ns(&table, child.id()),
        time_ns: monotonic_ns(),
        leader_comm: Comm::new(b"cat"),
    };
    let key = table.find(&sighting);
    let process = table.process(key).unwrap();
    assert!(process.is_known_at(sighting.time_ns));
    assert_eq!(
        process.start_boot_ns(table.clocks()),
        sighting.start_time_ns
    );
    assert_eq!(process.parent_pid(), std::process::id());

    // The same number with another start time is somebody else, and empty.
    let other = table.find(&Sighting {
        start_time_ns: sighting.start_time_ns - 60 * SECOND_NS,
        ..sighting
    });
    assert_ne!(other, key);
    assert!(!table.process(other).unwrap().is_known_at(sighting.time_ns));
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_process_under_another_name_than_seen_may_run_another_program() {
    let mut table = table();
    let mut child = sleeping_cat();
    let sighting = Sighting {
        pid: child.id(),
        start_time_ns: start_ns(&table, child.id()),
        time_ns: monotonic_ns(),
        leader_comm: Comm::new(b"sh"),
    };
    let key = table.find(&sighting);
    assert!(!table.process(key).unwrap().is_known_at(sighting.time_ns));
    assert!(table.process(key).unwrap().is_known_at(monotonic_ns()));
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_second_scan_finds_the_scanned_again_and_the_gone_ended() {
    let mut table = table();
    let mut child = sleeping_cat();
    let own = std::process::id();
    let in_scope = |pid| pid == own || pid == child.id();
    table.scan(in_scope).unwrap();
    table.scan(in_scope).unwrap();
    assert_eq!(table.processes().count(), 2);
    drop(child.stdin.take());
    child.wait().unwrap();
    table.scan(|pid| pid == own).unwrap();
    for (_, process) in table.processes() {
        assert_eq!(process.exited_ns().is_some(), process.pid() != own);
    }
    table.forget(monotonic_ns());
    assert_eq!(table.processes().count(), 1);
}

#[test]
fn a_process_ends_with_its_last_thread() {
    let mut table = table();
    let thread = |time_ns, tid, event| Record {
        tid,
        ..record(time_ns, CHILD, event)
    };
    let created = Event::Fork {
        parent_pid: CHILD,
        parent_tid: CHILD,
    };
    table.apply(vec![
        fork(SECOND_NS, CHILD, PARENT),
        thread(SECOND_NS + 1, CHILD + 1, created),
        thread(SECOND_NS + 2, CHILD, Event::Exit),
    ]);
    let key = table.find(&seen(&table, CHILD, SECOND_NS, SECOND_NS + 3));
    assert_eq!(table.process(key).unwrap().exited_ns(), None);
    table.apply(vec![thread(SECOND_NS + 4, CHILD + 1, Event::Exit)]);
    assert_eq!(table.process(key).unwrap().exited_ns(), Some(SECOND_NS + 4));
}

#[test]
fn a_thread_that_execs_takes_the_leaders_place() {
    let mut table = table();
    let thread = |time_ns, tid, event| Record {
        tid,
        ..record(time_ns, CHILD, event)
    };
    let created = Event::Fork {
        parent_pid: CHILD,
        parent_tid: CHILD,
    };
    table.apply(vec![
        fork(SECOND_NS, CHILD, PARENT),
        thread(SECOND_NS + 1, CHILD + 1, created),
        thread(SECOND_NS + 2, CHILD, Event::Exit),
        exec(SECOND_NS + 3, CHILD, "new"),
    ]);
    let key = table.find(&seen(&table, CHILD, SECOND_NS, SECOND_NS + 4));
    assert_eq!(table.process(key).unwrap().comm(), Comm::new(b"new"));
    table.apply(vec![record(SECOND_NS + 5, CHILD, Event::Exit)]);
    assert_eq!(table.process(key).unwrap().exited_ns(), Some(SECOND_NS + 5));
}

#[test]
fn only_the_leaders_name_is_the_processs() {
    let mut table = table();
    let renamed = |time_ns, tid, comm: &[u8]| Record {
        tid,
        ..record(
            time_ns,
            CHILD,
            Event::Comm {
                comm: Comm::new(comm),
            },
        )
    };
    table.apply(vec![
        exec(SECOND_NS, CHILD, "server"),
        renamed(SECOND_NS + 1, CHILD + 1, b"worker"),
    ]);
    let key = table.find(&seen(&table, CHILD, SECOND_NS, SECOND_NS + 1));
    assert_eq!(table.process(key).unwrap().comm(), Comm::new(b"server"));
    table.apply(vec![renamed(SECOND_NS + 2, CHILD, b"server: idle")]);
    assert_eq!(
        table.process(key).unwrap().comm(),
        Comm::new(b"server: idle")
    );
    // An older sample does not bring the older name back.
    table.find(&Sighting {
        leader_comm: Comm::new(b"server"),
        ..seen(&table, CHILD, SECOND_NS, SECOND_NS + 1)
    });
    assert_eq!(
        table.process(key).unwrap().comm(),
        Comm::new(b"server: idle")
    );
}

#[test]
fn processes_without_a_number_here_are_told_apart_by_their_start() {
    let mut table = table();
    let invisible = |start_time_ns, comm: &[u8]| Sighting {
        pid: 0,
        start_time_ns,
        time_ns: SECOND_NS,
        leader_comm: Comm::new(comm),
    };
    let idle = table.find(&invisible(0, b"swapper/0"));
    let other = table.find(&invisible(77, b"outside"));
    assert_ne!(idle, other);
    assert_eq!(table.find(&invisible(0, b"swapper/1")), idle);
    assert_eq!(table.find(&invisible(77, b"outside")), other);
    // Records that cannot say whom they mean change nobody.
    table.apply(vec![
        exec(SECOND_NS, 0, "x"),
        exec(SECOND_NS, u32::MAX, "y"),
    ]);
    assert_eq!(table.processes().count(), 2);
}

#[test]
fn lost_records_are_counted() {
    let mut table = table();
    table.apply(vec![record(5, 0, Event::Lost { records: 12 })]);
    assert_eq!(table.counters().lost_records, 12);
}

#[test]
fn a_hostile_proc_costs_the_process_that_wrote_it() {
    let root = tempfile::tempdir().unwrap();
    let process = |pid: u32, stat: &[u8], maps: &[u8]| {
        let directory = root.path().join(pid.to_string());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("stat"), stat).unwrap();
        fs::write(directory.join("comm"), b"\x1b]0;x\x07\xff\n").unwrap();
        fs::write(directory.join("maps"), maps).unwrap();
    };
    let stat = b"7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0";
    process(
        7,
        stat,
        b"1000-2000 r-xp 00000000 00:00 0   /etc/../dev/tty\n\xff\xfe\n",
    );
    process(8, b"garbage", b"");
    let mut table = ProcessTable::new(Procfs::new(root.path()), 16);
    table.scan(|_| true).unwrap();
    let (key, process) = table.processes().next().unwrap();
    assert_eq!(
        (process.pid(), process.comm()),
        (7, Comm::new(b"\x1b]0;x\x07\xff"))
    );
    let mapping = table.locate(key, u64::MAX, 0x1800).unwrap();
    assert!(matches!(
        mapping.backing,
        Backing::Unpinned { id: None, .. }
    ));
    assert_eq!(table.processes().count(), 1);
}
