//! What user space wrote into the object before it was loaded.

use core::mem::MaybeUninit;

use sampler_common::Settings;

/// Overwritten by the loader, then frozen. `MaybeUninit` keeps the compiler
/// from believing the zeros that stand here.
#[unsafe(no_mangle)]
static SETTINGS: MaybeUninit<Settings> = MaybeUninit::zeroed();

/// Reads one field. A volatile read of just this field, so that the verifier
/// sees a constant and the compiler does not.
macro_rules! setting {
    ($($field:ident).+) => {{
        // SAFETY: the loader has written all of it, and every bit pattern of
        // its integers is valid.
        #[allow(unused_unsafe, reason = "it may stand inside another such block")]
        let value = unsafe {
            core::ptr::read_volatile(&raw const (*$crate::settings::pointer()).$($field).+)
        };
        value
    }};
}
pub(crate) use setting;

/// Where the settings are.
#[inline(always)]
pub fn pointer() -> *const Settings {
    SETTINGS.as_ptr()
}
