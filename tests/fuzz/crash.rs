//! Tells whose code a process died in: a crash inside of the HDF5 library is not one of ours.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;

/// Before the signal's number and the object file, on standard output.
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
    // The first is this function.
    let object = frames[1..count.max(1)].iter().filter_map(|&frame| object_of(frame)).find(|object| {
        // The C library is where others go wrong.
        !["libc.", "libc-", "libpthread", "ld-linux"].iter().any(|name| object.contains(name))
    });
    let line = format!("{MARK}{signal} {}\n", object.as_deref().unwrap_or("unknown"));
    // SAFETY: the line has its length; the process ends here.
    unsafe {
        libc::write(1, line.as_ptr().cast(), line.len());
        libc::_exit(70);
    }
}

/// The file name of the program or library that holds an address.
fn object_of(frame: *mut c_void) -> Option<String> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the place is filled where the answer is not 0, and its name lives as long as the library.
    let path = unsafe {
        if libc::dladdr(frame, found.as_mut_ptr()) == 0 {
            return None;
        }
        CStr::from_ptr(found.assume_init().dli_fname)
    };
    Some(path.to_string_lossy().rsplit('/').next()?.to_owned())
}
