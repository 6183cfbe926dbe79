//! The side that libFuzzer drives: one process for one target, which is named in the environment. Must not know how the
//! processes are started.

use std::ffi::{CString, c_char, c_int};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;
use std::sync::OnceLock;

use crate::bound;
use crate::targets::{self, Target};

/// Which target the process runs.
pub const TARGET: &str = "DRIFTLESS_FUZZ_TARGET";
/// Where each input is written before it is read, so that it is known even where the process dies without a word, as it
/// does when its stack overflows.
pub const LAST_INPUT: &str = "DRIFTLESS_FUZZ_LAST_INPUT";

static CHOSEN: OnceLock<(Target, Option<File>)> = OnceLock::new();

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(
        argc: *mut c_int,
        argv: *mut *mut *mut c_char,
        callback: unsafe extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;
    fn LLVMFuzzerTestOneInput(data: *const u8, size: usize) -> c_int;
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((target, last_input)) = CHOSEN.get() else { return };
    if let Some(file) = last_input {
        let mut framed = (input.len() as u32).to_le_bytes().to_vec();
        framed.extend_from_slice(input);
        let _ = file.write_all_at(&framed, 0);
    }
    bound::within(input, || target(input));
});

/// The name in the environment, if this process is one that fuzzes.
pub fn wanted_target() -> Option<String> {
    std::env::var(TARGET).ok()
}

/// Hands the process over to libFuzzer, with the arguments that it was started with.
pub fn fuzz(name: &str) -> ExitCode {
    let Some(target) = targets::named(name) else {
        eprintln!("no target is called `{name}`: {}", targets::names().join(", "));
        return ExitCode::FAILURE;
    };
    let last_input = std::env::var_os(LAST_INPUT).and_then(|path| File::create(path).ok());
    let _ = CHOSEN.set((target, last_input));
    let arguments: Vec<CString> =
        std::env::args().filter_map(|argument| CString::new(argument).ok()).collect();
    let mut pointers: Vec<*mut c_char> =
        arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    let mut count = arguments.len() as c_int;
    let mut start = pointers.as_mut_ptr();
    // SAFETY: `count` strings that end in zero, and a null behind them, all of which outlive the call.
    let code = unsafe { LLVMFuzzerRunDriver(&mut count, &mut start, LLVMFuzzerTestOneInput) };
    if code == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The input that was read last, by a file that [`LAST_INPUT`] named.
pub fn last_input(file: &[u8]) -> Option<&[u8]> {
    let (length, rest) = file.split_first_chunk::<4>()?;
    rest.get(..u32::from_le_bytes(*length) as usize)
}
