//! Answers about files as data.

use serde_json::{Value, json};

use super::{check, describe_json, outline, targets, unknown};
use crate::options::{Answers, Options, Request};
use crate::{Dockerfile, parse};

fn file(text: &str) -> Dockerfile {
    parse("Dockerfile", text.as_bytes()).0.unwrap()
}

fn options(target: Option<&str>) -> Options {
    Options {
        target: target.map(str::to_owned),
        ..Options::new("linux/amd64".parse().unwrap())
    }
}

/// Removes what every answer repeats.
fn without_places(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
    value.as_object_mut().unwrap().remove("sources");
    let lists = value.as_object_mut().unwrap().values_mut();
    for item in lists.filter_map(Value::as_array_mut).flatten() {
        let place = item.as_object_mut().unwrap().remove("location");
        assert!(place.unwrap()["ranges"][0]["start"]["line"].is_number());
    }
    value
}

#[test]
fn an_outline_has_what_the_target_takes() {
    for (id, text, target, expected) in [
        ("nothing", "FROM scratch", None, json!({})),
        (
            "U3 only the target's",
            "FROM scratch AS a\nARG x=1\nFROM scratch AS b\nARG y=2",
            Some("a"),
            json!({"name": "a", "args": [{"name": "x", "value": "1"}]}),
        ),
        (
            "U3 of stages below, too",
            "FROM scratch AS a\nARG x=1\nFROM a\nARG y",
            None,
            json!({"args": [{"name": "x", "value": "1"}, {"name": "y"}]}),
        ),
        (
            "U3 a global argument that a stage asks for",
            "# g the words\nARG g=1 h=2\nFROM scratch\nARG g",
            None,
            json!({"args": [{"name": "g", "description": "the words", "value": "1"}]}),
        ),
        (
            "U3 an argument behind another one",
            "ARG a=1\nARG b=x$a\nFROM $b",
            None,
            json!({"args": [{"name": "a", "value": "1"}, {"name": "b", "value": "x1"}]}),
        ),
        (
            "U3 mounts",
            "FROM x\nRUN --mount=type=secret,id=s --mount=type=ssh,required true\n\
             RUN --mount=type=secret,target=/t/s --mount=type=cache,target=/c/./d true",
            None,
            json!({
                "secrets": [{"name": "s"}],
                "ssh": [{"name": "default", "required": true}],
                "cache": [{"ID": "/c/d"}],
            }),
        ),
        (
            "U3 what is there by itself",
            "FROM scratch\nARG TARGETARCH",
            None,
            json!({}),
        ),
    ] {
        let outline = outline(&file(text), &options(target), &Answers::default()).unwrap();
        assert_eq!(without_places(&outline.json()), expected, "{id}");
    }
}

#[test]
fn targets_are_all_stages() {
    let file = file("# a first\nFROM x AS a\nFROM --platform=$BUILDPLATFORM a");
    assert_eq!(
        without_places(&targets(&file).json()),
        json!({"targets": [
            {"name": "a", "description": "first", "base": "x"},
            {"default": true, "base": "a", "platform": "$BUILDPLATFORM"},
        ]}),
        "U4"
    );
    assert_eq!(
        targets(&file).text(),
        "TARGET      DESCRIPTION\na           first\n(default)\n",
        "U4"
    );
}

#[test]
fn what_would_have_to_be_known_is_told() {
    let file = file("FROM x AS a\nFROM y\nCOPY --from=z / /");
    let names = |target| -> Vec<String> {
        let needed = unknown(&file, &options(target), &Answers::default());
        let name = |request| match request {
            Request::Image(image) => image.reference,
            other => panic!("{other:?}"),
        };
        needed.into_iter().map(|needed| name(needed.request)).collect()
    };
    assert_eq!(names(None), ["x", "y", "z"]);
    assert_eq!(names(Some("a")), ["x"]);
}

#[test]
fn a_check_tells_mistakes_beside_warnings() {
    let result = check(
        &file("FROM scratch\nMAINTAINER me\nUSER ${x:?none}"),
        &options(None),
        &Answers::default(),
    );
    assert!(!result.is_clean());
    assert!(
        result
            .text()
            .starts_with("Check complete, 1 warning has been found!\n")
    );
    assert_eq!(result.errors(false).len(), 1);
    let json: Value = serde_json::from_str(&result.json()).unwrap();
    assert_eq!(json["warnings"][0]["ruleName"], "MaintainerDeprecated");
    assert_eq!(json["buildError"]["location"]["ranges"][0]["start"]["line"], 3);
}

#[test]
fn the_questions_describe_themselves() {
    let list: Value = serde_json::from_str(&describe_json()).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 4);
    assert_eq!(list[0]["opts"][0]["name"], "target");
}
