//! The programs that run in the kernel.
//!
//! One file per hook: [`on_cpu`] takes a sample at each tick of the timer,
//! [`lifecycle`] keeps the set of processes in scope as they fork and end,
//! [`departure`] walks the last stack of a program before its memory goes,
//! [`whoami`] tells user space which pid namespace it lives in.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(
    internal_features,
    reason = "atomic exchange on bpfel is an intrinsic only"
)]

mod barrier;
mod copy;
mod departure;
mod lifecycle;
mod mapping;
mod maps;
mod on_cpu;
mod scope;
mod settings;
mod tables;
mod task;
mod unwind;
mod whoami;
mod window;

/// The kernel gives `bpf_get_stack` only to programs whose licence names the GPL.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could get here.
    loop {}
}
