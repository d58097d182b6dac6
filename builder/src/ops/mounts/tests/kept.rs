//! Cache mounts: what they begin with, who shares them, and who waits.

use super::*;

#[test]
fn caches_outlive_steps_and_begin_as_they_should() {
    let Some(mut world) = World::new() else { return };
    let stage = world.tree(&[
        ("seed", None, ""),
        ("seed/deep", None, ""),
        ("seed/deep/file", Some(b"seeded"), ""),
        ("file", Some(b"x"), ""),
        ("link", None, "/seed"),
    ]);
    let check = |world: &World, cache: CacheMount, script: &str, expected: &str| {
        let ran = world.run(script, &[Mount::Cache(cache)], std::slice::from_ref(&stage));
        assert_eq!(ran.said, expected, "{script}");
        assert_eq!(ran.changed, [""; 0], "{script}");
    };
    // case R24, R25
    check(&world, cache_mount("/a", "x"), "ls /a; echo kept > /a/file", "");
    check(&world, cache_mount("/b/deep", "x"), "cat /b/deep/file", "kept\n");
    check(&world, cache_mount("/a", "y"), "ls /a", "");
    // case R27, R28
    let owner = FileOwner {
        mode: 0o700,
        uid: 1000,
        gid: 1001,
    };
    let owned = CacheMount {
        owner,
        ..cache_mount("/a", "x")
    };
    check(&world, owned, "stat -c '%a %u %g' /a; ls /a", "700 1000 1001\n");
    // case R31
    let readonly = CacheMount {
        readonly: true,
        ..cache_mount("/a", "x")
    };
    check(
        &world,
        readonly,
        "touch /a/new || cat /a/file",
        "touch: /a/new: Read-only file system\nkept\n",
    );
    // case R29
    let seeded = |source: &str| CacheMount {
        from: Some((1, source.to_owned())),
        ..cache_mount("/a", "x")
    };
    check(
        &world,
        seeded("/seed"),
        "cat /a/deep/file; echo ' and changed' >> /a/deep/file",
        "seeded",
    );
    check(
        &world,
        seeded("/seed"),
        "cat /a/deep/file",
        "seeded and changed\n",
    );
    check(&world, seeded("/link"), "cat /a/deep/file", "seeded");
    check(&world, seeded("/file"), "true", "/file is not a directory");
    check(&world, seeded("/none"), "true", "`/none` not found");
    world.no_cache = true;
    check(&world, seeded("/seed"), "cat /a/deep/file", "seeded");
    check(&world, cache_mount("/a", "x"), "cat /a/file", "kept\n");
}

/// hardening T32: what one project leaves isn't there for another, unless both ask for it.
#[test]
fn caches_are_of_a_project_a_name_or_everybody() {
    let Some(mut world) = World::new() else { return };
    let named = |name: &str| Scope::Named(name.to_owned());
    let plain = cache_mount("/c", "x");
    let of_argument = |name: &str| CacheMount {
        namespace: name.to_owned(),
        ..plain.clone()
    };
    let mut check = |scope: Scope, cache: &CacheMount, script: &str, expected: &str| {
        world.scope = scope;
        let ran = world.run(script, &[Mount::Cache(cache.clone())], &[]);
        assert_eq!(ran.said, expected, "{:?} {cache:?}", world.scope);
    };
    let scopes = [project("a"), project("b"), named("a"), named("b"), Scope::Global];
    for scope in &scopes {
        check(scope.clone(), &plain, "ls /c", "");
        check(scope.clone(), &plain, &format!("echo '{scope}' > /c/left"), "");
    }
    for scope in &scopes {
        check(scope.clone(), &plain, "cat /c/left", &format!("{scope}\n"));
    }
    // What BUILDKIT_CACHE_MOUNT_NS says wins, and is the same name.
    for scope in &scopes {
        check(scope.clone(), &of_argument("b"), "cat /c/left", "namespace b\n");
    }
    check(Scope::Global, &of_argument("global"), "ls /c", "");
}

