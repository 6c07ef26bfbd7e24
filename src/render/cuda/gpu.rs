//! An opened GPU: its context and streams, its memory, and errors that name it.

use std::sync::Arc;

use cudarc::driver::sys::{CUdevice_attribute, CUdeviceptr, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream, DriverError, result};

use crate::error::{Error, Result};

/// A GPU that this process has opened.
pub struct Gpu {
    /// The device's primary context.
    pub context: Arc<CudaContext>,
    /// Stream of the steps.
    pub stream: Arc<CudaStream>,
    /// Stream of copies from the host, concurrent with the steps.
    pub copies: Arc<CudaStream>,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Number of multiprocessors.
    pub multiprocessors: usize,
    name: String,
}

/// Number of GPUs visible to this process; 0 without a driver, or where it cannot start.
pub fn count() -> usize {
    visible().unwrap_or(0)
}

/// Number of GPUs visible to this process; 0 without a driver.
///
/// # Errors
/// When there is a driver that cannot start, with its code and what usually mends it.
pub fn visible() -> Result<usize> {
    if !super::libraries::driver_present() {
        return Ok(0);
    }
    match result::init().and_then(|()| CudaContext::device_count()) {
        Ok(count) => Ok(count.max(0) as usize),
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        Err(error) => Err(Error::request(
            format!("the GPU driver cannot start: error {}, {}", error.0 as u32, text(error)),
            remedy_of_start(error.0),
        )),
    }
}

/// What usually mends a driver that cannot start.
fn remedy_of_start(code: CUresult) -> &'static str {
    match code {
        CUresult::CUDA_ERROR_STUB_LIBRARY => {
            "remove the folder `stubs` of the CUDA toolkit from LD_LIBRARY_PATH: its libcuda.so is for linking only"
        }
        CUresult::CUDA_ERROR_SYSTEM_NOT_READY => {
            "start the node's fabric manager (`systemctl status nvidia-fabricmanager`), or use --device cpu"
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "restart the node: its kernel module and libcuda.so.1 are of different driver versions"
        }
        CUresult::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "remove the folder `compat` of the CUDA toolkit from LD_LIBRARY_PATH: its libcuda.so.1 does not support this GPU"
        }
        _ => "check `nvidia-smi` and the system's kernel log on this node, or use --device cpu",
    }
}

/// A number that identifies GPU `ordinal` among the GPUs of all machines.
///
/// # Errors
/// When the driver refuses.
pub fn identity(ordinal: usize) -> Result<u64> {
    let uuid = CudaContext::new(ordinal)
        .and_then(|context| context.uuid())
        .map_err(|error| failure(&format!("device {ordinal}"), "report its identity", error))?;
    // `c_char` is signed on some platforms.
    let bytes = uuid.bytes.map(|byte| byte as u8);
    let (high, low) = bytes.split_at(8);
    let word = |half: &[u8]| half.iter().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    // The product makes the result depend on the order of the halves.
    Ok(word(high).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word(low))
}

