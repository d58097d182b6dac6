//! An agent's answers from keys of its own: which keys there are, and signatures. Spec: draft-ietf-sshm-ssh-agent.
//! Who may ask is not decided here.

use super::private_key::{Hash, Key};
use super::wire::{Reader, put_number, put_string};

/// `SSH_AGENTC_REQUEST_IDENTITIES`.
pub(super) const REQUEST_IDENTITIES: u8 = 11;
/// `SSH_AGENTC_SIGN_REQUEST`.
pub(super) const SIGN_REQUEST: u8 = 13;
/// `SSH_AGENT_FAILURE`, as a whole message.
pub(super) const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// `SSH_AGENT_IDENTITIES_ANSWER`.
const IDENTITIES_ANSWER: u8 = 12;
/// `SSH_AGENT_SIGN_RESPONSE`.
const SIGN_RESPONSE: u8 = 14;
/// `SSH_AGENT_RSA_SHA2_256`.
const RSA_SHA2_256: u32 = 2;
/// `SSH_AGENT_RSA_SHA2_512`.
const RSA_SHA2_512: u32 = 4;

/// Keys that can be asked for signatures.
pub(crate) struct Keyring(Vec<Key>);

impl Keyring {
    /// Returns a keyring of these keys, which are told in this order.
    pub(super) fn new(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// Returns the answer to a question, both whole messages with their length.
    pub(super) fn answer(&self, question: &[u8]) -> Vec<u8> {
        let mut reader = Reader(question);
        let answer = match (reader.number(), reader.take(1)) {
            (Some(_), Some([REQUEST_IDENTITIES])) => Some(self.identities()),
            (Some(_), Some([SIGN_REQUEST])) => self.signature(&mut reader),
            _ => None,
        };
        let Some(answer) = answer else {
            return FAILURE.to_vec();
        };
        let mut message = Vec::with_capacity(4 + answer.len());
        put_string(&mut message, &answer);
        message
    }

    fn identities(&self) -> Vec<u8> {
        let mut answer = vec![IDENTITIES_ANSWER];
        put_number(&mut answer, self.0.len());
        for key in &self.0 {
            put_string(&mut answer, key.public());
            put_string(&mut answer, key.comment());
        }
        answer
    }

    fn signature(&self, request: &mut Reader<'_>) -> Option<Vec<u8>> {
        let (public, data) = (request.string()?, request.string()?);
        let flags = request.number()?;
        let key = self.0.iter().find(|key| key.public() == public)?;
        let hash = match flags {
            flags if flags & RSA_SHA2_512 != 0 => Hash::Sha512,
            flags if flags & RSA_SHA2_256 != 0 => Hash::Sha256,
            _ => Hash::Unsaid,
        };
        let mut answer = vec![SIGN_RESPONSE];
        put_string(&mut answer, &key.sign(data, hash)?);
        Some(answer)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}
