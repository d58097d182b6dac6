//! Blobs behind addresses that somebody else has signed, as Azure's storage takes them: whole, or in blocks that a list
//! puts in order. Spec: Azure Blob Storage REST API, Put Blob, Put Block, Put Block List.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use reqwest::{Method, Url};

use super::ObjectsError;
use super::parts::Parts;
use super::wire::{Call, Wire};
use crate::registry::push::Blob;

/// Sends a blob to where `url` points.
pub(super) async fn put(wire: &Wire, what: &str, url: &Url, blob: &Blob) -> Result<(), ObjectsError> {
    let mut parts = Parts::new(blob);
    if parts.is_one() {
        let bytes = parts.next().await?.unwrap_or_default();
        return put_whole(wire, what, url, bytes).await;
    }
    let mut list = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    let mut number = 0_u32;
    while let Some(bytes) = parts.next().await? {
        // All names of blocks must be of the same length.
        let id = STANDARD.encode(format!("{number:08}"));
        number += 1;
        let mut block = url.clone();
        block
            .query_pairs_mut()
            .append_pair("comp", "block")
            .append_pair("blockid", &id);
        let call = Call::new(what, Method::PUT, block).with_body(bytes);
        wire.expect(&call).await?;
        list.push_str("<Latest>");
        list.push_str(&id);
        list.push_str("</Latest>");
    }
    list.push_str("</BlockList>");
    let mut all = url.clone();
    all.query_pairs_mut().append_pair("comp", "blocklist");
    let call = Call::new(what, Method::PUT, all).with_body(list.into_bytes());
    wire.expect(&call).await.map(|_| ())
}

/// Sends few bytes in one request.
pub(super) async fn put_whole(
    wire: &Wire,
    what: &str,
    url: &Url,
    bytes: Vec<u8>,
) -> Result<(), ObjectsError> {
    let call = Call::new(what, Method::PUT, url.clone())
        .with_header("x-ms-blob-type", HeaderValue::from_static("BlockBlob"))
        .with_body(bytes);
    wire.expect(&call).await.map(|_| ())
}
