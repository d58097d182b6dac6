//! `RUN --mount`, `--security` and `--device`. Spec: dockerfile.md §9.2–§9.5, §20.7.

use solver::op::Mount;

use super::*;
use crate::options::AllowedDevices;

/// One line for each mount, with what is selected of its input.
fn mounts(text: &str, options: &Options) -> String {
    let build = built(text, options);
    let vertex = build.graph.vertex(build.target);
    let Op::Exec(exec) = &vertex.op else {
        panic!("{text}")
    };
    let read = |input: usize, source: &str| {
        let input = &vertex.inputs[input];
        let InputView::Paths(selection) = &input.view else {
            panic!("{text}")
        };
        let tree = match &build.graph.vertex(input.vertex).op {
            Op::Source(Source::Local { name }) => name.clone(),
            Op::Source(Source::Image { reference, .. }) => reference.clone(),
            Op::Source(Source::Scratch) => "scratch".to_owned(),
            _ => "stage".to_owned(),
        };
        format!("{tree}:{source} {:?}", selection.patterns)
    };
    let shown = exec.mounts.iter().map(|mount| match mount {
        Mount::Bind {
            target,
            input,
            source,
            readonly,
        } => format!("bind {target} {} {readonly}", read(*input, source)),
        Mount::Cache(cache) => {
            let from = cache.from.as_ref().map(|(input, source)| read(*input, source));
            format!(
                "cache {} {}/{} {:?} {} {:?} {:o} {}:{}",
                cache.target,
                cache.namespace,
                cache.id,
                cache.sharing,
                cache.readonly,
                from,
                cache.owner.mode,
                cache.owner.uid,
                cache.owner.gid
            )
        }
        Mount::Tmpfs {
            target,
            size_bytes,
            readonly,
        } => format!("tmpfs {target} {size_bytes:?} {readonly}"),
        Mount::Secret {
            id,
            target,
            env,
            required,
            owner,
        } => format!(
            "secret {id} {target:?} {env:?} {required} {:o} {}:{}",
            owner.mode, owner.uid, owner.gid
        ),
        Mount::Ssh {
            id,
            target,
            required,
            owner,
        } => format!(
            "ssh {id} {target} {required} {:o} {}:{}",
            owner.mode, owner.uid, owner.gid
        ),
    });
    shown.collect::<Vec<_>>().join("; ")
}

#[rustfmt::skip]
#[test]
fn mounts_lower() {
    // The value of the flag, below `WORKDIR /w` and variables; other flags may follow.
    for (id, value, expected) in [
        ("R15", "target=/x", "bind /x context:/ [\"/\"] true"),
        ("R16", "target=/x,rw", "bind /x context:/ [\"/\"] false"),
        ("rw=false", "target=/x,rw=false", "bind /x context:/ [\"/\"] true"),
        ("ro wins", "target=/x,rw,ro", "bind /x context:/ [\"/\"] true"),
        ("R17", "from=st,source=/file,target=/x", "bind /x stage:/file [\"/file\"] true"),
        ("S9", "from=ST,src=../f,dst=/x", "bind /x stage:/f [\"/f\"] true"),
        ("R18", "from=busybox,target=/x", "bind /x docker.io/library/busybox:/ [\"/\"] true"),
        ("R19", "target=x/../y", "bind /w/y context:/ [\"/\"] true"),
        ("no target", "source=a", "bind /w context:/a [\"/a\"] true"),
        ("R22", "from=0,target=/x", "bind /x stage:/ [\"/\"] true"),
        ("R23", "target=/${d},source=$d", "bind /dir context:/dir [\"/dir\"] true"),
        ("R23b", "type=cache,id=$d,uid=$u,target=/x", "cache /x /dir Shared false None 755 7:0"),
        ("R23c", "type=$t,target=/x", "tmpfs /x None false"),
        ("literal", "source=a[b]*,target=/x", "bind /x context:/a[b]* [\"/a\\\\[b\\\\]\\\\*\"] true"),
        ("scratch", "from=scratch,target=/x", "bind /x scratch:/ [\"/\"] true"),
        ("R25", "type=cache,target=/x/", "cache /x //x Shared false None 755 0:0"),
        ("R25b", "type=cache,target=x", "cache /w/x /x Shared false None 755 0:0"),
        ("no cache target", "type=cache", "cache /w /. Shared false None 755 0:0"),
        ("R26", "type=cache,target=/x,sharing=locked", "cache /x //x Locked false None 755 0:0"),
        ("R26b", "type=cache,target=/x,sharing=PRIVATE", "cache /x //x Private false None 755 0:0"),
        ("R27", "type=cache,target=/x,uid=1000,gid=1001,mode=0700", "cache /x //x Shared false None 700 1000:1001"),
        ("R29", "type=cache,target=/x,from=st,source=/s", "cache /x //x Shared false Some(\"stage:/s [\\\"/s\\\"]\") 755 0:0"),
        ("R31", "type=cache,target=/x,ro", "cache /x //x Shared true None 755 0:0"),
        ("R32", "type=tmpfs,target=/x,size=64m", "tmpfs /x Some(67108864) false"),
        ("quirk 15", "size=1k,target=/x,type=tmpfs", "tmpfs /x Some(1024) false"),
        ("R34", "type=secret,id=a/b", "secret a/b Some(\"/run/secrets/b\") None false 400 0:0"),
        ("R35", "type=secret,id=s,target=/x,mode=0741,uid=1,gid=2", "secret s Some(\"/x\") None false 741 1:2"),
        ("target only", "type=secret,target=/x/y", "secret y Some(\"/x/y\") None false 400 0:0"),
        ("source", "type=secret,source=s", "secret s Some(\"/run/secrets/s\") None false 400 0:0"),
        ("R37", "required,type=secret,id=s", "secret s Some(\"/run/secrets/s\") None true 400 0:0"),
        ("R38", "type=secret,id=s,env=FOO", "secret s None Some(\"FOO\") false 400 0:0"),
        ("R38b", "type=secret,id=s,env=FOO,target=/x", "secret s Some(\"/x\") Some(\"FOO\") false 400 0:0"),
        ("env named by id", "type=secret,id=s,env=", "secret s None Some(\"s\") false 400 0:0"),
        ("R42", "type=ssh", "ssh default /run/buildkit/ssh_agent.0 false 600 0:0"),
        ("R42b", "type=ssh,required=true,target=/s", "ssh default /s true 600 0:0"),
        ("R43", "type=ssh,id=a --mount=type=ssh,id=b", "ssh a /run/buildkit/ssh_agent.0 false 600 0:0; ssh b /run/buildkit/ssh_agent.1 false 600 0:0"),
        ("R46", "target=/x --mount=type=tmpfs,target=/x/y", "bind /x context:/ [\"/\"] true; tmpfs /x/y None false"),
        ("keys in capitals", "TYPE=Tmpfs,Target=/x", "tmpfs /x None false"),
        ("last", "target=/a,target=/b", "bind /b context:/ [\"/\"] true"),
        ("csv", "'\"target=/a,b\",\"source=x\"\"y\"\"\"'", "bind /a,b context:/xy [\"/xy\"] true"),
        ("quoted flag", "\"type=tmpfs,target=/a b\"", "tmpfs /a b None false"),
    ] {
        let text = format!(
            "FROM base AS st\nRUN a\nFROM base\nENV d=dir u=7 t=tmpfs\nWORKDIR /w\nRUN --mount={value} x"
        );
        assert_eq!(mounts(&text, &options()), expected, "{id}");
    }
    let text = "FROM base\nRUN --mount=type=cache,target=/x y";
    let named = with_args(&[("BUILDKIT_CACHE_MOUNT_NS", "ns")]);
    assert_eq!(mounts(text, &named), "cache /x ns//x Shared false None 755 0:0");
}

