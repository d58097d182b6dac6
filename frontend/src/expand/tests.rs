//! Spec: dockerfile.md §6.2, §20.4.

use super::{Quotes, Variables, expand};

fn variables() -> Variables {
    let mut env = Variables::default();
    for (name, value) in [
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("KOREAN", "한국어"),
        ("EMPTY", ""),
        ("p", "a/b/c"),
        ("s", "foo"),
        ("x", "set"),
        ("x_y", "xy"),
        ("PORTS", "80 443/tcp"),
        ("star", "a*b"),
        ("stars", "x*/*/y"),
        ("literal", r"\*/"),
        ("slash", "/"),
        ("odd", r"()[]{}^$.*?|\x"),
        ("path", "/usr/local/lib.tar.gz"),
    ] {
        env.set(name, value);
    }
    env
}

/// Errors are written as `!message`.
#[track_caller]
fn check(word: &str, expected: &str) {
    let shown = match expand(word, '\\', Quotes::Remove, &variables()) {
        Ok(expansion) => expansion.text,
        Err(error) => format!("!{error}"),
    };
    assert_eq!(shown, expected, "{word}");
}

#[rustfmt::skip]
#[test]
fn words_expand() {
    for (word, expected) in [
        ("", ""),
        ("hello", "hello"),
        ("he'll'o", "hello"),
        (
            "he'llo",
            "!unexpected end of statement while looking for matching single-quote",
        ),
        (r"he\'llo", "he'llo"),
        (r#""he\$PWD""#, "he$PWD"),
        (r"'he\$PWD'", r"he\$PWD"),
        ("he$PWD", "he/home"),
        ("he$UNKNOWN", "he"),
        ("he.$", "he.$"),
        ("he$.", "he$."),
        (r#""$""#, "$"),
        ("${PWD", "!syntax error: missing '}'"),
        ("${", "!syntax error: missing '}'"),
        ("${}", "!syntax error: bad substitution"),
        ("${:x}", "!syntax error: bad substitution"),
        ("${{", "!syntax error: bad substitution"),
        ("he${PWD:=000}xx", "!unsupported modifier (:=) in substitution"),
        ("${x:#y}", "!unsupported modifier (:#) in substitution"),
        ("${x.}", "!unsupported modifier (.) in substitution"),
        ("he${PWD:+${PWD}:}xx", "he/home:xx"),
        (r"he${XXX:-\$PWD:}xx", "he$PWD:xx"),
        (r#"he${XXX:-"A B"}"#, "heA B"),
        ("안녕$KOREAN", "안녕한국어"),
        ("$1", ""),
        ("${1}", ""),
        ("$@", ""),
        ("$0x", "x"),
        ("a$*b", "ab"),
        ("${EMPTY:-d}|${EMPTY-d}", "d|"),
        ("${EMPTY:+d}|${EMPTY+d}", "|d"),
        ("${FOO:?msg}", "!FOO: msg"),
        ("${FOO:?}", "!FOO: is not allowed to be unset"),
        ("${EMPTY:?}", "!EMPTY: is not allowed to be empty"),
        ("${EMPTY?}", ""),
        ("${p#*/}", "b/c"),
        ("${p##*/}", "c"),
        ("${p%/*}", "a/b"),
        ("${p%%/*}", "a"),
        ("${p#x}", "a/b/c"),
        (
            "${path%%.*}|${path##*.}|${path%.???*}",
            "/usr/local/lib|gz|/usr/local/lib",
        ),
        ("${KOREAN#?}|${KOREAN%?}", "국어|한국"),
        (r"${star#a\*}|${star%'*b'}", "b|a*"),
        ("${s/o/0}", "f0o"),
        ("${s//o/0}", "f00"),
        ("${s//o*/x}", "fx"),
        ("${s//?/ab}", "ababab"),
        ("${s///-}", "-f-o-o-"),
        ("${s//-}", "!syntax error: missing '/' in ${}"),
        ("${s/$EMPTY/x}", "xfoo"),
        ("${EMPTY/*/x}|${s//*/x}", "x|x"),
        (r"${p//\//_}", "a_b_c"),
        (r"${p//b/\}}", r"a/\}/c"),
        (r"${p//\//\/}", r"a\/b\/c"),
        ("${p/$slash/-}", "a-b/c"),
        ("${stars/$literal/.}|${stars//$literal/.}", "x.*/y|x..y"),
        (
            r"${x#\s}",
            r"!invalid pattern (\s) in substitution: invalid escape '\s'",
        ),
        (r"${x#s\\}", "set"),
        (r"${odd#()[]{\}^$.\*\?|\\}", "x"),
        ("${s%%$EMPTY}|${s##}|${s%}", "foo|foo|foo"),
        ("${p/b}", "!syntax error: missing '/' in ${}"),
        ("${s/$s/$p}", "a/b/c"),
        (
            r#""$x"#,
            "!unexpected end of statement while looking for matching double-quote",
        ),
        (r"\$x", "$x"),
        ("'$x'", "$x"),
        ("$x_y|${x}_y", "xy|set_y"),
        ("${a:-${b:-c}}", "c"),
        (r"a\", "a"),
        (r#""a\b\"c""#, r#"a\b"c"#),
        (r#"a'b'"c"d"#, "abcd"),
        (r#""${x:-'}'}""#, "set"),
    ] {
        check(word, expected);
    }
}

#[rustfmt::skip]
#[test]
fn quotes_escapes_and_names() {
    for (word, expected) in [
        // What escapes do, outside of quotes, in double and in single ones.
        (r"he\\'llo'", r"he\llo"),
        (r"a\tb", "atb"),
        (r#""a\tb""#, r"a\tb"),
        (r#""a\\tb""#, r"a\tb"),
        (r"'a\\tb'", r"a\\tb"),
        (r"a\\", r"a\"),
        (
            r#""a\""#,
            "!unexpected end of statement while looking for matching double-quote",
        ),
        (r"'a\'", r"a\"),
        (r#""''""#, "''"),
        (r#"'"a"'"#, "\"a\""),
        (r"a\\$PWD", r"a\/home"),
        (r#""a\\$PWD'$PWD'""#, r"a\/home'/home'"),
        (r"\${}a", "${}a"),
        // Names: letter case counts, special ones are never set, others end where no name goes on.
        ("a$pwd.", "a."),
        ("a$1x", "ax"),
        ("a$.x", "a$.x"),
        ("a$ä$KOREANx", "a"),
        ("$PWD/x${PWD}x", "/home/x/homex"),
        ("$?$!$-$#$$", ""),
        ("he${.}", "!unsupported modifier (.) in substitution"),
        ("${#PWD}", "!unsupported modifier (P) in substitution"),
        ("${x:y}", "!unsupported modifier (:y) in substitution"),
        ("${x:", "!syntax error: missing '}'"),
        ("${x:-", "!syntax error: missing '}'"),
        ("${x=y}", "!unsupported modifier (=) in substitution"),
        // Words inside of braces.
        ("${no:-${PWD:-a}}b", "/homeb"),
        ("${no:-a b}", "a b"),
        (r"a${no:-\${PWD}z}b", "a${PWDz}b"),
        ("${no?}", "!no: is not allowed to be unset"),
        ("${no?a $x}", "!no: a set"),
        ("${PWD:?}${PWD?}", "/home/home"),
        ("${no:+$PWD}${PWD:+$no}${PWD:+$SHELL}", "bash"),
        ("${no-'a b'}${no-\"$x\"}", "a bset"),
    ] {
        check(word, expected);
    }
}

#[test]
fn v24_the_escape_character_can_be_a_backquote() {
    for (word, expected) in [
        ("`$x", "$x"),
        (r"C:\a\$x", r"C:\a\set"),
        ("\"`\"`$\"", "\"$"),
        ("``", "`"),
    ] {
        assert_eq!(
            expand(word, '`', Quotes::Remove, &variables()).unwrap().text,
            expected,
            "{word}"
        );
    }
}

#[test]
fn v32_words_split_where_nothing_protects() {
    for (word, expected) in [
        ("$PORTS", vec!["80", "443/tcp"]),
        ("\"$PORTS\"", vec!["80 443/tcp"]),
        ("1$PORTS' 'x", vec!["180", "443/tcp x"]),
        ("$EMPTY", vec![]),
        ("''", vec![]),
        ("''a ' '", vec!["a", " "]),
        ("${no:-a  b}c", vec!["a", "bc"]),
        ("  a\tb ", vec!["a", "b"]),
        (r"a\ b c", vec!["a b", "c"]),
    ] {
        assert_eq!(
            expand(word, '\\', Quotes::Remove, &variables()).unwrap().words,
            expected,
            "{word}"
        );
    }
}

#[test]
fn h14_quotes_are_plain_in_heredoc_bodies() {
    for (body, expected) in [
        ("\"it's $x\"\n", "\"it's set\"\n"),
        (r"\$v \\ \a", r"$v \ a"),
        ("a\\\nb", "ab"),
        ("${no:-\"d\"}", "\"d\""),
    ] {
        assert_eq!(
            expand(body, '\\', Quotes::Plain, &variables()).unwrap().text,
            expected,
            "{body}"
        );
    }
}

#[test]
fn names_of_steps_keep_what_is_unknown() {
    for (text, expected) in [
        (
            "echo \"$x\" '$x' $nope ${nope:-d} a\\b",
            "echo \"set\" '$x' $nope ${nope:-d} a\\b",
        ),
        ("${x:+y}", "y"),
    ] {
        assert_eq!(
            expand(text, '\\', Quotes::Keep, &variables()).unwrap().text,
            expected,
            "{text}"
        );
    }
}

#[test]
fn unset_names_are_told() {
    let done = expand(
        "$a ${b} ${c:-d} ${e#x} $x $1 ${x:+$f}",
        '\\',
        Quotes::Remove,
        &variables(),
    )
    .unwrap();
    assert_eq!(done.unset, ["a", "b", "e", "f"]);
}

#[test]
fn hostile_words_are_refused() {
    let env = variables();
    let deep = format!("{}x{}", "${a:-".repeat(100), "}".repeat(100));
    assert_eq!(
        expand(&deep, '\\', Quotes::Remove, &env).unwrap_err().to_string(),
        "substitutions are nested more than 64 deep"
    );
    let mut env = env;
    env.set("big", &"x".repeat(1 << 20));
    let error = expand("$big$big", '\\', Quotes::Remove, &env).unwrap_err();
    assert!(
        error.to_string().starts_with("the result is larger than"),
        "{error}"
    );
    let error = expand("${big//x/$big}", '\\', Quotes::Remove, &env).unwrap_err();
    assert!(
        error.to_string().starts_with("the result is larger than"),
        "{error}"
    );
    let error = expand("${big#$big}", '\\', Quotes::Remove, &env).unwrap_err();
    assert_eq!(error.to_string(), "the pattern is longer than 1024 characters");
    // Much work for a short result, in one word.
    let error = expand(&"${big##*}".repeat(100), '\\', Quotes::Remove, &env).unwrap_err();
    assert!(
        error.to_string().starts_with("expanding it takes more than"),
        "{error}"
    );
    assert!(error.steps() > 0);
    let done = expand("${big##*}", '\\', Quotes::Remove, &env).unwrap();
    assert_eq!((done.text.as_str(), done.steps > 1 << 20), ("", true));
}
