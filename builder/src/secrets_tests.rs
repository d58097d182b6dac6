//! Options of secrets and agents, their values, and what is shown of them: nothing.

#![expect(clippy::disallowed_methods, reason = "directories that only these tests know")]

use super::*;

fn environment(vars: &[(&str, &str)]) -> Environment {
    Environment {
        vars: vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        root: false,
    }
}

#[test]
fn options_say_where_a_secret_is() {
    use SecretSource::{Either, File, Variable};
    let check = |text: &str, expected: Result<SecretSource, &str>| {
        let parsed = SecretOption::parse(text);
        match (parsed, expected) {
            (Ok(parsed), Ok(source)) => {
                assert_eq!((parsed.id.as_str(), parsed.source), ("a", source), "{text}")
            }
            (Err(error), Err(why)) => {
                assert_eq!(error.to_string(), format!("invalid --secret `{text}`: {why}"))
            }
            (parsed, _) => panic!("{text}: {parsed:?}"),
        }
    };
    check("id=a", Ok(Either));
    check("id=a,src=x", Ok(File("x".into())));
    check("ID=a,source=x,type=file", Ok(File("x".into())));
    check("id=a,env=X", Ok(Variable("X".to_owned())));
    check("id=a,type=env,src=X", Ok(Variable("X".to_owned())));
    check("id=a,type=env", Ok(Variable("a".to_owned())));
    check("id=a,type=file", Ok(File("a".into())));
    check("src=x", Err("it has no id"));
    check("id=", Err("it has no id"));
    check("id=a,src=x,env=X", Err("both src and env are given"));
    check("id=a,x=y", Err("unexpected key `x`"));
    check("id=a,src", Err("`src` must be a key=value pair"));
    check("id=a,type=vault", Err("unsupported secret type `vault`"));
}

#[test]
fn values_come_from_files_and_variables_and_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("file"), "of a file").unwrap();
    std::fs::write(path("most"), vec![b'x'; MAX_SECRET_BYTES]).unwrap();
    std::fs::write(path("more"), vec![b'x'; MAX_SECRET_BYTES + 1]).unwrap();
    let env = environment(&[("VAR", "of a variable")]);
    let check = |source: SecretSource, expected: Result<usize, &str>| {
        let options = [SecretOption {
            id: "VAR".to_owned(),
            source,
        }];
        match (Secrets::load(&options, &[], &env), expected) {
            (Ok(secrets), Ok(length)) => {
                let value = secrets.value("VAR").unwrap();
                assert_eq!(value.value().len(), length);
                let shown = format!("{secrets:?} {value:?}");
                assert!(!shown.contains("of a") && shown.contains("****"), "{shown}");
            }
            (Err(error), Err(expected)) => {
                let text = error.to_string();
                assert!(text.starts_with(expected) && !text.contains("of a"), "{text}");
            }
            (loaded, expected) => panic!("{loaded:?} {expected:?}"),
        }
    };
    check(SecretSource::File(path("file")), Ok(9));
    check(SecretSource::File(path("most")), Ok(MAX_SECRET_BYTES));
    check(
        SecretSource::File(path("more")),
        Err("secret VAR is too big: at most 500 KiB are allowed"),
    );
    check(SecretSource::File(path("none")), Err("secret VAR: cannot read /"));
    check(
        SecretSource::File(dir.path().into()),
        Err("secret VAR: cannot read /"),
    );
    check(SecretSource::Variable("VAR".to_owned()), Ok(13));
    check(SecretSource::Either, Ok(13));
    check(
        SecretSource::Variable("NONE".to_owned()),
        Err("secret VAR: the environment variable NONE is not set"),
    );
}

/// case U6 in what steps say.
#[test]
fn values_are_masked_wherever_reads_are_cut() {
    let env = environment(&[("A", "swordfish\n"), ("B", "sword"), ("C", "ab"), ("D", "aaab")]);
    let options: Vec<_> = ["A", "B", "C", "D"]
        .iter()
        .map(|id| SecretOption::parse(&format!("id={id}")).unwrap())
        .collect();
    let secrets = Secrets::load(&options, &[], &env).unwrap();
    let text = "a swordfish, a sword, swor swordswordfish ab aaaab aaaaa sword";
    let expected = "a ****, a ****, swor ******** ab a**** aaaaa ****";
    for length in 1..text.len() {
        let mut mask = secrets.mask();
        let mut out = Vec::new();
        for chunk in text.as_bytes().chunks(length) {
            out.extend(mask.pass(chunk));
        }
        out.extend(mask.finish());
        assert_eq!(String::from_utf8(out).unwrap(), expected, "chunks of {length}");
    }
    assert!(Secrets::default().mask().is_empty() && !secrets.mask().is_empty());
}
