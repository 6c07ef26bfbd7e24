//! Tells whose code a process died in: what the HDF5 library does on damaged bytes is not ours to mend.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;

/// Before the signal's number and the place, on standard output.
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
    // The first is this function; the C library is where others go wrong.
    let place = frames[1..count.max(1)].iter().filter_map(|&frame| place_of(frame)).find(|place| {
        !["libc.", "libc-", "libpthread", "ld-linux"].iter().any(|name| place.starts_with(name))
    });
    let line = format!("{MARK}{signal} {}\n", place.as_deref().unwrap_or("unknown"));
    // SAFETY: the line has its length; the process ends here.
    unsafe {
        libc::write(1, line.as_ptr().cast(), line.len());
        libc::_exit(70);
    }
}

/// The program or library that holds an address, and the function, where that has a name.
fn place_of(frame: *mut c_void) -> Option<String> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the place is filled where the answer is not 0, and its names live as long as the library.
    let (path, function) = unsafe {
        if libc::dladdr(frame, found.as_mut_ptr()) == 0 {
            return None;
        }
        let found = found.assume_init();
        let function = (!found.dli_sname.is_null()).then(|| CStr::from_ptr(found.dli_sname));
        (CStr::from_ptr(found.dli_fname).to_string_lossy(), function.map(CStr::to_string_lossy))
    };
    Some(format!("{} {}", path.rsplit('/').next()?, function.unwrap_or_default()).trim_end().to_owned())
}