#[rustfmt::skip]
#[test]
fn mounts_that_are_refused() {
    let plain = options();
    for (id, value, phrase) in [
        ("R12", "type=tmp,target=/x", "unsupported mount type \"tmp\"\n --> Dockerfile:2:18\n2 | RUN --mount=type=tmp,target=/x y\n  |                  ^^^"),
        ("R12b", "type=bnd", "did you mean `bind`?"),
        ("R13", "typ=bind", "unexpected key 'typ' in 'typ=bind'\n --> Dockerfile:2:13\n2 | RUN --mount=typ=bind y\n  |             ^^^ did you mean `type`?"),
        ("R14", "target=/x,foo", "invalid field 'foo' must be a key=value pair\n --> Dockerfile:2:23"),
        ("R14b", "target=/x,", "invalid field '' must be a key=value pair"),
        ("R14c", "target", "invalid field 'target' must be a key=value pair"),
        ("R20", "target=/", "invalid mount target \"/\"\n --> Dockerfile:2:20"),
        ("R20b", "source=x", "invalid mount target \"/\""),
        ("R20c", "type=secret,id=x,target=/", "invalid mount target \"/\""),
        ("R21", "from=$x,target=/y", "'from' doesn't support variable expansion, define alias stage instead\n --> Dockerfile:2:18"),
        ("R22", "from=9,target=/x", "invalid stage index 9"),
        ("R30b", "type=cache,target=/x,sharing=global", "ashlar build --cache-ns global"),
        ("R30", "type=cache,target=/x,sharing=lokced", "unsupported sharing value \"lokced\""),
        ("R30b", "type=cache,target=/x,sharing=lokced", "did you mean `locked`?"),
        ("R33", "target=/x,size=1", "unexpected key 'size' for mount type 'bind'\n --> Dockerfile:2:23"),
        ("R40", "type=secret,id=x,from=y", "secret mount should not have a from"),
        ("sharing", "type=secret,id=x,sharing=locked", "secret mount should not define sharing"),
        ("sharing of bind", "target=/x,sharing=locked", "invalid cache sharing set for bind mount"),
        ("required", "type=bind,target=/x,required", "unexpected key 'required' for mount type 'bind'"),
        ("secret", "type=secret", "invalid secret mount. one of source, target required"),
        ("both", "type=secret,id=a,source=b", "both source and id can't be set"),
        ("mode", "target=/x,mode=0700", "mode not allowed for \"bind\" type mounts"),
        ("uid", "type=tmpfs,target=/x,uid=0", "uid not allowed for \"tmpfs\" type mounts"),
        ("ssh source", "type=ssh,source=x", "ssh does not support source"),
        ("ro", "target=/x,ro=maybe", "invalid value for ro: maybe"),
        ("bad mode", "type=cache,target=/x,mode=9", "invalid value 9 for mode"),
        ("bad uid", "type=cache,target=/x,uid=me", "invalid value me for uid"),
        ("bad size", "type=tmpfs,target=/x,size=big", "invalid value for size: big"),
        ("cache source", "type=cache,target=/x,source=/y", "cache mount with a source needs a from"),
        ("csv", "'target=/x\"'", "bare \" in non-quoted field"),
        ("csv2", "'\"target=/x'", "extraneous or missing \" in quoted field"),
        ("csv3", "'\"target=/x\"y'", "extraneous or missing \" in quoted field"),
        ("expansion", "target=${x", "syntax error: missing '}'"),
        ("late type", "type=${x:-tmp},target=/x", "unsupported mount type \"tmp\""),
    ] {
        refused(id, &format!("FROM scratch\nRUN --mount={value} y"), &plain, phrase);
    }
    let later = "FROM scratch\nRUN --mount=from=b,target=/y x\nFROM scratch AS b\nFROM scratch\nCOPY --from=0 / /";
    let phrase = "cannot mount from stage \"b\" to \"/y\", stage needs to be defined before current command";
    refused("later", later, &plain, phrase);
    let unreached = "FROM scratch\nRUN --mount=from=b,target=/y x\nFROM scratch AS b\n";
    refused("in a stage that isn't built", unreached, &plain, phrase);
    let trigger = "FROM scratch AS a\nONBUILD RUN --mount=from=0,target=/ x\nFROM a";
    refused("at the FROM line", trigger, &plain, "invalid mount target \"/\"\n --> Dockerfile:3:1");
    refused("at the ONBUILD line", "FROM scratch\nONBUILD RUN --mount=typ=x y", &plain, "Dockerfile:2:21");
}

