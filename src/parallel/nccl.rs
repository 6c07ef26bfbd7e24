//! All-reduce in GPU memory by NCCL.
//!
//! No call blocks forever: the communicator is created and used in NCCL's non-blocking mode, and every wait ends when NCCL reports
//! an error or the watchdog ends the job. After an error the job must be aborted as a whole: `ncclCommAbort` waits for every CUDA graph that has
//! captured an all-reduce, and may never return, so it is not called. In the normal case, [`Nccl::finish`] destroys the
//! communicator.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;
use std::time::Duration;

use cudarc::nccl::{result, sys};

use super::{Collective, Watch};
use crate::error::{Error, Result};

/// An NCCL communicator over the ranks of a group, one GPU per rank.
pub struct Nccl {
    communicator: sys::ncclComm_t,
    watch: Arc<Watch>,
}

/// Version of NCCL as one number (22,803 for 2.28.3); `None` without the library.
pub fn version() -> Option<i32> {
    // SAFETY: loading the library runs its initialisers, which have no preconditions.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    result::get_nccl_version().ok()
}

/// True if NCCL 2.14 or newer is present: the first version with a non-blocking mode.
pub fn usable() -> bool {
    version().is_some_and(|version| version >= 21_400)
}

/// True if NCCL accepts several ranks on one GPU: version 2.30 or newer, with NCCL_MULTI_RANK_GPU_ENABLE=1.
pub fn shares_gpus() -> bool {
    version().is_some_and(|version| version >= 23_000)
        && std::env::var("NCCL_MULTI_RANK_GPU_ENABLE").is_ok_and(|value| value == "1")
}

impl Nccl {
    /// Creates the communicator for the ranks of `group`, each with the current GPU of its thread. Collective.
    ///
    /// # Errors
    /// When NCCL fails.
    pub fn connect(group: &Collective) -> Result<Self> {
        let mut id = sys::ncclUniqueId { internal: [0; 128] };
        let mut created = true;
        if group.rank() == 0 {
            match result::get_uniqueid() {
                Ok(unique) => id = unique,
                Err(_) => created = false,
            }
        }
        // `c_char` is signed on some architectures.
        let mut bytes = id.internal.map(|byte| byte as u8).to_vec();
        bytes.push(u8::from(created));
        group.broadcast(&mut bytes);
        if bytes.pop() != Some(1) {
            return Err(nccl_error(
                std::ptr::null_mut(),
                "create a communicator identifier",
                sys::ncclResult_t::ncclSystemError,
            ));
        }
        for (to, from) in id.internal.iter_mut().zip(bytes) {
            *to = from as std::ffi::c_char;
        }
        let mut this = Self { communicator: std::ptr::null_mut(), watch: Arc::clone(group.watch()) };
        let mut config = configuration();
        // SAFETY: the identifier is that of rank 0, the ranks are those of the group, and NCCL copies the configuration.
        let outcome = unsafe {
            sys::ncclCommInitRankConfig(
                &raw mut this.communicator,
                group.size() as c_int,
                id,
                group.rank() as c_int,
                &raw mut config,
            )
        };
        this.settle(outcome, "connect the ranks")?;
        Ok(this)
    }

    /// Waits until NCCL has accepted a call that returned `outcome`. The operation itself runs asynchronously in its stream.
    fn settle(&mut self, outcome: sys::ncclResult_t, action: &'static str) -> Result<()> {
        let mut state = outcome;
        if state == sys::ncclResult_t::ncclInProgress {
            self.watch.begin("NCCL");
            while state == sys::ncclResult_t::ncclInProgress {
                std::thread::sleep(Duration::from_micros(50));
                state = self.state();
            }
            self.watch.end();
        }
        if state == sys::ncclResult_t::ncclSuccess {
            return Ok(());
        }
        Err(nccl_error(self.communicator, action, state))
    }

    fn state(&self) -> sys::ncclResult_t {
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator exists once a call has returned "in progress".
        let outcome = unsafe { sys::ncclCommGetAsyncError(self.communicator, &raw mut state) };
        if outcome == sys::ncclResult_t::ncclSuccess { state } else { outcome }
    }

