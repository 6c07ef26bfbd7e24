//! Tells whose code a process died in: what the HDF5 library does on damaged bytes is not ours to mend.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;

/// On standard output before the signal's number, the program or library, its function, and what that called of the C library.
pub const MARK: &str = "\n@crashed ";

const SIGNALS: [c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGPROF];
const FRAMES: usize = 200;

unsafe extern "C" {
    // Of the C library; it may take memory the first time only.
    fn backtrace(frames: *mut *mut c_void, size: c_int) -> c_int;
}

/// From now on a signal that ends the process says where, and so does [`expect_an_end`].
pub fn report_crashes() {
    let mut frames = [std::ptr::null_mut(); FRAMES];
    // SAFETY: the frames have a place; the actions are whole, and the stack for signals is never freed.
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

/// What comes must end within so many seconds of processor time; 0 ends that.
pub fn expect_an_end(seconds: i64) {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: none, it_value: libc::timeval { tv_sec: seconds, ..none } };
    // SAFETY: the timer is whole.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };
}

extern "C" fn on_signal(signal: c_int) {
    let mut frames = [std::ptr::null_mut(); FRAMES];
    // SAFETY: the frames have a place, of which the first `count` are filled.
    let count = unsafe { backtrace(frames.as_mut_ptr(), FRAMES as c_int) }.max(0) as usize;
    // The C library is where others go wrong: what they called there, and who they are. The first frame is this function.
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
    // Nothing here takes memory: what keeps its books may be what is broken.
    let words =
        [MARK.as_bytes(), &number, b" ", file, b" ", function.to_bytes(), b" ", called.to_bytes(), b"\n"];
    for word in words {
        // SAFETY: the word has its length.
        unsafe { libc::write(1, word.as_ptr().cast(), word.len()) };
    }
    // SAFETY: the process ends here.
    unsafe { libc::_exit(70) };
}

/// How the files of the C library begin.
const C_LIBRARY: [&[u8]; 4] = [b"libc.", b"libc-", b"libpthread", b"ld-linux"];

/// The program or library that holds an address, and the function, where that has a name.
fn place_of(frame: *mut c_void) -> Option<(&'static CStr, &'static CStr)> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the place is filled where the answer is not 0, and its names live as long as the library, which stays.
    unsafe {
        if libc::dladdr(frame, found.as_mut_ptr()) == 0 {
            return None;
        }
        let found = found.assume_init();
        let function = if found.dli_sname.is_null() { c"" } else { CStr::from_ptr(found.dli_sname) };
        Some((CStr::from_ptr(found.dli_fname), function))
    }
}
