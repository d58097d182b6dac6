//! Networks and registries that are strange, slow or busy, but not hostile: what is wanted comes through.

use std::io::Write as _;
use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::registry::fixture::Way;

/// Pulls from a registry that answers blobs as `answer` says, until the pull ends well; returns the requests.
fn check_success(
    name: &str,
    address: &str,
    answer: impl Fn(&Remote, &Request) -> Reply + Send + Sync + 'static,
) -> Vec<Request> {
    let remote = Remote::new();
    let layer = config_facts(&remote.config).unwrap().diff_ids[0];
    let blob = remote.blob.clone();
    let fake = Fake::start_at(address, move |request| answer(&remote, request));
    let (_dir, store) = store();
    pull_trying(&store, &fake.host, 5).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(store.layers().contains(&layer), "{name}");
    assert_eq!(
        store.blobs().read(&Digest::of(&blob), 1 << 30).unwrap(),
        blob,
        "{name}"
    );
    fake.requests()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn quirks_of_registries_do_no_harm() {
    // hardening R19
    type Answer = fn(&Remote, &Request) -> Reply;
    let cases: [(&str, Answer); 7] = [
        // No `Docker-Content-Digest` is said by any of these.
        ("documents of a wrong type", |remote, request| {
            remote
                .answer(request)
                .header("Content-Type", "text/plain; charset=utf-8")
        }),
        ("compressed documents", |remote, request| {
            match is_blob(request, remote) {
                true => remote.answer(request),
                false => {
                    let reply = remote.answer(request);
                    Reply {
                        body: gzip(&reply.body),
                        ..reply
                    }
                    .header("Content-Encoding", "gzip")
                }
            }
        }),
        (
            "blobs as they are that are said to be encoded",
            |remote, request| match is_blob(request, remote) {
                true => remote.answer(request).header("Content-Encoding", "gzip"),
                false => remote.answer(request),
            },
        ),
        ("documents said to be encoded that aren't", |remote, request| {
            remote.answer(request).header("Content-Encoding", "gzip")
        }),
        ("one byte at a time", |remote, request| {
            match is_blob(request, remote) {
                true => remote.answer(request).by(Way::Chunks(7)),
                false => remote.answer(request).by(Way::Chunks(1)),
            }
        }),
        (
            "connections that are gone when they are used again",
            |remote, request| remote.answer(request).by(Way::ThenGone),
        ),
        ("a page instead of a layer, once", |remote, request| {
            match is_blob(request, remote) && request.n_before == 0 {
                true => Reply::status(502),
                false => remote.answer(request),
            }
        }),
    ];
    for (name, answer) in cases {
        check_success(name, "127.0.0.1:0", answer);
    }
    // Where there is IPv6 at all.
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        check_success("IPv6 only", "[::1]:0", |remote, request| remote.answer(request));
    } else {
        eprintln!("SKIP IPv6 only: there is no IPv6 here");
    }
    let (error, _) = check_failure(|remote, request| match is_blob(request, remote) {
        true => Reply::ok(gzip(&vec![b' '; 9 << 20])).header("Content-Encoding", "gzip"),
        false => {
            let bomb = gzip(&vec![b' '; 9 << 20]);
            Reply::ok(bomb).header("Content-Encoding", "gzip")
        }
    });
    assert!(error.contains("but there are more"), "{error}");
}

#[test]
fn a_stalled_download_goes_on_where_it_stopped() {
    // hardening R19
    let requests = check_success("a stall", "127.0.0.1:0", |remote, request| {
        match (is_blob(request, remote), request.headers.get("range")) {
            (true, None) => Reply::ok(remote.blob.clone()).by(Way::Stalls(1000)),
            (true, Some(range)) => {
                assert_eq!(range, "bytes=1000-");
                part(remote, 1000, None)
            }
            _ => remote.answer(request),
        }
    });
    let blobs = requests
        .iter()
        .filter(|request| request.headers.contains_key("range"));
    assert_eq!(blobs.count(), 1);
}

/// Answers with the rest of the blob.
fn part(remote: &Remote, start: usize, version: Option<&str>) -> Reply {
    let n_bytes = remote.blob.len();
    let reply = Reply {
        status: 206,
        body: remote.blob[start..].to_vec(),
        ..Reply::default()
    };
    let reply = reply.header(
        "Content-Range",
        format!("bytes {start}-{}/{n_bytes}", n_bytes - 1),
    );
    match version {
        Some(version) => reply.header("ETag", version),
        None => reply,
    }
}

fn start_of(range: &str) -> usize {
    range["bytes=".len()..range.len() - 1].parse().unwrap()
}

/// Returns how much of the blob there is before the first failure.
fn cut_at(remote: &Remote, n_bytes: usize) -> Reply {
    Reply {
        length: Some(remote.blob.len()),
        body: remote.blob[..n_bytes].to_vec(),
        ..Reply::ok("")
    }
}

