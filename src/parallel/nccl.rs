//! The sum over ranks in the memory of their GPUs, by NCCL.
//!
//! Nothing here blocks for ever: the communicator is made and used in NCCL's non-blocking mode, and every wait ends when NCCL
//! reports an error or patience ends. Then the whole job must end: NCCL's own abort waits for every graph that has captured
//! a sum, and may never return, so it is not called. In order, [`Nccl::finish`] gives a communicator back.

use std::ffi::{CStr, c_int, c_void};
use std::time::{Duration, Instant};

use cudarc::nccl::{result, sys};

use super::Collective;
use crate::error::{Error, Result};

/// A communicator of NCCL over the ranks of a group, one GPU each.
pub struct Nccl {
    communicator: sys::ncclComm_t,
    patience: Duration,
}

/// NCCL's version as one number, 2.28.3 as 22,803; `None` where the library is not there.
pub fn version() -> Option<i32> {
    // SAFETY: opening the library runs its initialisers, which is what it is there for.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    result::get_nccl_version().ok()
}

/// Is an NCCL there that can be used: 2.14, the first that need not block, or newer?
pub fn usable() -> bool {
    version().is_some_and(|version| version >= 21_400)
}

/// Does this NCCL take several ranks on one GPU?
pub fn shares_gpus() -> bool {
    version().is_some_and(|version| version >= 23_000)
        && std::env::var("NCCL_MULTI_RANK_GPU_ENABLE").is_ok_and(|value| value == "1")
}

impl Nccl {
    /// Joins the ranks of `group`, the GPU of each of which is the current one of its thread. Every rank calls it.
    ///
    /// # Errors
    /// When NCCL refuses, or not all ranks arrive within `patience`.
    pub fn start(group: &Collective, patience: Duration) -> Result<Self> {
        let mut id = sys::ncclUniqueId { internal: [0; 128] };
        let mut made = true;
        if group.rank() == 0 {
            match result::get_uniqueid() {
                Ok(unique) => id = unique,
                Err(_) => made = false,
            }
        }
        // `c_char` has a sign on some processors.
        let mut bytes = id.internal.map(|byte| byte as u8).to_vec();
        bytes.push(u8::from(made));
        group.broadcast(&mut bytes);
        if bytes.pop() != Some(1) {
            return Err(refusal(
                std::ptr::null_mut(),
                "make an identifier",
                sys::ncclResult_t::ncclSystemError,
            ));
        }
        for (to, from) in id.internal.iter_mut().zip(bytes) {
            *to = from as std::ffi::c_char;
        }
        let mut this = Self { communicator: std::ptr::null_mut(), patience };
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
        this.settle(outcome, "join the ranks")?;
        Ok(this)
    }

    /// Waits until a call that returned `outcome` has been taken; the work itself goes on in its stream.
    fn settle(&mut self, outcome: sys::ncclResult_t, action: &'static str) -> Result<()> {
        let started = Instant::now();
        let mut state = outcome;
        while state == sys::ncclResult_t::ncclInProgress {
            if started.elapsed() > self.patience {
                return Err(Error::Device {
                    device: "NCCL".into(),
                    action: action.into(),
                    reason: format!("not all ranks came within {:.0} s", self.patience.as_secs_f64()),
                    remedy: REMEDY.into(),
                });
            }
            std::thread::sleep(Duration::from_micros(50));
            state = self.state();
        }
        if state == sys::ncclResult_t::ncclSuccess {
            return Ok(());
        }
        Err(refusal(self.communicator, action, state))
    }

    fn state(&self) -> sys::ncclResult_t {
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator is there from the first call on that returned "in progress".
        let outcome = unsafe { sys::ncclCommGetAsyncError(self.communicator, &raw mut state) };
        if outcome == sys::ncclResult_t::ncclSuccess { state } else { outcome }
    }

    /// Puts the sum over the ranks of `length` f32 values at device address `buffer` into `stream`, in place.
    ///
    /// # Errors
    /// When NCCL refuses.
    ///
    /// # Safety
    /// `buffer` is as much memory of the current GPU, and `stream` is one of its streams.
    pub unsafe fn sum(&mut self, buffer: u64, length: usize, stream: *mut c_void) -> Result<()> {
        // SAFETY: the caller's word.
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
        self.settle(outcome, "add up the gradient")
    }

    /// Looks whether NCCL or another rank has failed.
    ///
    /// # Errors
    /// When one has.
    pub fn check(&mut self) -> Result<()> {
        match self.state() {
            sys::ncclResult_t::ncclSuccess | sys::ncclResult_t::ncclInProgress => Ok(()),
            state => self.settle(state, "add up the gradient"),
        }
    }

    /// How long ranks may wait for each other.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Gives the communicator back. Every rank calls it, after all graphs that captured a sum are gone.
    ///
    /// # Errors
    /// When NCCL refuses, or not all ranks arrive in time.
    pub fn finish(mut self) -> Result<()> {
        // SAFETY: the communicator is there, and is given back once.
        let outcome = unsafe { sys::ncclCommFinalize(self.communicator) };
        self.settle(outcome, "part the ranks")?;
        // SAFETY: finalised just now.
        let outcome = unsafe { sys::ncclCommDestroy(self.communicator) };
        if outcome == sys::ncclResult_t::ncclSuccess {
            return Ok(());
        }
        Err(refusal(std::ptr::null_mut(), "part the ranks", outcome))
    }
}

const REMEDY: &str = "set NCCL_DEBUG=INFO to see why, or use --collective mpi";

/// NCCL's words about a failure.
fn refusal(communicator: sys::ncclComm_t, action: &'static str, state: sys::ncclResult_t) -> Error {
    // SAFETY: both return texts that end with a zero byte and live as long as the library, or nothing.
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

/// NCCL's default configuration, but non-blocking.
fn configuration() -> sys::ncclConfig_t {
    // What ncclConfig_t starts with; the macro that does this in C is not in the bindings.
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