    /// Enqueues an in-place all-reduce (sum) of `length` f32 values at device address `buffer` in `stream`.
    ///
    /// # Errors
    /// When NCCL fails.
    ///
    /// # Safety
    /// `buffer` must point to `length` f32 values in memory of the current GPU, and `stream` must be a stream of that GPU.
    pub unsafe fn all_reduce_sum(&mut self, buffer: u64, length: usize, stream: *mut c_void) -> Result<()> {
        // SAFETY: guaranteed by the caller.
        let outcome = unsafe {
            sys::ncclAllReduce(
                buffer as *const c_void,
                buffer as *mut c_void,
                length,
                sys::ncclDataType_t::ncclFloat32,
                sys::ncclRedOp_t::ncclSum,
                self.communicator,
                stream.cast(),
            )
        };
        self.settle(outcome, "sum the gradient")
    }

    /// Checks for an asynchronous error of NCCL.
    ///
    /// # Errors
    /// When NCCL or another rank has failed.
    pub fn check(&mut self) -> Result<()> {
        match self.state() {
            sys::ncclResult_t::ncclSuccess | sys::ncclResult_t::ncclInProgress => Ok(()),
            state => self.settle(state, "sum the gradient"),
        }
    }

    /// Destroys the communicator. Collective; all CUDA graphs that captured an all-reduce must have been dropped.
    ///
    /// # Errors
    /// When NCCL fails.
    pub fn finish(mut self) -> Result<()> {
        // SAFETY: the communicator exists, and `self` is consumed, so it is finalised once.
        let outcome = unsafe { sys::ncclCommFinalize(self.communicator) };
        self.settle(outcome, "disconnect the ranks")?;
        // SAFETY: it was finalised above.
        let outcome = unsafe { sys::ncclCommDestroy(self.communicator) };
        if outcome == sys::ncclResult_t::ncclSuccess {
            return Ok(());
        }
        Err(nccl_error(std::ptr::null_mut(), "disconnect the ranks", outcome))
    }
}

const REMEDY: &str = "set NCCL_DEBUG=INFO to see why, or use --collective mpi";

/// The error for a failed call, with NCCL's message.
fn nccl_error(communicator: sys::ncclComm_t, action: &'static str, state: sys::ncclResult_t) -> Error {
    // SAFETY: both return null, or a NUL-terminated string that lives as long as the library.
    let (what, why) = unsafe {
        let text = |text: *const std::ffi::c_char| {
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        };
        (text(sys::ncclGetErrorString(state)), text(sys::ncclGetLastError(communicator)))
    };
    Error::Device {
        device: "NCCL".into(),
        action: action.into(),
        reason: [what, why].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(": "),
        remedy: REMEDY.into(),
    }
}

/// NCCL's default configuration in non-blocking mode.
fn configuration() -> sys::ncclConfig_t {
    // NCCL_CONFIG_INITIALIZER: a C macro, which the bindings lack.
    const MAGIC: u32 = 0xcafe_beef;
    const VERSION: u32 = 23_000;
    const UNDEFINED: c_int = c_int::MIN;
    sys::ncclConfig_t {
        size: size_of::<sys::ncclConfig_t>(),
        magic: MAGIC,
        version: VERSION,
        blocking: 0,
        cgaClusterSize: UNDEFINED,
        minCTAs: UNDEFINED,
        maxCTAs: UNDEFINED,
        netName: std::ptr::null(),
        splitShare: UNDEFINED,
        trafficClass: UNDEFINED,
        commName: std::ptr::null(),
        collnetEnable: UNDEFINED,
        CTAPolicy: UNDEFINED,
        shrinkShare: UNDEFINED,
        nvlsCTAs: UNDEFINED,
        nChannelsPerNetPeer: UNDEFINED,
        nvlinkCentricSched: UNDEFINED,
        graphUsageMode: UNDEFINED,
        numRmaCtx: UNDEFINED,
        maxP2pPeers: UNDEFINED,
    }
}
