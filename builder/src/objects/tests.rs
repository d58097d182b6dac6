//! Parts of blobs, and places that misbehave. What they do when they behave is shown end to end.

use std::sync::Arc;

use cache::compress::{Codec, compress};

use super::parts::Parts;
use super::*;
use crate::registry::fixture::{Fake, Reply, image, store};
use crate::registry::push::Content;
use crate::registry::{Descriptor, LayerSource, Origin, Resolved, fetch_layers};

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

fn blob_of(bytes: &[u8], digest: Digest) -> Blob {
    Blob {
        digest,
        size_bytes: bytes.len() as u64,
        content: Content::Memory(Arc::from(bytes)),
    }
}

fn parts_of(bytes: &[u8], digest: Digest) -> (Vec<Vec<u8>>, Option<ObjectsError>) {
    run(async {
        let (mut parts, mut all) = (Parts::new(&blob_of(bytes, digest)), Vec::new());
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

fn s3(host: &str) -> Objects {
    let endpoint = format!("http://{host}");
    Objects::s3(S3Settings {
        bucket: bucket("b", "r", Some(&endpoint), true).unwrap(),
        credentials: Some(rusty_s3::Credentials::new("someone", "hush")),
        blobs: "blobs/".to_owned(),
        manifests: vec!["manifests/x".to_owned()],
        n_parallel: 1,
        refresh: std::time::Duration::from_secs(3600),
    })
}

#[test]
fn what_may_pass_is_asked_again_and_what_is_final_once() {
    let blob = Digest::of(b"blob");
    let check = |statuses: &'static [u16], n_asked: usize, expected: &str| {
        let fake = Fake::start(move |request| {
            let status = statuses[request.n_before.min(statuses.len() - 1)];
            Reply::status(status).header("Retry-After", "0")
        });
        // Every request is signed anew, but within a second signatures are the same.
        let said = match run(s3(&fake.host).has(&blob, 0)) {
            Ok(is_there) => is_there.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(expected), "{statuses:?}: {said}");
        assert!(!said.contains("Signature"), "{said}");
        assert_eq!(fake.requests().len(), n_asked, "{statuses:?}");
    };
    check(&[200], 1, "true");
    check(&[404], 1, "false");
    check(&[503, 500, 200], 3, "true");
    check(&[403], 1, "403 Forbidden");
    check(&[429], 5, "429 Too Many Requests");
}

#[test]
fn an_address_that_nobody_answers_is_told_without_its_signature() {
    let error = run(s3("127.0.0.1:1").read(&Digest::of(b"x"), 10)).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("cannot reach s3 b/manifests/x at 127.0.0.1:1"),
        "{said}"
    );
    assert!(!said.contains("X-Amz"), "{said}");
}

#[test]
fn a_layer_is_waited_for_and_goes_on_where_it_broke_off() {
    let (_dir, first) = store();
    let layer = image(&first, &[]).layers[0];
    let mut blob = Vec::new();
    let tar = first.layers().get(&layer).unwrap();
    compress(tar.tar_reader(), &mut blob, Codec::Zstd { level: 1 }).unwrap();
    let (digest, size_bytes, half) = (Digest::of(&blob), blob.len() as u64, blob.len() / 2);
    let fake = Fake::start(move |request| match request.headers.get("range") {
        None => Reply {
            length: Some(blob.len()),
            ..Reply::ok(&blob[..half])
        },
        Some(range) => {
            assert_eq!(*range, format!("bytes={half}-"));
            let span = format!("bytes {half}-{}/{}", blob.len() - 1, blob.len());
            Reply {
                status: 206,
                ..Reply::ok(&blob[half..])
            }
            .header("Content-Range", span)
        }
    });
    let source = Resolved {
        reference: "a cache".to_owned(),
        manifest: None,
        config: Vec::new(),
        layers: vec![LayerSource {
            diff_id: layer,
            blob: Some(Descriptor {
                media_type: String::new(),
                digest,
                size_bytes,
            }),
            made_unix: None,
        }],
        origin: Origin::Objects(Arc::new(s3(&fake.host))),
    };
    let (_other, second) = store();
    // Somebody else is at it for now.
    second.introduce("the test".to_owned());
    let held = std::sync::Mutex::new(Some(second.lock(&format!("layer{}", layer.hex())).unwrap()));
    let waited = std::sync::Mutex::new(Vec::new());
    let told = |transfer: crate::registry::Transfer| {
        if transfer.waits_for.is_some() {
            held.lock().unwrap().take();
            waited.lock().unwrap().extend(transfer.waits_for);
        }
    };
    run(fetch_layers(&second, &source, told)).unwrap();
    assert!(second.layers().contains(&layer));
    assert_eq!(fake.requests().len(), 2);
    assert_eq!(waited.into_inner().unwrap(), ["the test"]);
}

#[test]
fn an_upload_in_parts_whose_end_fails_is_taken_back() {
    let bytes = vec![7; (8 << 20) + 1];
    let fake = Fake::start(|request| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" if request.path.contains("uploads=1") => Reply::ok(
            "<InitiateMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><UploadId>up</UploadId></InitiateMultipartUploadResult>",
        ),
        "PUT" => Reply::ok("").header("ETag", "\"1\""),
        // A failure behind a status that is none.
        "POST" => Reply::ok("<?xml?><Error><Code>InternalError</Code></Error>"),
        _ => Reply::status(204),
    });
    let error = run(s3(&fake.host).put(&blob_of(&bytes, Digest::of(&bytes)))).unwrap_err();
    assert!(error.to_string().contains("InternalError"), "{error}");
    let last = fake.requests().pop().unwrap();
    assert_eq!(last.method, "DELETE");
    assert!(last.path.contains("uploadId=up"), "{}", last.path);
}

fn gha(host: &str) -> Objects {
    Objects::gha(GhaSettings {
        url: format!("http://{host}/").parse().unwrap(),
        token: Token("hush".to_owned()),
        scope: "x".to_owned(),
        timeout: std::time::Duration::ZERO,
    })
}

#[test]
fn an_entry_of_another_key_is_not_believed() {
    let blob = Digest::of(b"blob");
    let check = |answer: String, expected: &str| {
        let fake = Fake::start(move |_| Reply::ok(answer.clone()));
        let said = match run(gha(&fake.host).has(&blob, 0)) {
            Ok(is_there) => is_there.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("hush"), "{said}");
    };
    let found = |key: &str, url: &str| {
        format!(r#"{{"ok": true, "signed_download_url": "{url}", "matched_key": "{key}"}}"#)
    };
    let key = format!("ashlar-blob-1-{blob}");
    check(found(&key, "http://127.0.0.1/x"), "true");
    check(found(&format!("{key}0"), "http://127.0.0.1/x"), "false");
    check(found("", ""), "false");
    check(found(&key, "no address"), "an invalid address");
    check("{}".to_owned(), "false");
    check("<html>".to_owned(), "expected value");
    check("7".repeat(100_000), "more than 65536 bytes");
}