impl Gpu {
    /// Opens device `ordinal` of those visible to this process.
    ///
    /// # Errors
    /// When a library is missing, or the driver refuses.
    pub fn open(ordinal: usize) -> Result<Self> {
        super::libraries::require()?;
        let fail = |action: &'static str| {
            move |error: DriverError| failure(&format!("device {ordinal}"), action, error)
        };
        let context = CudaContext::new(ordinal).map_err(fail("open the device"))?;
        // SAFETY: events order every use of a buffer on this GPU's two streams. cudarc's own event tracking cannot be captured
        // in a graph.
        unsafe { context.disable_event_tracking() };
        let name = context.name().map_err(fail("report its name"))?;
        let capability = context.compute_capability().map_err(fail("report its compute capability"))?;
        let multiprocessors = context
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(fail("report its number of multiprocessors"))?;
        let stream = context.new_stream().map_err(fail("make a stream"))?;
        let copies = context.new_stream().map_err(fail("make a stream"))?;
        Ok(Self {
            name: format!("{name} (device {ordinal})"),
            context,
            stream,
            copies,
            capability,
            multiprocessors: multiprocessors.max(1) as usize,
        })
    }

    /// "NVIDIA H100 80GB HBM3 (device 0)".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Converts a driver error into one that names this GPU; used as `.map_err(gpu.failed("render"))`.
    pub fn failed(&self, action: &'static str) -> impl FnOnce(DriverError) -> Error + use<'_> {
        move |error| failure(&self.name, action, error)
    }

    /// A new event, without timing.
    pub(super) fn event(&self) -> Result<CudaEvent> {
        self.context.new_event(None).map_err(self.failed("make an event"))
    }

    /// Records `event` in `stream`.
    pub(super) fn record(&self, event: &CudaEvent, stream: &CudaStream) -> Result<()> {
        event.record(stream).map_err(self.failed("order its streams"))
    }

    /// Lets `stream` wait for `event`.
    pub(super) fn order(&self, stream: &CudaStream, event: &CudaEvent) -> Result<()> {
        stream.wait(event).map_err(self.failed("order its streams"))
    }

    /// Free and total memory in bytes.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.context.mem_get_info().map_err(self.failed("report its free memory"))
    }

    /// Copies `values` to the start of `buffer`, and waits.
    ///
    /// # Errors
    /// When the driver refuses.
    ///
    /// # Panics
    /// If the buffer is shorter.
    pub(super) fn upload<T: bytemuck::NoUninit>(&self, buffer: &Buffer, values: &[T]) -> Result<()> {
        let bytes = bytemuck::cast_slice::<T, u8>(values);
        assert!(bytes.len() <= buffer.bytes());
        // SAFETY: the buffer has room, and `values` lives until the copy has ended.
        unsafe { result::memcpy_htod_async(buffer.address(), bytes, self.stream.cu_stream()) }
            .and_then(|()| self.stream.synchronize())
            .map_err(self.failed("copy to the device"))
    }

    /// Allocates zeroed device memory; `what` names it in an error.
    ///
    /// # Errors
    /// When memory does not suffice, with the numbers.
    pub(super) fn allocate(&self, what: &str, bytes: usize) -> Result<Buffer> {
        // The driver refuses an allocation of 0 bytes.
        let slice = self.stream.alloc_zeros::<u8>(bytes.max(1)).map_err(|error| {
            if error.0 != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return failure(&self.name, "allocate memory", error);
            }
            let free = self.memory().map_or(0, |(free, _)| free);
            Error::Device {
                device: self.name.clone(),
                action: format!("hold the {what}"),
                reason: format!("{bytes} bytes are needed, but only {free} are free"),
                remedy: "use fewer --gaussians, a smaller --batch, --cache host, or a GPU without other jobs"
                    .into(),
            }
        })?;
        // The other stream may write to the buffer at once.
        self.stream.synchronize().map_err(self.failed("allocate memory"))?;
        Ok(Buffer::new(slice, &self.stream))
    }
}

/// Device memory at a fixed address, freed when dropped.
pub(super) struct Buffer {
    // Owns the memory; only the address is used.
    _slice: CudaSlice<u8>,
    bytes: usize,
    address: CUdeviceptr,
}

impl Buffer {
    fn new(slice: CudaSlice<u8>, stream: &Arc<CudaStream>) -> Self {
        use cudarc::driver::DevicePtr;
        let address = slice.device_ptr(stream).0;
        Self { bytes: slice.num_bytes(), _slice: slice, address }
    }

    /// Address of the first byte.
    pub fn address(&self) -> CUdeviceptr {
        self.address
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Name and description of a driver error.
pub(super) fn text(error: DriverError) -> String {
    let text = |text: std::result::Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| "unknown".into(), |text| text.to_string_lossy().into_owned())
    };
    format!("{}, {}", text(error.error_name()), text(error.error_string()))
}

/// A driver error as an [`Error`], with a remedy.
fn failure(device: &str, action: &str, error: DriverError) -> Error {
    let remedy = match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => "use fewer --gaussians, a smaller --batch, or --cache host",
        CUresult::CUDA_ERROR_NO_DEVICE | CUresult::CUDA_ERROR_INVALID_DEVICE => {
            "check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use --device cpu"
        }
        _ => "check `nvidia-smi` and the system's kernel log; if it happens again, report it with the log",
    };
    Error::Device {
        device: device.to_owned(),
        action: action.to_owned(),
        reason: text(error),
        remedy: remedy.into(),
    }
}
