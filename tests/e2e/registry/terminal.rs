//! What people see who sit at a terminal: questions of `ashlar login`, and how far `pull` and `push` are.
//!
//! The terminal is one of `script`; keys are pressed when the question is there, not before.

use super::faults::{Act, Faults};
use super::{Options, Registry, USER};
use crate::machine;
use crate::scene::Scene;
use crate::validate;

/// Runs `$0` on a terminal, and presses keys: for each further two arguments, waits for the first to be on the screen
/// and presses the second, as `printf` writes it. What came to the screen is in `screen`.
const PRESS: &str = r#"
rm -f keys screen; mkfifo keys
script -qefc "$0" screen <keys >/dev/null & pid=$!
exec 3>keys
while [ $# -gt 0 ]; do
    tries=0
    until grep -q "$1" screen 2>/dev/null; do
        tries=$((tries + 1)); [ $tries -lt 400 ] || { echo "no $1"; cat screen; exit 1; }; sleep 0.05
    done
    printf "$2" >&3; shift 2
done
code=0; wait $pid || code=$?
exec 3>&-
echo "ended with $code"
"#;

/// Returns how the command ended, and what was on the screen.
fn press(scene: &Scene, command: &str, keys: &[(&str, &str)]) -> (String, String) {
    let mut args = vec!["-c", PRESS, command];
    args.extend(keys.iter().flat_map(|(wait, key)| [*wait, *key]));
    let ended = scene.run("bash", &args).stdout_text();
    let screen = std::fs::read(scene.work().join("screen")).unwrap();
    (ended, String::from_utf8_lossy(&screen).into_owned())
}

fn has_terminal(test: &str) -> bool {
    match machine::missing(&["exec:script", "exec:bash"]) {
        Some(reason) => {
            machine::skip(test, &reason);
            false
        }
        None => true,
    }
}

#[test]
fn a_login_asks_and_shows_no_password() {
    if !has_terminal("login_asks") {
        return;
    }
    let scene = Scene::new("login_asks");
    let Some(registry) = Registry::with_logins(&scene) else {
        return;
    };
    let login = format!("ashlar login {}", registry.host);
    let password = format!("{}\\r", USER.1);
    let (ended, screen) = press(
        &scene,
        &login,
        &[("Username: ", "mason\\r"), ("Password: ", &password)],
    );
    assert_eq!(ended, "ended with 0\n", "{screen}");
    assert!(
        screen.contains("mason") && screen.contains("Login Succeeded"),
        "{screen}"
    );
    assert!(!screen.contains("stone"), "{screen}");
    scene.ashlar_ok(&["pull", "-q", &format!("{}/team/app:1", registry.host)]);

    // A name that is given isn't asked for; what is wrong isn't shown either.
    scene.ashlar_ok(&["logout", &registry.host]);
    let named = format!("{login} -u mason");
    let (ended, screen) = press(&scene, &named, &[("Password: ", "hammer\\r")]);
    assert_eq!(ended, "ended with 3\n", "{screen}");
    assert!(
        !screen.contains("Username") && !screen.contains("hammer"),
        "{screen}"
    );
    let (ended, screen) = press(&scene, &login, &[("Username: ", "\\r")]);
    assert_eq!(ended, "ended with 2\n", "{screen}");

    // Whoever gives up gets the terminal back as it was.
    let script = format!(
        "trap : INT; stty -a >before; {named}; echo code $?; stty -a >after; cmp before after && echo equal"
    );
    std::fs::write(scene.work().join("given-up"), script).unwrap();
    let (ended, screen) = press(&scene, "sh given-up", &[("Password: ", "sec\\003")]);
    assert_eq!(ended, "ended with 0\n", "{screen}");
    assert!(
        screen.contains("code 130") && screen.contains("equal"),
        "{screen}"
    );
    assert!(!screen.contains("sec"), "{screen}");

    // Nobody to ask.
    let alone = scene.run("ashlar", &["login", "-u", "mason", &registry.host]);
    assert_eq!(alone.code, Some(2));
    assert!(
        alone.stderr_text().contains("no password"),
        "{}",
        alone.stderr_text()
    );
    drop(registry);
    validate::finish(scene);
}

/// Stands before a registry, and gives out no blob until somebody has seen the picture of it.
fn waiting(registry: &Registry, seen: std::path::PathBuf) -> Faults {
    Faults::start(&registry.host, move |asked| {
        if asked.is_blob() && asked.method == "GET" && asked.n_before == 0 {
            while !seen.exists() {
                std::thread::yield_now();
            }
        }
        Act::Pass
    })
}

#[test]
fn pulls_and_pushes_are_live_on_a_terminal_and_plain_elsewhere() {
    if !has_terminal("transfers_live") {
        return;
    }
    let scene = Scene::new("transfers_live");
    let Some(registry) = Registry::start(scene.name(), &scene.aside("registry"), Options::default()) else {
        return;
    };
    registry.fill(&scene, "team/app:1");
    let faults = waiting(&registry, scene.work().join("seen"));
    let name = format!("{}/team/app:1", faults.host);
    let pull = format!("sh -c 'stty rows 24 cols 80; env -u NO_COLOR TERM=xterm ashlar pull {name}'");
    std::fs::write(
        scene.work().join("look"),
        "until grep -q Pulling screen; do sleep 0.05; done; >seen\n",
    )
    .unwrap();
    let both = format!("sh look & {pull}");
    let (ended, screen) = press(&scene, &both, &[]);
    assert_eq!(ended, "ended with 0\n", "{screen}");
    assert!(
        screen.contains("[+] Pulling ") && screen.contains("FINISHED"),
        "{screen}"
    );
    assert!(screen.contains(&format!(" => {name}")), "{screen}");
    assert!(
        screen.contains("\u{1b}[?25l") && screen.contains("\u{1b}[?25h"),
        "{screen}"
    );
    assert!(screen.contains("Status: Downloaded newer image"), "{screen}");
    assert!(!screen.contains("note: sha256:"), "{screen}");

    let copy = format!("{}/team/copy:1", registry.host);
    scene.ashlar_ok(&["tag", &name, &copy]);
    let (ended, screen) = press(
        &scene,
        &format!("env -u NO_COLOR TERM=xterm ashlar push {copy}"),
        &[],
    );
    assert_eq!(ended, "ended with 0\n", "{screen}");
    assert!(
        screen.contains("[+] Pushing ") && screen.contains("1: digest: sha256:"),
        "{screen}"
    );

    // A file, and a terminal that can do nothing, get lines.
    for (dumb, repository) in [(true, "dumb"), (false, "file")] {
        let other = format!("{}/team/{repository}:1", registry.host);
        scene.ashlar_ok(&["tag", &name, &other]);
        let said = match dumb {
            true => press(&scene, &format!("env TERM=dumb ashlar push {other}"), &[]).1,
            false => scene.ashlar_ok(&["push", &other]).stderr_text(),
        };
        assert_eq!(said.matches("note: ").count(), 1 + 3, "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }

    // Ctrl-C brings the cursor back.
    std::fs::remove_dir_all(scene.store()).unwrap();
    std::fs::remove_file(scene.work().join("seen")).unwrap();
    faults.take();
    let (ended, screen) = press(&scene, &pull, &[("Pulling", "\\003")]);
    assert_eq!(ended, "ended with 130\n", "{screen}");
    assert!(
        screen.rfind("\u{1b}[?25h") > screen.rfind("\u{1b}[?25l"),
        "{screen}"
    );
    std::fs::write(scene.work().join("seen"), "").unwrap();
    drop(registry);
    validate::finish(scene);
}
