//! Registries whose documents and blobs lie: about sizes, digests, kinds, and how much of everything there is.

use super::*;
use crate::registry::fixture::Way;

/// What a lying registry says.
type Answer = fn(&Remote, &Request) -> Reply;

fn is_config(request: &Request, remote: &Remote) -> bool {
    request.path.ends_with(&Digest::of(&remote.config).hex())
}

/// Changes the manifest's text, and serves it.
fn with_manifest(remote: &Remote, request: &Request, change: impl Fn(&str) -> String) -> Reply {
    let text = String::from_utf8(remote.manifest.clone()).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text);
    let remote = Remote {
        manifest: changed.into_bytes(),
        ..remote.clone()
    };
    remote.answer(request)
}

fn size_field(n_bytes: usize) -> String {
    format!("\"size\":{n_bytes}")
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn sizes_that_are_lies_are_found_out() {
    // hardening T52
    let cases: [(&str, Answer, &str); 10] = [
        (
            "longer than it says",
            |remote, request| match is_blob(request, remote) {
                true => Reply::ok([&remote.blob[..], b"more"].concat()).by(Way::Chunks(5000)),
                false => remote.answer(request),
            },
            "bytes but there are more",
        ),
        (
            "shorter than it says",
            |remote, request| match is_blob(request, remote) {
                true => Reply::ok(&remote.blob[..5000]).by(Way::Chunks(5000)),
                false => remote.answer(request),
            },
            "bytes but there are 5000",
        ),
        (
            "without an end",
            |remote, request| match is_blob(request, remote) {
                true => Reply::ok(remote.blob.clone()).by(Way::Endless),
                false => remote.answer(request),
            },
            "bytes but there are more",
        ),
        (
            "the right layer of another size",
            |remote, request| {
                let (from, to) = (size_field(remote.blob.len()), size_field(remote.blob.len() + 1));
                let remote = remote.clone();
                match is_blob(request, &remote) {
                    true => Reply::ok(remote.blob.clone()).by(Way::Chunks(5000)),
                    false => with_manifest(&remote, request, |text| text.replace(&from, &to)),
                }
            },
            "bytes but there are",
        ),
        (
            "the right config of another size",
            |remote, request| {
                let (from, to) = (
                    size_field(remote.config.len()),
                    size_field(remote.config.len() - 1),
                );
                with_manifest(remote, request, |text| text.replace(&from, &to))
            },
            "bytes but there are",
        ),
        (
            "a layer of a negative size",
            |remote, request| {
                let size = size_field(remote.blob.len());
                with_manifest(remote, request, |text| text.replace(&size, "\"size\":-1"))
            },
            "is malformed",
        ),
        (
            "a layer of all the bytes there can be",
            |remote, request| {
                let size = size_field(remote.blob.len());
                let most = format!("\"size\":{}", u64::MAX);
                with_manifest(remote, request, |text| text.replace(&size, &most))
            },
            "expected 18446744073709551615 bytes",
        ),
        (
            "a manifest without an end",
            |_, _| Reply::ok(vec![b' '; 1 << 16]).by(Way::Endless),
            "expected 4194304 bytes but there are more",
        ),
        (
            "a config without an end",
            |remote, request| match is_config(request, remote) {
                true => Reply::ok(vec![b' '; 1 << 16]).by(Way::Endless),
                false => remote.answer(request),
            },
            "expected 8388608 bytes but there are more",
        ),
        (
            "an error without an end",
            |_, _| Reply::ok(vec![b' '; 1 << 16]).by(Way::Endless).with_status(400),
            "answered 400",
        ),
    ];
    for (name, answer, expected) in cases {
        let (error, _) = check_failure(answer);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn an_entry_of_an_index_that_is_of_another_size_is_refused() {
    // hardening T52
    let remote = Remote::new();
    let (digest, size) = (Digest::of(&remote.manifest), remote.manifest.len());
    for (size, is_fine) in [(size, true), (size - 1, false), (size + 1, false)] {
        let (remote, index) = (remote.clone(), index_of(&digest, size));
        let index = String::from_utf8(index)
            .unwrap()
            .replace("image.index", "image.manifest");
        let fake = Fake::start(move |request| match request.path.as_str() {
            "/v2/app/manifests/1" => Reply::ok(index.clone()),
            path if path.contains("/manifests/") => Reply::ok(remote.manifest.clone()),
            _ => remote.answer(request),
        });
        let (_dir, store) = store();
        match pull(&store, &fake.host) {
            Ok(_) => assert!(is_fine, "{size}"),
            Err(error) => {
                assert!(!is_fine, "{error}");
                assert!(matches!(error, ImageError::WrongSize { .. }), "{error}");
            }
        }
    }
}

/// Texts that look like digests and are none.
const NO_DIGESTS: [&str; 8] = [
    "sha256:../../x",
    "sha256:0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F",
    "sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0",
    "sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0",
    "sha256:%2e%2e%2f%2e%2e%2fx",
    "md5:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
    "sha256+b64:LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=",
    "sha256:",
];

#[test]
fn what_looks_like_a_digest_is_never_asked_for_nor_stored() {
    // hardening T53
    let remote = Remote::new();
    let manifest = String::from_utf8(remote.manifest.clone()).unwrap();
    let config = String::from_utf8(remote.config.clone()).unwrap();
    let own = config_facts(&remote.config).unwrap().diff_ids[0].to_string();
    let index = String::from_utf8(index_of(&Digest::of(&remote.manifest), remote.manifest.len())).unwrap();
    for bad in NO_DIGESTS {
        let in_config = config.replace(&own, bad);
        let config_digest = Digest::of(in_config.as_bytes());
        let for_config = manifest
            .replace(
                &Digest::of(&remote.config).to_string(),
                &config_digest.to_string(),
            )
            .replace(&size_field(config.len()), &size_field(in_config.len()));
        let documents = [
            (
                "config",
                manifest.replace(&Digest::of(&remote.config).to_string(), bad),
            ),
            (
                "layer",
                manifest.replace(&Digest::of(&remote.blob).to_string(), bad),
            ),
            (
                "index",
                index.replace(&Digest::of(&remote.manifest).to_string(), bad),
            ),
            ("diff ID", for_config),
        ];
        for (place, document) in documents {
            let in_config = in_config.clone();
            let fake = Fake::start(move |request| match request.path.as_str() {
                "/v2/app/manifests/1" => Reply::ok(document.clone()),
                path if path.ends_with(&config_digest.hex()) => Reply::ok(in_config.clone()),
                _ => Reply::status(404),
            });
            let (_dir, store) = store();
            let error = pull(&store, &fake.host).unwrap_err();
            assert!(
                matches!(error, ImageError::Malformed { .. }),
                "{place} {bad}: {error}"
            );
            let asked: Vec<String> = fake.requests().into_iter().map(|one| one.path).collect();
            // The tag, and where the config lies that has the bad one in it.
            assert_eq!(
                asked.len(),
                if place == "diff ID" { 2 } else { 1 },
                "{place} {bad}: {asked:?}"
            );
            let names = std::fs::read_dir(store.root().join("blobs/sha256")).unwrap();
            for name in names {
                let name = name.unwrap().file_name().into_string().unwrap();
                assert!(
                    format!("sha256:{name}").parse::<Digest>().is_ok(),
                    "{place} {bad}: {name}"
                );
            }
            assert_eq!(store.index().images().unwrap(), [], "{place} {bad}");
        }
    }
}

#[test]
fn a_document_is_of_one_kind_only() {
    // hardening T54
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let index_type = "application/vnd.oci.image.index.v1+json";
    let remote = Remote::new();
    let both = String::from_utf8(remote.manifest.clone())
        .unwrap()
        .replacen('{', "{\"manifests\":[],", 1);
    let served = |body: Vec<u8>, kind: &str| {
        let (remote, kind) = (remote.clone(), kind.to_owned());
        let fake = Fake::start(move |request| match request.path.contains("/manifests/") {
            true => Reply::ok(body.clone()).header("Content-Type", kind.clone()),
            false => remote.answer(request),
        });
        let (_dir, store) = store();
        pull(&store, &fake.host)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(served(remote.manifest.clone(), manifest_type), Ok(()));
    for (body, kind, expected) in [
        (remote.manifest.clone(), index_type, "was served as"),
        (both.clone().into_bytes(), manifest_type, "both"),
        (both.into_bytes(), index_type, "was served as"),
    ] {
        let error = served(body, kind).unwrap_err();
        assert!(error.contains(expected), "{kind}: {error}");
    }
}

#[test]
fn indexes_that_name_themselves_or_far_too_much_end_soon() {
    // hardening T57
    let serve_always = |document: Vec<u8>| {
        let fake = Fake::start(move |_| Reply::ok(document.clone()));
        let (_dir, store) = store();
        let error = pull(&store, &fake.host).unwrap_err().to_string();
        (error, fake.requests().len())
    };
    // A digest can't be guessed, so the index names one that the registry answers with the index again.
    let (error, n_requests) = serve_always(index_of(&Digest::of(b"itself"), 300));
    assert!(error.contains("but the bytes are"), "{error}");
    assert_eq!(n_requests, 2);

    let entries = |n: usize| {
        let entry = String::from_utf8(index_of(&Digest::of(b"x"), 1)).unwrap();
        let entry = &entry[entry.find('[').unwrap() + 1..entry.rfind(']').unwrap()];
        let entry = entry.replace("image.index", "image.manifest");
        let all = vec![entry; n].join(",");
        format!("{{\"schemaVersion\":2,\"manifests\":[{all}]}}").into_bytes()
    };
    let (error, n_requests) = serve_always(entries(100_000));
    assert!(
        error.contains("expected 4194304 bytes but there are more"),
        "{error}"
    );
    assert_eq!(n_requests, 1);
    // As many as there is room for.
    let (error, n_requests) = serve_always(entries(25_000));
    assert!(error.contains("no match for platform"), "{error}");
    assert_eq!(n_requests, 1);
}

#[test]
fn layers_in_another_order_and_histories_that_are_too_long_are_refused() {
    // hardening T58
    let (_origin_dir, origin) = store();
    let image = crate::registry::fixture::image(&origin, &[]);
    let tars: Vec<Vec<u8>> = image
        .layers
        .iter()
        .map(|layer| {
            let mut tar = Vec::new();
            let file = origin.layers().get(layer).unwrap();
            std::io::copy(&mut file.tar_reader(), &mut tar).unwrap();
            tar
        })
        .collect();
    let descriptors: Vec<serde_json::Value> = tars
        .iter()
        .map(|tar| {
            serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": Digest::of(tar).to_string(), "size": tar.len()})
        })
        .collect();
    let pull_with = |config: Vec<u8>| {
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config).to_string(), "size": config.len()},
            "layers": descriptors,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let tars = tars.clone();
        let fake = Fake::start(move |request| {
            let blobs = tars.iter().chain([&config]);
            let mut blobs = blobs.filter(|blob| request.path.ends_with(&Digest::of(blob).hex()));
            match request.path.contains("/manifests/") {
                true => Reply::ok(manifest.clone()),
                false => blobs
                    .next()
                    .map_or_else(|| Reply::status(404), |blob| Reply::ok(blob.clone())),
            }
        });
        let (_dir, store) = store();
        let pulled = pull(&store, &fake.host);
        let n_kept = image
            .layers
            .iter()
            .filter(|layer| store.layers().contains(layer))
            .count();
        (pulled.map(|_| ()).map_err(|error| error.to_string()), n_kept)
    };
    assert_eq!(pull_with(image.config.clone()), (Ok(()), 2));

    let swapped: Vec<DiffId> = image.layers.iter().rev().copied().collect();
    let (pulled, n_kept) = pull_with(super::super::fixture::config_of(&swapped));
    let error = pulled.unwrap_err();
    assert!(error.contains("layer sha256:"), "{error}");
    assert_eq!(n_kept, 0, "nothing is kept under a name that is another's");

    let mut config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    let history = config["history"].as_array_mut().unwrap();
    history.push(serde_json::json!({"created_by": "ENV A=1", "empty_layer": true}));
    assert_eq!(pull_with(serde_json::to_vec(&config).unwrap()), (Ok(()), 2));
    let history = config["history"].as_array_mut().unwrap();
    history.push(serde_json::json!({"created_by": "COPY more /"}));
    let (pulled, n_kept) = pull_with(serde_json::to_vec(&config).unwrap());
    let error = pulled.unwrap_err();
    assert!(
        error.contains("its history has 3 layers but rootfs lists 2"),
        "{error}"
    );
    assert_eq!(n_kept, 0);
}

#[test]
fn addresses_beside_a_layer_are_never_asked() {
    // hardening T74
    let remote = Remote::new();
    let elsewhere = {
        let remote = remote.clone();
        Fake::start(move |_| Reply::ok(remote.blob.clone()))
    };
    let urls = format!(
        "{},\"urls\":[\"http://{}/blob\"]",
        size_field(remote.blob.len()),
        elsewhere.host
    );
    let has_blob = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let given = Arc::clone(&has_blob);
    let fake = Fake::start(move |request| {
        if is_blob(request, &remote) && !given.load(std::sync::atomic::Ordering::Relaxed) {
            return Reply::status(404);
        }
        with_manifest(&remote, request, |text| {
            text.replace(&size_field(remote.blob.len()), &urls).replace(
                "vnd.oci.image.layer.v1",
                "vnd.oci.image.layer.nondistributable.v1",
            )
        })
    });
    let (_dir, store) = store();
    let error = pull(&store, &fake.host).unwrap_err();
    assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
    // A registry that has such a layer itself is another matter.
    has_blob.store(true, std::sync::atomic::Ordering::Relaxed);
    pull(&store, &fake.host).unwrap();
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn what_was_sent_away_comes_back_without_credentials() {
    // hardening T74
    let remote = Remote::new();
    let back = Arc::new(std::sync::Mutex::new(String::new()));
    let elsewhere = {
        let back = Arc::clone(&back);
        Fake::start(move |_| {
            let to = format!("http://{}/v2/secret/tags/list", back.lock().unwrap());
            Reply::status(307).header("Location", to)
        })
    };
    let other = elsewhere.host.clone();
    let fake = Fake::start(move |request| {
        let host = request.headers["host"].clone();
        if request.path.starts_with("/token") {
            return Reply::ok(r#"{"token":"t0p"}"#);
        }
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer t0p") {
            let challenge = format!("Bearer realm=\"http://{host}/token\"");
            return Reply::status(401).header("WWW-Authenticate", challenge);
        }
        match is_blob(request, &remote) {
            true => Reply::status(307).header("Location", format!("http://{other}/blob")),
            false => remote.answer(request),
        }
    });
    back.lock().unwrap().clone_from(&fake.host);
    let (_dir, store) = store();
    let error = pull(&store, &fake.host).unwrap_err();
    assert!(matches!(error, ImageError::Denied { .. }), "{error}");
    let bounced: Vec<Request> = fake
        .requests()
        .into_iter()
        .filter(|request| request.path.starts_with("/v2/secret"))
        .collect();
    assert!(!bounced.is_empty());
    assert!(
        bounced
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
    assert!(
        elsewhere
            .requests()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
}
