//! Reading images of a particle file at full speed: plain reads at known offsets, past HDF5 and its lock.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::store::{Dtype, Store};
use crate::error::{Error, Result};

/// Reads single images; used from one thread.
#[derive(Debug)]
pub struct ImageReader {
    path: PathBuf,
    file: File,
    offset: u64,
    dtype: Dtype,
    pixels: usize,
    bytes: Vec<u8>,
}

impl ImageReader {
    /// Opens the file of `store` once more, for direct reads.
    ///
    /// # Errors
    /// When the file cannot be opened, or its images are not in one piece (a file that another program rewrote).
    pub fn open(store: &Store) -> Result<Self> {
        let path = store.path();
        let offset = store.image_offset().ok_or_else(|| {
            Error::input(
                path,
                "/images",
                "are stored in chunks, expected one contiguous piece",
                "make the file again with `cryosplat-mpi import`",
            )
        })?;
        let file = File::open(path).map_err(Error::io(path, "open the particle set", "check the path"))?;
        let d = store.metadata().box_size;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            offset,
            dtype: store.dtype(),
            pixels: d * d,
            bytes: Vec::new(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads image `index` into `image` (`[y][x]`).
    ///
    /// # Errors
    /// When the file cannot be read or a pixel is not finite.
    ///
    /// # Panics
    /// When `image` has another length than the box asks for.
    pub fn read(&mut self, index: usize, image: &mut [f32]) -> Result<()> {
        assert_eq!(image.len(), self.pixels);
        let width = match self.dtype {
            Dtype::F32 => 4,
            Dtype::F16 => 2,
        };
        let length = self.pixels * width;
        self.bytes.resize(length, 0);
        self.file.read_exact_at(&mut self.bytes, self.offset + (index * length) as u64).map_err(
            Error::io(
                &self.path,
                "read an image",
                "check the disk, or copy the file again: it may be cut short",
            ),
        )?;
        match self.dtype {
            Dtype::F32 => {
                for (value, word) in image.iter_mut().zip(self.bytes.chunks_exact(4)) {
                    *value = f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                }
            }
            Dtype::F16 => {
                for (value, word) in image.iter_mut().zip(self.bytes.chunks_exact(2)) {
                    *value = half::f16::from_le_bytes([word[0], word[1]]).to_f32();
                }
            }
        }
        // A sum is finite only if all its terms are.
        if !image.iter().map(|&v| f64::from(v)).sum::<f64>().is_finite() {
            return Err(Error::input(
                &self.path,
                format!("particle {}", index + 1),
                "has a pixel that is not finite",
                "the file is corrupt (`cryosplat-mpi info --verify` checks it): import it again",
            ));
        }
        Ok(())
    }
}

/// Batches that the reader may be ahead of the trainer.
const AHEAD: usize = 4;

/// Reads `batches` (particle indices) in order, in a thread of `scope`, ahead of who receives them.
pub fn read_ahead<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut reader: ImageReader,
    batches: Vec<Vec<usize>>,
) -> (Receiver<Result<Vec<f32>>>, ScopedJoinHandle<'scope, ()>) {
    let (sender, receiver) = sync_channel(AHEAD);
    let handle = scope.spawn(move || {
        for batch in batches {
            let mut images = vec![0.0f32; batch.len() * reader.pixels];
            let outcome = batch
                .iter()
                .zip(images.chunks_exact_mut(reader.pixels))
                .try_for_each(|(&index, image)| reader.read(index, image));
            let failed = outcome.is_err();
            // The receiver is gone when the trainer has stopped: nothing more is wanted then.
            if sender.send(outcome.map(|()| images)).is_err() || failed {
                return;
            }
        }
    });
    (receiver, handle)
}