#[test]
fn stages_are_reached_through_mounts() {
    let text = "FROM a AS x\nFROM b AS y\nFROM base\nRUN --mount=from=x,target=/x --mount=type=tmpfs,from=y,target=/y z";
    let asked = lowered(text, &options()).1.join("\n");
    assert_eq!(asked, "a Registry linux/amd64\nbase Registry linux/amd64");
    let trigger = "FROM scratch AS p\nONBUILD RUN --mount=from=other,target=/x y\nFROM p";
    assert_eq!(
        lowered(trigger, &options()).1,
        ["other Registry linux/amd64"],
        "I20"
    );
    let named_contexts = BTreeMap::from([("src".to_owned(), NamedContext::Directory)]);
    let options = Options {
        named_contexts,
        ..options()
    };
    let text = "FROM base\nRUN --mount=from=src,target=/x y";
    assert_eq!(mounts(text, &options), "bind /x src:/ [\"/\"] true", "S28");
    assert_eq!(built(text, &options).contexts.iter().collect::<Vec<_>>(), ["src"]);
}

#[test]
fn privileges_need_entitlements() {
    let plain = options();
    for (id, flag, phrase) in [
        (
            "R9",
            "--security=insecure",
            "entitlement security.insecure is not allowed",
        ),
        ("R52", "--device=a.b/c=d", "entitlement device is not allowed"),
        ("R52b", "--device=name=x,name=y", "device name already set to x"),
        ("R52c", "--device=x,required=2", "invalid value for required: 2"),
        (
            "R52d",
            "--device=x,requird=1",
            "unexpected key 'requird' in 'requird=1'",
        ),
        (
            "R52e",
            "--device=x,y",
            "invalid field 'y' must be a key=value pair",
        ),
        ("R52f", "--device=required", "--device needs the name of a device"),
    ] {
        refused(id, &format!("FROM base\nRUN {flag} x"), &plain, phrase);
    }
    let allowed = Options {
        allow_security_insecure: true,
        allow_device: AllowedDevices::All,
        ..options()
    };
    let text = "FROM base\nRUN --security=insecure --device=a.b/c=d,required --device=name=x y";
    let run = exec(text, &allowed);
    assert_eq!(run.security, solver::op::Security::Insecure, "R9");
    let devices = run
        .devices
        .iter()
        .map(|device| format!("{} {}", device.name, device.required));
    assert_eq!(devices.collect::<Vec<_>>(), ["a.b/c=d true", "x false"], "R52");
    let named = Options {
        allow_device: AllowedDevices::Named(["x".to_owned()].into()),
        ..options()
    };
    assert_eq!(exec("FROM base\nRUN --device=x y", &named).devices.len(), 1);
    refused(
        "R52",
        "FROM base\nRUN --device=z y",
        &named,
        "entitlement device is not allowed",
    );
    let sandbox = exec("FROM base\nRUN --security=sandbox x", &plain);
    assert_eq!(sandbox.security, solver::op::Security::Sandbox, "R10");
}
