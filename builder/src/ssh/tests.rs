//! What `--ssh` takes, which keys can be read, and that their signatures are what ssh-keygen believes.

#![expect(clippy::disallowed_methods, reason = "directories that only these tests know")]

use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use super::wire::{Reader, put_number, put_string};
use super::*;

fn environment(vars: &[(&str, &str)]) -> Environment {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Environment {
        vars: vars.iter().map(own).collect(),
        root: false,
    }
}

/// Runs a program in a directory and returns what it said.
fn run(dir: &Path, argv: &str) -> String {
    let mut words = argv.split(' ').map(|word| word.replace('_', ""));
    let mut command = Command::new(words.next().unwrap());
    let output = command
        .args(words)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{argv}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Says whether keys can be made; says so visibly where they can't.
fn can_make_keys() -> bool {
    let found = Command::new("ssh-keygen").arg("-?").output().is_ok();
    if !found {
        let thread = std::thread::current();
        eprintln!(
            "SKIP {}: ssh-keygen is not installed",
            thread.name().unwrap_or("ssh")
        );
    }
    found
}

#[test]
fn options_name_a_socket_or_keys() {
    let check = |text: &str, expected: Result<(&str, &[&str]), &str>| match (SshOption::parse(text), expected)
    {
        (Ok(option), Ok((id, paths))) => {
            assert_eq!(option.id, id, "{text}");
            assert_eq!(
                option.paths,
                paths.iter().map(PathBuf::from).collect::<Vec<_>>(),
                "{text}"
            );
        }
        (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
        (parsed, expected) => panic!("{text}: {parsed:?} {expected:?}"),
    };
    check("default", Ok(("default", &[])));
    check("a=x", Ok(("a", &["x"])));
    check("a=x,y,raw=false", Ok(("a", &["x", "y"])));
    check("=x", Err("it has no id"));
    check("a=", Err("a socket or key is missing"));
    check("a=x,,y", Err("a socket or key is missing"));
    check("a=x,raw=true", Err("raw=true isn't supported"));
}

#[test]
fn agents_are_sockets_or_keys() {
    if !can_make_keys() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let _listener = UnixListener::bind(path("socket")).unwrap();
    std::fs::write(path("text"), "-----BEGIN NOTHING-----").unwrap();
    std::fs::write(path("large"), vec![b'-'; 70_000]).unwrap();
    run(dir.path(), "ssh-keygen -q -t ed25519 -N _ -f one");
    let none = environment(&[]);
    let socket = path("socket");
    let agent = environment(&[("SSH_AUTH_SOCK", &socket)]);
    let check = |text: &str, environment: &Environment, expected: &str| {
        let loaded = SshOption::parse(text).and_then(|option| Agent::load(&option, environment));
        let shown = match loaded {
            Ok(agent) => format!("{agent:?}"),
            Err(error) => error.to_string(),
        };
        assert!(shown.contains(expected), "{text}: {shown}");
    };
    check("default", &agent, &format!("Socket({socket:?})"));
    check(&format!("a={socket}"), &none, &format!("Socket({socket:?})"));
    check("default", &none, "make sure SSH_AUTH_SOCK is set");
    check("a=/nowhere", &none, "ssh a: cannot use /nowhere: No such file");
    check(
        &format!("a={},{}", path("one"), path("one")),
        &none,
        "Keyring(2 keys)",
    );
    check(
        &format!("a={},{socket}", path("one")),
        &none,
        "must be the only path",
    );
    for name in ["text", "large", "one.pub"] {
        check(
            &format!("a={}", path(name)),
            &none,
            "neither a socket nor a private key",
        );
    }
}

/// Files of keys, as `ssh-keygen` and `openssl` make them; `None` where the key is listed and signs.
const KEYS: &[(&str, Option<&str>)] = &[
    ("ssh-keygen -q -t ed25519 -C somebody -N _ -f key", None),
    ("ssh-keygen -q -t ecdsa -b 256 -N _ -f key", None),
    ("ssh-keygen -q -t ecdsa -b 384 -N _ -f key", None),
    ("ssh-keygen -q -t rsa -b 2048 -N _ -f key", None),
    ("ssh-keygen -q -t rsa -b 3072 -N _ -f key", None),
    ("ssh-keygen -q -m PEM -t rsa -b 2048 -N _ -f key", None),
    ("ssh-keygen -q -m PKCS8 -t rsa -b 2048 -N _ -f key", None),
    ("ssh-keygen -q -m PEM -t ecdsa -b 256 -N _ -f key", None),
    ("ssh-keygen -q -m PEM -t ecdsa -b 384 -N _ -f key", None),
    ("ssh-keygen -q -m PKCS8 -t ecdsa -b 256 -N _ -f key", None),
    ("ssh-keygen -q -m PKCS8 -t ecdsa -b 384 -N _ -f key", None),
    ("ssh-keygen -q -t ed25519 -N swordfish -f key", Some("passphrase")),
    (
        "ssh-keygen -q -m PEM -t rsa -b 2048 -N swordfish -f key",
        Some("passphrase"),
    ),
    (
        "ssh-keygen -q -m PKCS8 -t ecdsa -N swordfish -f key",
        Some("passphrase"),
    ),
    (
        "ssh-keygen -q -t ecdsa -b 521 -N _ -f key",
        Some("ecdsa-sha2-nistp521 keys can't be used here"),
    ),
    (
        "ssh-keygen -q -t rsa -b 1024 -N _ -f key",
        Some("of a size that can't be used here"),
    ),
];

#[test]
fn keys_of_every_format_sign_as_ssh_would() {
    if !can_make_keys() {
        return;
    }
    for (argv, refused) in KEYS {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), argv);
        match (Key::read(&dir.path().join("key")), refused) {
            (Ok(key), None) => check_key(dir.path(), key, argv),
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{argv}: {error}"),
            (Ok(_), Some(_)) => panic!("{argv}: it was taken"),
            (Err(error), None) => panic!("{argv}: {error}"),
        }
    }
}

