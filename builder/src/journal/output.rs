//! What one step's process wrote: compressed while it is written, the beginning and the end when it is much.
//!
//! Memory is constant, and past the beginning it costs a copy only: a flood of output must not be slower for being kept.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::path::{Path, PathBuf};

/// What is kept of the beginning.
const HEAD_BYTES: usize = 16 << 20;
/// What is kept of the end, where there is more. It is in memory until then, for each of the steps that run.
const TAIL_BYTES: usize = 256 << 10;
/// Fast, and text becomes a fifth all the same.
const LEVEL: i32 = 1;
/// 128 KiB: what it looks back at is in memory as well, for each of the steps that run.
const WINDOW_LOG: u32 = 17;

/// The output of one step. Errors are kept for the end, where they can be told.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    state: State,
    head_bytes: usize,
    /// The last bytes; the oldest is at `oldest` once it is full.
    tail: Vec<u8>,
    oldest: usize,
    skipped_bytes: u64,
}

enum State {
    Nothing,
    Writing(zstd::stream::write::Encoder<'static, File>),
    Failed(io::Error),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Writing(_) => "Writing",
            Self::Failed(_) => "Failed",
        })
    }
}

impl Output {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: State::Nothing,
            head_bytes: 0,
            tail: Vec::new(),
            oldest: 0,
            skipped_bytes: 0,
        }
    }

    /// Takes more output.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let room = HEAD_BYTES - self.head_bytes;
        let (head, rest) = bytes.split_at(bytes.len().min(room));
        self.head_bytes += head.len();
        if !head.is_empty() {
            self.write_head(head);
        }
        self.keep_tail(rest);
    }

    fn write_head(&mut self, bytes: &[u8]) {
        if let State::Nothing = self.state {
            let opened = File::create_new(&self.path).and_then(|file| {
                let mut encoder = zstd::stream::write::Encoder::new(file, LEVEL)?;
                encoder.window_log(WINDOW_LOG)?;
                Ok(encoder)
            });
            self.state = opened.map_or_else(State::Failed, State::Writing);
        }
        if let State::Writing(encoder) = &mut self.state
            && let Err(error) = encoder.write_all(bytes)
        {
            self.state = State::Failed(error);
        }
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        let (gone, bytes) = bytes.split_at(bytes.len().saturating_sub(TAIL_BYTES));
        self.skipped_bytes += gone.len() as u64;
        let room = TAIL_BYTES - self.tail.len();
        let (fresh, mut over) = bytes.split_at(bytes.len().min(room));
        self.tail.extend_from_slice(fresh);
        self.skipped_bytes += over.len() as u64;
        while !over.is_empty() {
            let n = over.len().min(TAIL_BYTES - self.oldest);
            self.tail[self.oldest..][..n].copy_from_slice(&over[..n]);
            self.oldest = (self.oldest + n) % TAIL_BYTES;
            over = &over[n..];
        }
    }

    /// Writes what is still held. An error is the first there was.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match mem::replace(&mut self.state, State::Nothing) {
            State::Nothing => Ok(()),
            State::Failed(error) => Err(error),
            State::Writing(mut encoder) => {
                if self.skipped_bytes > 0 {
                    writeln!(encoder, "\n[{} bytes of output not kept]", self.skipped_bytes)?;
                }
                encoder.write_all(&self.tail[self.oldest..])?;
                encoder.write_all(&self.tail[..self.oldest])?;
                encoder.finish().map(drop)
            }
        }
    }
}

/// Returns what was kept; `None` when nothing was. What a killed build left ends where that was.
pub(crate) fn read(path: &Path) -> io::Result<Option<impl Read + use<>>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(file) => {
            let decoder = zstd::stream::read::Decoder::new(file)?;
            Ok(Some(Lenient(decoder)))
        }
    }
}

/// Takes a stream that was cut for one that ends.
struct Lenient<R>(R);

impl<R: Read> Read for Lenient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that aren't all the same.
    fn text(n_bytes: usize) -> Vec<u8> {
        (0..n_bytes).map(|at| b'a' + (at % 23) as u8).collect()
    }

    fn check(n_bytes: usize, chunk: usize) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.zst");
        let written = text(n_bytes);
        let mut output = Output::new(path.clone());
        written.chunks(chunk).for_each(|chunk| output.write(chunk));
        output.finish().unwrap();
        let mut kept = Vec::new();
        read(&path).unwrap().unwrap().read_to_end(&mut kept).unwrap();
        let expected = match n_bytes.checked_sub(HEAD_BYTES + TAIL_BYTES) {
            None | Some(0) => written,
            Some(skipped) => [
                &written[..HEAD_BYTES],
                format!("\n[{skipped} bytes of output not kept]\n").as_bytes(),
                &written[n_bytes - TAIL_BYTES..],
            ]
            .concat(),
        };
        assert!(kept == expected, "{n_bytes} bytes in chunks of {chunk}");
    }

    /// hardening R43: the beginning and the end are kept, in constant memory.
    #[test]
    fn beginning_and_end_are_kept() {
        let limit = HEAD_BYTES + TAIL_BYTES;
        for (n_bytes, chunk) in [
            (1, 1),
            (HEAD_BYTES, 65536),
            (HEAD_BYTES + 1, 65536),
            (limit, 65536),
            (limit + 1, 65537),
            (limit + 3 * TAIL_BYTES + 7, 65536),
            (limit + 5 * TAIL_BYTES, 3 * TAIL_BYTES + 1),
        ] {
            check(n_bytes, chunk);
        }
    }

    #[test]
    fn a_cut_log_ends_where_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.zst");
        let mut output = Output::new(path.clone());
        output.write(&text(1 << 20));
        output.finish().unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        let mut kept = Vec::new();
        read(&path).unwrap().unwrap().read_to_end(&mut kept).unwrap();
        assert!(text(1 << 20).starts_with(&kept));
    }

    #[test]
    fn an_error_is_told_at_the_end() {
        let mut output = Output::new("/no/such/directory/0.zst".into());
        output.write(b"x");
        assert_eq!(output.finish().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