/// Stores from before there were projects have caches that are nobody's: they stay, and a project that begins is told.
#[test]
fn a_project_that_begins_is_told_of_what_all_share() {
    let Some(mut world) = World::new() else { return };
    let cache = cache_mount("/c", "x");
    let mut told = |scope: Scope, script: &str| {
        world.scope = scope;
        let (events, received) = Events::channel();
        let op = exec(script, &[Mount::Cache(cache.clone())]);
        world.execute(&op, &[], None, &Cancel::new(), events).unwrap();
        let warnings = received.try_iter().filter_map(|event| match event {
            Event::Warning { text } => Some(text),
            _ => None,
        });
        warnings.collect::<Vec<String>>()
    };
    assert_eq!(told(project("early"), "ls /c"), [""; 0]);
    assert_eq!(told(Scope::Global, "echo old > /c/old"), [""; 0]);
    assert_eq!(told(project("early"), "ls /c"), [""; 0]);
    assert_eq!(told(Scope::Named("team".to_owned()), "ls /c"), [""; 0]);
    let expected = "the cache mount `x` begins anew for this project; the one that all projects share is left alone, and \
                    used with --cache-ns global";
    assert_eq!(told(project("late"), "test ! -e /c/old"), [expected]);
    assert_eq!(told(project("late"), "test ! -e /c/old"), [""; 0]);
    assert_eq!(told(Scope::Global, "test -e /c/old"), [""; 0]);
}

/// hardening T22, BuildKit's testCacheMountSourceEscape: a link that a step leaves in a cache leads nowhere outside.
#[test]
fn links_in_caches_lead_nowhere() {
    let Some(world) = World::new() else { return };
    let canary = world.dir.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    let cache = |target: &str| Mount::Cache(cache_mount(target, "x"));
    let plant = format!("ln -s {} /c/sel; ln -s ../../../.. /c/up", canary.display());
    world.run(&plant.replace("ln ", "busybox ln "), &[cache("/c")], &[]);
    for target in ["/c/sel/new", "/c/up/new", "/c/sel"] {
        let mounts = [
            cache("/c"),
            Mount::Tmpfs {
                target: target.to_owned(),
                size_bytes: None,
                readonly: false,
            },
        ];
        world.run("touch /c/sel/new/x /c/sel/x", &mounts, &[]);
    }
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
}

/// case R26
#[test]
fn private_caches_are_copies_and_locked_ones_are_waited_for() {
    use cache::mounts::Sharing::{Private, Shared};
    let Some(world) = World::new() else { return };
    let cache = |sharing| CacheMount {
        sharing,
        ..cache_mount("/c", "x")
    };
    let held = world.hold(&cache(Sharing::Shared), Private);
    for sharing in [Sharing::Private, Sharing::Shared] {
        let ran = world.run("ls /c", &[Mount::Cache(cache(sharing))], &[]);
        assert_eq!(ran.said, "", "{sharing:?}");
    }
    drop(held);
    let held = world.hold(&cache(Sharing::Shared), Shared);
    let ran = world.run("ls /c", &[Mount::Cache(cache(Sharing::Shared))], &[]);
    assert_eq!(ran.said, "of the holder\n");
    drop(held);
    let held = world.hold(&cache(Sharing::Shared), Shared);
    let (events, received) = Events::channel();
    std::thread::scope(|scope| {
        let op = exec("ls /c", &[Mount::Cache(cache(Sharing::Locked))]);
        let world = &world;
        let waiting = scope.spawn(move || world.execute(&op, &[], None, &Cancel::new(), events));
        let first = said(received.iter().take(1));
        assert_eq!(first, "waiting for the cache mount `x`, last taken by the test\n");
        drop(held);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(said(received.iter()), "of the holder\n");
}

#[test]
fn steps_with_a_locked_cache_run_one_after_the_other() {
    let Some(world) = World::new() else { return };
    let cache = Mount::Cache(CacheMount {
        sharing: Sharing::Locked,
        ..cache_mount("/c", "x")
    });
    let script = "test ! -e /c/in || echo overlap; touch /c/in; n=$(cat /c/n 2>/dev/null || echo 0); \
                  busybox usleep 20000; echo $((n + 1)) > /c/n; cat /c/n; busybox rm /c/in";
    let mut last: Vec<String> = std::thread::scope(|scope| {
        let runs =
            [0, 1, 2].map(|_| scope.spawn(|| world.run(script, std::slice::from_ref(&cache), &[]).said));
        let last = |said: String| said.lines().last().map(str::to_owned).unwrap_or_default();
        runs.map(|run| last(run.join().unwrap())).into()
    });
    last.sort();
    assert_eq!(last, ["1", "2", "3"]);
}

#[test]
fn waiting_for_a_cache_ends_when_the_build_is_cancelled() {
    let Some(world) = World::new() else { return };
    let cache = CacheMount {
        sharing: Sharing::Locked,
        ..cache_mount("/c", "x")
    };
    let _held = world.hold(&cache, cache::mounts::Sharing::Shared);
    let cancel = Cancel::new();
    cancel.cancel();
    let ran = world.start("true", &[Mount::Cache(cache)], &[], None, &cancel);
    assert!(ran.said.ends_with("the build was cancelled"), "{}", ran.said);
}