/// Signs as a file's author would, and lets ssh-keygen look at the signature. Spec: OpenSSH, PROTOCOL.sshsig.
fn check_key(dir: &Path, key: Key, argv: &str) {
    let public = std::fs::read_to_string(dir.join("key.pub")).unwrap();
    let comment = match argv.contains("-m ") {
        true => "",
        false => public.trim_end().splitn(3, ' ').nth(2).unwrap_or_default(),
    };
    let keyring = Keyring::new(vec![key]);
    let answer = keyring.answer(&[0, 0, 0, 1, 11]);
    let mut reader = Reader(&answer);
    let header = (reader.number(), reader.take(1), reader.number());
    assert_eq!(
        header,
        (Some(answer.len() as u32 - 4), Some(&[12][..]), Some(1)),
        "{argv}"
    );
    let blob = reader.string().unwrap();
    assert_eq!(reader.string(), Some(comment.as_bytes()), "{argv}");
    let is_rsa = public.starts_with("ssh-rsa");
    for (flags, name, hash) in [(4, "sha512", "sha512sum"), (2, "sha256", "sha256sum")] {
        std::fs::write(dir.join("text"), "what is signed").unwrap();
        let digest = run(dir, &format!("{hash} text"));
        let signed = sshsig(None, blob, name, &unhex(digest.split(' ').next().unwrap()));
        let signature = ask(&keyring, blob, &signed, flags).unwrap();
        let kind = String::from_utf8_lossy(Reader(&signature).string().unwrap()).into_owned();
        if is_rsa {
            assert_eq!(kind, format!("rsa-sha2-{}", &name[3..]), "{argv}");
        }
        let whole = sshsig(Some(&signature), blob, name, &[]);
        std::fs::write(dir.join("text.sig"), armored(&whole)).unwrap();
        std::fs::write(dir.join("allowed"), format!("me {public}")).unwrap();
        let verify = "ssh-keygen -Y verify -f allowed -I me -n file -s text.sig <text";
        let output = Command::new("sh")
            .args(["-c", verify])
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{argv} {name}: {output:?}");
    }
    // SHA-1 isn't signed any more; keys that aren't here don't sign; what makes no sense is answered.
    assert_eq!(ask(&keyring, blob, b"data", 0).is_none(), is_rsa, "{argv}");
    assert_eq!(ask(&keyring, &blob[1..], b"data", 4), None);
    for question in [&[0, 0, 0, 1, 13][..], &[0, 0, 0, 1, 19], &[0, 0, 0, 0], &[]] {
        assert_eq!(keyring.answer(question), keyring::FAILURE, "{question:?}");
    }
}

/// Asks for a signature.
fn ask(keyring: &Keyring, blob: &[u8], data: &[u8], flags: usize) -> Option<Vec<u8>> {
    let mut request = vec![keyring::SIGN_REQUEST];
    put_string(&mut request, blob);
    put_string(&mut request, data);
    put_number(&mut request, flags);
    let mut question = Vec::new();
    put_string(&mut question, &request);
    let answer = keyring.answer(&question);
    let mut reader = Reader(&answer);
    let (_, kind) = (reader.number()?, reader.take(1)?);
    (kind == [14]).then(|| reader.string().unwrap().to_vec())
}

/// Returns what a signature of a file is of, or, with the signature, what is written to disk.
fn sshsig(signature: Option<&[u8]>, blob: &[u8], hash: &str, digest: &[u8]) -> Vec<u8> {
    let mut bytes = b"SSHSIG".to_vec();
    if signature.is_some() {
        put_number(&mut bytes, 1);
        put_string(&mut bytes, blob);
    }
    for field in [b"file", &b""[..], hash.as_bytes()] {
        put_string(&mut bytes, field);
    }
    put_string(&mut bytes, signature.unwrap_or(digest));
    bytes
}

fn armored(bytes: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(70)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
        lines.join("\n")
    )
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Whatever a file says is an error, and never a panic: it is cut everywhere, and every byte of what it holds is another.
#[test]
fn damaged_keys_are_errors() {
    if !can_make_keys() {
        return;
    }
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), "ssh-keygen -q -t ed25519 -N _ -f key");
    let text = std::fs::read_to_string(dir.path().join("key")).unwrap();
    for length in 0..text.trim_end().len() {
        Key::parse(&text.as_bytes()[..length]).err().unwrap();
    }
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let bytes = engine.decode(body).unwrap();
    let comment = bytes.len() - 40;
    for at in 0..comment {
        let mut changed = bytes.clone();
        changed[at] ^= 0x41;
        let body = engine.encode(changed);
        let text = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----");
        let _ = Key::parse(text.as_bytes());
    }
}
