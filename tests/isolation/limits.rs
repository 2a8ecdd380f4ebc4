//! Children that do not behave: what is noticed, and how soon it is over.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sampler::isolation::{Child, Limits, Lost, Parent, Service};

use crate::confined::{LIMITS, soon};
use crate::tool::{Outcome, fail, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_child_gets_no_more_memory_than_its_share", memory),
        trial("a_child_that_computes_for_ever_is_ended_by_the_kernel", cpu),
        trial("a_child_that_does_not_answer_is_not_waited_for", silence),
        trial("a_child_that_answers_nonsense_is_not_believed", nonsense),
        trial("a_child_that_crashes_is_noticed_at_once", crash),
        trial("a_child_ends_with_its_parent", parent_ends),
        trial("a_service_that_nobody_offers_is_an_error", no_service),
    ]
}

pub const SERVICES: [Service; 5] = [
    Service {
        name: "greedy",
        run: |parent| {
            let mut held: Vec<Vec<u8>> = Vec::new();
            loop {
                held.push(vec![1; 1 << 20]);
                if parent.send(&held.len()).is_err() {
                    return;
                }
            }
        },
    },
    Service {
        name: "busy",
        run: |_| loop {
            std::hint::spin_loop();
        },
    },
    Service {
        name: "liar",
        run: |parent| {
            let Ok((what, _)) = parent.receive::<u32>() else {
                return;
            };
            let _ = match what {
                0 => parent.send(&"x".repeat(1 << 20)),
                // Something else than was asked for, and something more.
                1 => parent.send(&u64::MAX),
                _ => parent.send(&(1_u8, 1_u8)),
            };
            wait(&parent);
        },
    },
    Service {
        name: "crash",
        run: |parent| {
            let Ok((what, _)) = parent.receive::<u32>() else {
                return;
            };
            match what {
                // SAFETY: nothing is ever mapped there; the process ends, as it is to.
                0 => unsafe { *(8 as *mut u8) = 1 },
                1 => std::process::abort(),
                2 => panic!("as asked"),
                _ => recurse(0),
            }
        },
    },
    Service {
        name: "silent",
        run: |parent| wait(&parent),
    },
];

fn wait(parent: &Parent) {
    while parent.receive::<u32>().is_ok() {}
}

#[expect(unconditional_recursion, reason = "until the stack is used up")]
fn recurse(depth: u64) {
    recurse(std::hint::black_box(depth + 1));
    std::hint::black_box(depth);
}

fn memory() -> Outcome {
    let limits = Limits {
        data_bytes: 64 << 20,
        ..LIMITS
    };
    let child = Child::start("greedy", limits)?;
    let mut most = 0;
    let lost = loop {
        match child.receive::<usize>(16, soon()) {
            Ok(held_mib) => most = held_mib,
            Err(lost) => break lost,
        }
    };
    if lost == Lost::Ended && (32..64).contains(&most) {
        Ok(())
    } else {
        fail(format!("{lost:?} at {most} MiB of 64"))
    }
}

fn cpu() -> Outcome {
    let child = Child::start("busy", LIMITS)?;
    child.allow_cpu(Duration::ZERO);
    match child.receive::<u32>(16, Instant::now() + Duration::from_secs(60)) {
        Err(Lost::Ended) => Ok(()),
        other => fail(format!("{other:?}")),
    }
}

fn silence() -> Outcome {
    let child = Child::start("silent", LIMITS)?;
    let begun = Instant::now();
    let answer = child.receive::<u32>(16, begun + Duration::from_millis(300));
    let waited = begun.elapsed();
    let pid = child.pid();
    drop(child);
    if answer != Err(Lost::TimedOut) || waited < Duration::from_millis(300) {
        return fail(format!("{answer:?} after {waited:?}"));
    }
    if fs::exists(format!("/proc/{pid}"))? {
        return fail("it outlived its handle");
    }
    Ok(())
}

fn nonsense() -> Outcome {
    for what in 0..3_u32 {
        let child = Child::start("liar", LIMITS)?;
        child.send(&what, None, soon())?;
        let answer = child.receive::<u8>(64, soon());
        if answer != Err(Lost::Nonsense) {
            return fail(format!("{what}: {answer:?}"));
        }
    }
    Ok(())
}

fn crash() -> Outcome {
    for what in 0..4_u32 {
        let child = Child::start("crash", LIMITS)?;
        if !child.is_ready() {
            return fail("not ready");
        }
        child.send(&what, None, soon())?;
        let answer = child.receive::<u8>(64, soon());
        if answer != Err(Lost::Ended) {
            return fail(format!("{what}: {answer:?}"));
        }
        if child.is_ready() {
            return fail("ready though it has ended");
        }
    }
    Ok(())
}

fn parent_ends() -> Outcome {
    let started = thread::spawn(|| Child::start("silent", LIMITS));
    let Ok(started) = started.join() else {
        return fail("the thread died");
    };
    let child = started?;
    let deadline = soon();
    while Instant::now() < deadline {
        let status = fs::read_to_string(format!("/proc/{}/status", child.pid()))?;
        if status.contains("State:\tZ") {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    fail("it outlived its parent")
}

fn no_service() -> Outcome {
    match Child::start("no such", LIMITS) {
        Err(_) => Ok(()),
        Ok(child) => fail(format!("{child:?}")),
    }
}
