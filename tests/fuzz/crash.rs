//! Reports whose code a process crashed in: crashes of the HDF5 library on damaged files cannot be fixed here.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;

/// Marks a crash report on standard output. The signal number, the program or library, its function, and the function that it
/// called in the C library follow.
pub const MARK: &str = "\n@crashed ";

const SIGNALS: [c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGPROF];
const FRAMES: usize = 200;

unsafe extern "C" {
    // From the C library. It allocates only on the first call.
    fn backtrace(frames: *mut *mut c_void, size: c_int) -> c_int;
}

/// Installs handlers that report where a fatal signal, or the timeout of [`expect_an_end`], occurred.
pub fn report_crashes() {
    let mut frames = [std::ptr::null_mut(); FRAMES];
    // SAFETY: the frames are writable, the actions are initialised, and the signal stack is never freed.
    unsafe {
        backtrace(frames.as_mut_ptr(), FRAMES as c_int);
        let stack = vec![0u8; 1 << 20].leak();
        let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
        libc::sigaltstack(&stack, std::ptr::null_mut());
        for signal in SIGNALS {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = on_signal as extern "C" fn(c_int) as usize;
            action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Sets a limit of this many seconds of CPU time; 0 removes it.
pub fn expect_an_end(seconds: i64) {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: none, it_value: libc::timeval { tv_sec: seconds, ..none } };
    // SAFETY: the timer is initialised.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };
}

extern "C" fn on_signal(signal: c_int) {
    let mut frames = [std::ptr::null_mut(); FRAMES];
    // SAFETY: the frames are writable, and the first `count` are initialised.
    let count = unsafe { backtrace(frames.as_mut_ptr(), FRAMES as c_int) }.max(0) as usize;
    // Faults often occur in the C library: report its function and the caller. The first frame is this function.
    let (mut called, mut place) = (c"", None);
    for &frame in &frames[1..count.max(1)] {
        let Some((file, function)) = place_of(frame) else { continue };
        let name = file.to_bytes();
        let name = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
        if !C_LIBRARY.iter().any(|library| name.starts_with(library)) {
            place = Some((name, function));
            break;
        }
        called = function;
    }
    let (file, function) = place.unwrap_or((b"unknown", c""));
    let number = [b'0' + (signal / 10) as u8, b'0' + (signal % 10) as u8];
    // Does not allocate, because the heap may be corrupt.
    let words =
        [MARK.as_bytes(), &number, b" ", file, b" ", function.to_bytes(), b" ", called.to_bytes(), b"\n"];
    for word in words {
        // SAFETY: the pointer and the length are of the same slice.
        unsafe { libc::write(1, word.as_ptr().cast(), word.len()) };
    }
    // SAFETY: terminates the process.
    unsafe { libc::_exit(70) };
}

/// File-name prefixes of the C library.
const C_LIBRARY: [&[u8]; 4] = [b"libc.", b"libc-", b"libpthread", b"ld-linux"];

/// The program or library at an address, and the function, if it has a name.
fn place_of(frame: *mut c_void) -> Option<(&'static CStr, &'static CStr)> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the result is initialised if the return value is not 0, and its names live as long as the loaded library.
    unsafe {
        if libc::dladdr(frame, found.as_mut_ptr()) == 0 {
            return None;
        }
        let found = found.assume_init();
        let function = if found.dli_sname.is_null() { c"" } else { CStr::from_ptr(found.dli_sname) };
        Some((CStr::from_ptr(found.dli_fname), function))
    }
}
