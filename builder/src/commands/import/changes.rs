//! What `ashlar import --change` says of the new image's config: single instructions of a Dockerfile, those that change
//! settings and make no files.

use frontend::ast::Kind as Instruction;
use frontend::{Answers, ImageConfig, Lowered, Options, Platform, SourceText};
use serde_json::Value;
use solver::Graph;

use crate::failure;
use crate::report::Failure;

/// Returns the `config` of an image with these changes, made in order.
pub(super) fn config(changes: &[String], platform: &Platform) -> Result<Value, Failure> {
    if let Some(bad) = changes.iter().find(|change| change.trim_end().contains('\n')) {
        return Err(Failure::usage(format!(
            "invalid --change `{}`: more than one line",
            bad.escape_debug()
        )));
    }
    let changed = settled(changes, platform)?;
    let mut config = serde_json::to_value(&changed.config)
        .map_err(|error| Failure::bug(format!("a config is no JSON: {error}")))?;
    // What every build from scratch begins with, nobody asked for here.
    let given = settled(&[], platform)?.config.env;
    if let Some(env) = config.get_mut("Env").and_then(Value::as_array_mut) {
        env.retain(|entry| !given.iter().any(|known| entry.as_str() == Some(known)));
        if env.is_empty() {
            config["Env"] = Value::Null;
        }
    }
    if let Some(fields) = config.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        // A build sets it, if only to what it is.
        if !changes.iter().any(|change| is_workdir(change)) {
            fields.retain(|name, _| name != "WorkingDir");
        }
    }
    Ok(config)
}

fn is_workdir(change: &str) -> bool {
    let word = change.split_whitespace().next().unwrap_or_default();
    word.eq_ignore_ascii_case("WORKDIR")
}

fn settled(changes: &[String], platform: &Platform) -> Result<ImageConfig, Failure> {
    let text = format!("FROM scratch\n{}\n", changes.join("\n"));
    let source = SourceText::new("--change", text.as_bytes());
    let told = |diagnostics| failure::of_diagnostics(&diagnostics, &source);
    let (dockerfile, diagnostics) = frontend::parse("--change", text.as_bytes());
    let Some(dockerfile) = dockerfile else {
        return Err(told(diagnostics));
    };
    let [stage] = &dockerfile.stages[..] else {
        return Err(refused("FROM"));
    };
    for instruction in &stage.instructions {
        let name = match &instruction.kind {
            Instruction::Add(_) => "ADD",
            Instruction::Arg(_) => "ARG",
            Instruction::Copy(_) => "COPY",
            Instruction::Run(_) => "RUN",
            _ => continue,
        };
        return Err(refused(name));
    }
    let options = Options::new(platform.clone());
    let mut graph = Graph::default();
    let lowered = frontend::lower(&dockerfile, &options, &Answers::default(), &mut graph).map_err(told)?;
    match lowered {
        Lowered::Ready(build) => Ok(build.config),
        // Nothing of these asks for anything.
        Lowered::Need(_) => Err(refused("an instruction that fetches something")),
    }
}

fn refused(what: &str) -> Failure {
    Failure::usage(format!("{what} is not a valid change command")).with_help(
        "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR are",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::options::host_platform;

    #[test]
    fn changes_are_settings_and_nothing_else() {
        let of = |changes: &[&str]| {
            let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
            config(&changes, &host_platform())
        };
        assert_eq!(of(&[]).unwrap(), json!({}));
        assert_eq!(
            of(&["CMD [\"a\", \"b\"]", "env A=b", "ENV C=$A", "LABEL l=\"x y\""]).unwrap(),
            json!({"ArgsEscaped": true, "Cmd": ["a", "b"], "Env": ["A=b", "C=b"], "Labels": {"l": "x y"}})
        );
        let config = of(&["WORKDIR /srv", "USER 5:6", "EXPOSE 80", "VOLUME /data"]).unwrap();
        assert_eq!(
            config,
            json!({
                "User": "5:6",
                "ExposedPorts": {"80/tcp": {}},
                "Volumes": {"/data": {}},
                "WorkingDir": "/srv",
            })
        );
        for (bad, expected) in [
            ("RUN true", "RUN is not a valid change command"),
            ("COPY a b", "COPY is not"),
            ("FROM busybox", "FROM is not"),
            ("ARG x", "ARG is not"),
            ("CMD a\nCMD b", "more than one line"),
        ] {
            let failure = of(&[bad]).unwrap_err();
            assert!(
                failure.message().contains(expected),
                "{bad}: {}",
                failure.message()
            );
        }
        assert!(of(&["FLY away"]).is_err());
    }
}
