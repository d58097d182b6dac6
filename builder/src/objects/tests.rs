//! Parts of blobs.

use std::sync::Arc;

use super::parts::Parts;
use super::*;
use crate::registry::push::Content;

fn parts_of(bytes: &[u8], digest: Digest) -> (Vec<Vec<u8>>, Option<ObjectsError>) {
    let blob = Blob {
        digest,
        size_bytes: bytes.len() as u64,
        content: Content::Memory(Arc::from(bytes)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut parts, mut all) = (Parts::new(&blob), Vec::new());
        loop {
            match parts.next().await {
                Ok(Some(part)) => all.push(part),
                Ok(None) => return (all, None),
                Err(error) => return (all, Some(error)),
            }
        }
    })
}

#[test]
fn parts_are_the_blob_and_the_last_is_given_only_when_it_is() {
    let check = |n_bytes: usize, sizes: &[usize]| {
        let bytes = vec![7; n_bytes];
        let (parts, error) = parts_of(&bytes, Digest::of(&bytes));
        assert!(error.is_none());
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        assert_eq!(parts.concat(), bytes);
        let (parts, error) = parts_of(&bytes, Digest::of(b"another"));
        assert!(matches!(error, Some(ObjectsError::Damaged { .. })));
        assert_eq!(parts.len(), sizes.len() - 1);
    };
    let part = 8 << 20;
    check(0, &[0]);
    check(1, &[1]);
    check(part, &[part]);
    check(part + 1, &[part, 1]);
}