#[test]
fn downloads_go_on_wherever_they_are_cut() {
    // hardening R15
    let size = Remote::new().blob.len();
    for cut in [0, 1, size / 2, size - 1] {
        let n_sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let sent = Arc::clone(&n_sent);
        let requests = check_success("a cut", "127.0.0.1:0", move |remote, request| {
            if !is_blob(request, remote) {
                return remote.answer(request);
            }
            let reply = match request.headers.get("range") {
                None if request.n_before == 0 => cut_at(remote, cut),
                None => Reply::ok(remote.blob.clone()),
                Some(range) => part(remote, start_of(range), None),
            };
            sent.fetch_add(reply.body.len(), std::sync::atomic::Ordering::Relaxed);
            reply
        });
        let ranges: Vec<_> = requests
            .iter()
            .filter_map(|request| request.headers.get("range"))
            .collect();
        let expected = [format!("bytes={cut}-")];
        let expected = if cut == 0 { &[][..] } else { &expected };
        assert_eq!(ranges, expected.iter().collect::<Vec<_>>(), "cut at {cut}");
        // Not a byte is sent twice.
        assert_eq!(
            n_sent.load(std::sync::atomic::Ordering::Relaxed),
            size,
            "cut at {cut}"
        );
    }
}

#[test]
fn parts_that_are_not_what_was_begun_start_the_download_again() {
    // hardening R15
    type Answer = fn(&Remote, &Request, usize) -> Reply;
    let cases: [(&str, Answer); 3] = [
        ("all of it", |remote, _, _| Reply::ok(remote.blob.clone())),
        ("another place", |remote, _, _| part(remote, 10, Some("\"a\""))),
        ("another version", |remote, _, start| {
            let mut other = remote.clone();
            other.blob.iter_mut().for_each(|byte| *byte ^= 0xff);
            part(&other, start, Some("\"b\""))
        }),
    ];
    for (name, answer) in cases {
        let requests = check_success(name, "127.0.0.1:0", move |remote, request| {
            if !is_blob(request, remote) {
                return remote.answer(request);
            }
            match request.headers.get("range") {
                None if request.n_before == 0 => cut_at(remote, 1000).header("ETag", "\"a\""),
                None => Reply::ok(remote.blob.clone()).header("ETag", "\"b\""),
                Some(range) => answer(remote, request, start_of(range)),
            }
        });
        let n_ranges = requests
            .iter()
            .filter(|request| request.headers.contains_key("range"))
            .count();
        assert_eq!(n_ranges, 1, "{name}");
    }
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says_and_not_before() {
    // hardening R14
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&times);
    let requests = check_success("busy", "127.0.0.1:0", move |remote, request| {
        if !request.path.contains("/manifests/") {
            return remote.answer(request);
        }
        seen.lock().unwrap().push(Instant::now());
        match request.n_before {
            0..3 => Reply::status(429).header("Retry-After", "1"),
            _ => remote.answer(request),
        }
    });
    let times = times.lock().unwrap().clone();
    assert_eq!(times.len(), 4, "{requests:?}");
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_secs(1), "{times:?}");
    }
}

#[test]
fn a_registry_that_is_always_busy_is_waited_for_only_so_long() {
    // hardening R14
    let (_dir, store) = store();
    let store = Arc::new(store);
    let fake = Fake::start(|_| Reply::status(429).header("Retry-After", "1"));
    let retry = Retry {
        n_tries: 100,
        longest: Duration::from_millis(1900),
        ..Retry::default()
    };
    let error = pull_with(&store, &fake.host, retry).unwrap_err();
    assert!(error.to_string().contains("429"), "{error}");
    assert_eq!(fake.requests().len(), 2);
}

#[test]
fn a_registry_that_flaps_is_put_up_with() {
    // hardening R14
    let requests = check_success("flapping", "127.0.0.1:0", |remote, request| {
        match request.n_before % 2 == 0 && request.n_before < 4 {
            true if request.n_before == 2 => Reply::status(503).header("Retry-After", "0"),
            true => Reply::status(503),
            false => remote.answer(request),
        }
    });
    // Manifest, config and layer, each twice.
    assert_eq!(requests.len(), 6);
}

#[test]
fn the_date_of_a_token_does_not_matter() {
    // hardening R18
    for date in ["1970-01-01T00:00:00Z", "2099-12-31T23:59:59Z"] {
        let requests = check_success(date, "127.0.0.1:0", move |remote, request| {
            let host = &request.headers["host"];
            if request.path.starts_with("/token") {
                let token = format!("{{\"token\":\"t\",\"expires_in\":300,\"issued_at\":\"{date}\"}}");
                return Reply::ok(token);
            }
            match request.headers.get("authorization").map(String::as_str) {
                Some("Bearer t") => remote.answer(request),
                _ => Reply::status(401).header(
                    "WWW-Authenticate",
                    format!("Bearer realm=\"http://{host}/token\""),
                ),
            }
        });
        let n_tokens = requests
            .iter()
            .filter(|request| request.path.starts_with("/token"))
            .count();
        assert_eq!(n_tokens, 1, "{date}");
    }
}
