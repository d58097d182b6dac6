//! Credential helpers: `docker-credential-NAME`, which keep secrets in a keychain.
//!
//! A helper's name comes from a file, so it is held to a strict alphabet and looked up in PATH only; secrets travel over
//! its stdin and stdout, which is capped. Spec: docker-credential-helpers, "Development".

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{CredentialError, Credentials, key_of};

/// Largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// What helpers say when they simply have nothing; it is part of their protocol.
const NOTHING: &str = "credentials not found in native keychain";

/// A helper by its name.
#[derive(Debug)]
pub(super) struct Helper<'a> {
    name: &'a str,
}

impl<'a> Helper<'a> {
    pub(super) fn new(name: &'a str) -> Result<Self, CredentialError> {
        let helper = Self { name };
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            return Err(helper.error("has a name that no helper may have"));
        }
        Ok(helper)
    }

    /// Asks for a host's credentials.
    pub(super) fn get(&self, host: &str) -> Result<Option<Credentials>, CredentialError> {
        let Some(answer) = self.run("get", key_of(host))? else {
            return Ok(None);
        };
        let document: serde_json::Value =
            serde_json::from_slice(&answer).map_err(|_| self.error("answered something that is not JSON"))?;
        let field = |name: &str| {
            document
                .get(name)
                .and_then(|value| value.as_str())
                .map(ToOwned::to_owned)
        };
        match (field("Username"), field("Secret")) {
            (Some(user), Some(secret)) => Ok(Some(Credentials::of_pair(user, secret))),
            _ => Err(self.error("answered without a name or a secret")),
        }
    }

    /// Hands over a host's credentials to be kept.
    pub(super) fn store(&self, host: &str, user: &str, secret: &str) -> Result<(), CredentialError> {
        let text = serde_json::json!({"ServerURL": key_of(host), "Username": user, "Secret": secret});
        self.run("store", &text.to_string()).map(|_| ())
    }

    /// Has a host's credentials forgotten; true when there were some.
    pub(super) fn erase(&self, host: &str) -> Result<bool, CredentialError> {
        Ok(self.run("erase", key_of(host))?.is_some())
    }

    /// Runs the helper; `None` when it has nothing for the host.
    fn run(&self, action: &str, input: &str) -> Result<Option<Vec<u8>>, CredentialError> {
        let program = self.find().ok_or_else(|| self.error("is not in PATH"))?;
        let failed = |error: std::io::Error| self.error(&format!("cannot be run: {error}"));
        let mut child = Command::new(program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read what it needs fails by itself.
            let _ = stdin.write_all(input.as_bytes());
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let mut limited = stdout.take(MAX_ANSWER_BYTES + 1);
            limited.read_to_end(&mut answer).map_err(failed)?;
        }
        // Its output is closed now: it ends, were it only for a broken pipe.
        let status = child.wait().map_err(failed)?;
        if answer.len() as u64 > MAX_ANSWER_BYTES {
            return Err(self.error("answered too much"));
        }
        if status.success() {
            return Ok(Some(answer));
        }
        if String::from_utf8_lossy(&answer).trim() == NOTHING {
            return Ok(None);
        }
        Err(self.error(&format!("failed to {action} ({status})")))
    }

    /// Looks the program up in the absolute directories of PATH: one that depends on where we stand could be a trap.
    fn find(&self) -> Option<PathBuf> {
        let file = format!("docker-credential-{}", self.name);
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(&file))
            .find(|path| {
                std::fs::metadata(path)
                    .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
            })
    }

    fn error(&self, why: &str) -> CredentialError {
        CredentialError::Helper {
            name: self.name.chars().filter(|c| !c.is_control()).take(64).collect(),
            why: why.to_owned(),
        }
    }
}
