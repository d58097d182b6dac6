//! The pipe that an archive goes through: written on a thread that blocks, read by whoever sends it on.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use futures_util::Stream;
use rustix::pipe::PipeFlags;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

use super::{EngineError, Tell, Told};
use crate::export::{ExportError, Shipment};

/// What a pipe holds, and what is read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Someone who writes an archive into a pipe.
pub(super) struct Writer(JoinHandle<Result<(), ExportError>>);

impl Writer {
    /// Waits for the end of the archive. A reader that stopped early has its own say.
    pub(super) async fn finish(self) -> Result<(), EngineError> {
        match self.0.await {
            Ok(Err(ExportError::Write { source, .. })) if source.kind() == io::ErrorKind::BrokenPipe => {
                Ok(())
            }
            Ok(written) => Ok(written?),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// An archive that is being written.
pub(super) struct Sending {
    pub(super) writer: Writer,
    /// The end of the pipe that it comes out of.
    pub(super) outlet: OwnedFd,
    pub(super) total_bytes: u64,
}

/// Begins to write the archive without the layers that are known.
pub(super) fn write(shipment: &Arc<Shipment>, known: &[usize], reader: &str) -> Result<Sending, EngineError> {
    let total_bytes = shipment.size_bytes(known)?;
    let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (outlet, inlet) = pipe.map_err(|error| EngineError::Pipe(error.into()))?;
    // A small pipe is slower, and no worse.
    let _ = rustix::pipe::fcntl_setpipe_size(&inlet, CHUNK_BYTES);
    let (shipment, reader, known) = (Arc::clone(shipment), reader.to_owned(), known.to_vec());
    let writing = tokio::task::spawn_blocking(move || shipment.write(inlet, Path::new(&reader), &known));
    Ok(Sending {
        writer: Writer(writing),
        outlet,
        total_bytes,
    })
}

/// Returns what comes out of a pipe, telling how much that is.
pub(super) fn read(
    outlet: OwnedFd,
    total_bytes: u64,
    tell: &Tell,
) -> Result<impl Stream<Item = io::Result<Vec<u8>>> + Send + use<>, EngineError> {
    let outlet = Receiver::from_owned_fd(outlet).map_err(EngineError::Pipe)?;
    let begin = (outlet, 0, Arc::clone(tell));
    Ok(futures_util::stream::try_unfold(
        begin,
        move |(mut outlet, bytes, tell)| async move {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let n_read = outlet.read_buf(&mut chunk).await?;
            let bytes = bytes + n_read as u64;
            if n_read > 0 {
                tell(Told::Sent { bytes, total_bytes });
            }
            Ok((n_read > 0).then_some((chunk, (outlet, bytes, tell))))
        },
    ))
}
