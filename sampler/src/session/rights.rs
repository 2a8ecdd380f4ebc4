//! The capabilities that a recording needs once everything is loaded, opened and
//! attached; the others are given up.

use super::options::{Options, Scope};
use crate::isolation::rights;
use crate::probe::host::privilege::{Capability, CapabilitySet, Privilege};
use crate::probe::host::sysctl::Sysctls;

/// `CAP_DAC_OVERRIDE`, `CAP_FOWNER` and `CAP_KILL`: the kernel's bits.
const DAC_OVERRIDE: u32 = 1;
const FOWNER: u32 = 3;
const KILL: u32 = 5;

/// For CPUs that come online: events, their rings, and the programs on them. For
/// processes that start: their mappings and files.
const ALWAYS: [Capability; 6] = [
    Capability::Bpf,
    Capability::Perfmon,
    Capability::IpcLock,
    Capability::SysPtrace,
    Capability::DacReadSearch,
    Capability::CheckpointRestore,
];

/// The capabilities to keep on this host, one bit each; all where it is not known
/// which there are.
pub(super) fn to_keep(options: &Options, sysctls: &Sysctls) -> u64 {
    match Privilege::read() {
        Ok(privilege) => kept(options, privilege.effective, sysctls),
        Err(_) => u64::MAX,
    }
}

/// Takes all other capabilities from this thread, and from those that it starts.
pub(super) fn give_up_all_but(kept: u64) {
    if let Err(error) = rights::keep_only(kept) {
        tracing::warn!(%error, "rights that are not needed any more cannot be given up");
    }
}

/// The capabilities to keep of these.
fn kept(options: &Options, effective: CapabilitySet, sysctls: &Sysctls) -> u64 {
    let mut kept = ALWAYS.iter().fold(0, |kept, one| kept | 1 << *one as u32);
    // It may be what stands for some of those.
    let stands_in = |one: &Capability| effective.grants(*one) && !effective.has(*one);
    if ALWAYS.iter().any(stands_in) || sysctls.restricts_events_to_admins() {
        kept |= 1 << Capability::SysAdmin as u32;
    }
    if options.overrides_permissions {
        kept |= 1 << DAC_OVERRIDE | 1 << FOWNER;
    }
    // It may run as another user, and gets the signals that we get.
    if matches!(options.scope, Scope::Command(_)) {
        kept |= 1 << KILL;
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::options::example;
    use super::*;

    const ROOT: CapabilitySet = CapabilitySet::ALL;

    fn usual() -> Sysctls {
        Sysctls {
            perf_event_paranoid: Some(2),
            ..Sysctls::default()
        }
    }

    fn has(set: u64, bit: u32) -> bool {
        set >> bit & 1 == 1
    }

    #[test]
    fn what_only_the_start_needs_is_given_up() {
        let kept = kept(&example(), ROOT, &usual());
        for bit in [
            DAC_OVERRIDE,
            FOWNER,
            KILL,
            Capability::SysAdmin as u32,
            Capability::SysResource as u32,
            Capability::Syslog as u32,
        ] {
            assert!(!has(kept, bit), "{bit}");
        }
        assert!(has(kept, Capability::Bpf as u32) && has(kept, Capability::SysPtrace as u32));
    }

    #[test]
    fn the_one_that_stands_for_others_is_kept_where_it_does() {
        let admin = Capability::SysAdmin as u32;
        assert!(has(
            kept(&example(), CapabilitySet(1 << admin), &usual()),
            admin
        ));
        let without = ROOT.without(Capability::Perfmon);
        assert!(has(kept(&example(), without, &usual()), admin));
    }

    #[test]
    fn kernels_that_let_only_admins_open_events_have_one() {
        let restricted = Sysctls {
            perf_event_paranoid: Some(3),
            ..usual()
        };
        let kept = kept(&example(), ROOT, &restricted);
        assert!(has(kept, Capability::SysAdmin as u32));
    }

    #[test]
    fn commands_get_signals_and_foreign_directories_get_files() {
        let command = Options {
            scope: Scope::Command(vec![OsString::from("true")]),
            ..example()
        };
        assert!(has(kept(&command, ROOT, &usual()), KILL));
        let foreign = Options {
            overrides_permissions: true,
            ..example()
        };
        assert!(has(kept(&foreign, ROOT, &usual()), DAC_OVERRIDE));
    }
}
