//! One GPU, opened: its context, its streams, what it is, and errors that name it.

use std::sync::Arc;

use cudarc::driver::sys::{CUdevice_attribute, CUdeviceptr, CUresult};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DriverError, result};

use crate::error::{Error, Result};

/// A GPU that this process computes on.
pub struct Card {
    /// Its context.
    pub context: Arc<CudaContext>,
    /// Where steps run, in order.
    pub stream: Arc<CudaStream>,
    /// Where particles are copied to it, beside the steps.
    pub copies: Arc<CudaStream>,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Multiprocessors.
    pub processors: usize,
    name: String,
}

/// How many GPUs this process sees; 0 where there is no driver.
pub fn count() -> usize {
    if !super::libraries::driver_present() {
        return 0;
    }
    if result::init().is_err() {
        return 0;
    }
    CudaContext::device_count().map_or(0, |count| count.max(0) as usize)
}

/// A number that tells GPU `ordinal` from all others, on any machine.
///
/// # Errors
/// When the driver refuses.
pub fn identity(ordinal: usize) -> Result<u64> {
    let uuid = CudaContext::new(ordinal)
        .and_then(|context| context.uuid())
        .map_err(|error| failure(&format!("device {ordinal}"), "tell its identity", error))?;
    // `c_char` has a sign on some processors.
    let bytes = uuid.bytes.map(|byte| byte as u8);
    let (high, low) = bytes.split_at(8);
    let word = |half: &[u8]| half.iter().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    // A product keeps the halves apart from their exchange.
    Ok(word(high).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word(low))
}

impl Card {
    /// Opens device `ordinal`, counted among those that this process sees.
    ///
    /// # Errors
    /// When a library is missing, or the driver refuses.
    pub fn open(ordinal: usize) -> Result<Self> {
        super::libraries::require()?;
        let fail = |action: &'static str| {
            move |error: DriverError| failure(&format!("device {ordinal}"), action, error)
        };
        let context = CudaContext::new(ordinal).map_err(fail("open the device"))?;
        // SAFETY: every buffer is used on the streams of this card in an order that its events decide; what cudarc would
        // record of each use cannot be captured in a graph.
        unsafe { context.disable_event_tracking() };
        let name = context.name().map_err(fail("tell its name"))?;
        let capability = context.compute_capability().map_err(fail("tell its compute capability"))?;
        let processors = context
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(fail("tell its multiprocessors"))?;
        let stream = context.new_stream().map_err(fail("make a stream"))?;
        let copies = context.new_stream().map_err(fail("make a stream"))?;
        Ok(Self {
            name: format!("{name} (device {ordinal})"),
            context,
            stream,
            copies,
            capability,
            processors: processors.max(1) as usize,
        })
    }

    /// "NVIDIA H100 80GB HBM3 (device 0)".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An error that names this card; use as `.map_err(card.failed("render"))`.
    pub fn failed(&self, action: &'static str) -> impl FnOnce(DriverError) -> Error + use<'_> {
        move |error| failure(&self.name, action, error)
    }

    /// Free and total memory in bytes.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.context.mem_get_info().map_err(self.failed("tell its free memory"))
    }

    /// Zeros in device memory; `what` for.
    ///
    /// # Errors
    /// When there is not enough, with the numbers.
    pub fn allocate(&self, what: &str, bytes: usize) -> Result<Buffer> {
        // An allocation of nothing is refused.
        let slice = self.stream.alloc_zeros::<u8>(bytes.max(1)).map_err(|error| {
            if error.0 != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return failure(&self.name, "allocate memory", error);
            }
            let free = self.memory().map_or(0, |(free, _)| free);
            Error::Device {
                device: self.name.clone(),
                action: format!("hold the {what}"),
                reason: format!("{bytes} bytes are wanted, and {free} are free"),
                remedy:
                    "use fewer --gaussians, a smaller --batch, --cache host, or a GPU that nobody else uses"
                        .into(),
            }
        })?;
        // The zeros must be there before the other stream writes anything else.
        self.stream.synchronize().map_err(self.failed("allocate memory"))?;
        Ok(Buffer::new(slice, &self.stream))
    }
}

/// Device memory at a fixed address.
pub struct Buffer {
    // Held for its memory: the address is what is used.
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

    /// Where it starts, as kernels take it.
    pub fn address(&self) -> CUdeviceptr {
        self.address
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The driver's words about a failure, and what to do.
pub fn failure(device: &str, action: &str, error: DriverError) -> Error {
    let text = |text: std::result::Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| "unknown".into(), |text| text.to_string_lossy().into_owned())
    };
    let remedy = match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => "use fewer --gaussians, a smaller --batch, or --cache host",
        CUresult::CUDA_ERROR_NO_DEVICE | CUresult::CUDA_ERROR_INVALID_DEVICE => {
            "check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or compute with --device cpu"
        }
        _ => "look at `nvidia-smi` and the kernel's log; if it comes again, report it with the log",
    };
    Error::Device {
        device: device.to_owned(),
        action: action.to_owned(),
        reason: format!("{}, {}", text(error.error_name()), text(error.error_string())),
        remedy: remedy.into(),
    }
}
