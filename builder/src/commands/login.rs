//! `ashlar login` and `ashlar logout`, with docker's words.
//!
//! The password comes from stdin or from a flag; on a terminal it is asked for, and so is the user's name.

use std::io::Read as _;

use super::prompt;
use crate::cli::{LoginArgs, LogoutArgs};
use crate::failure;
use crate::registry;
use crate::report::{self, Failure};
use crate::runtime;

/// Longest password or token that is read.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;
/// The registry that is meant when none is named.
const DEFAULT: &str = "docker.io";

/// Tries a login and keeps it; returns docker's line.
pub(crate) fn login(args: &LoginArgs) -> Result<String, Failure> {
    let registry = registry_of(args.server.as_deref())?;
    let user = user(args)?;
    let password = match (&args.password, args.password_stdin) {
        (Some(password), false) => {
            report::warn("--password can be seen by other users of the machine; --password-stdin can't");
            password.clone()
        }
        (None, true) => password_of_stdin()?,
        _ => asked("Password: ", prompt::Answer::Hidden)?
            .ok_or_else(|| Failure::usage("no password").with_help("pipe it in, with --password-stdin"))?,
    };
    let kept = runtime::run(async {
        let kept = registry::log_in(&registry, &user, &password).await;
        kept.map_err(|error| failure::of_image(&error))
    })?;
    if let registry::Kept::File(path) = kept {
        report::note(&format!(
            "the password is kept unencrypted in {}; a credential helper (`credsStore`) would keep it safer",
            path.display()
        ));
    }
    Ok("Login Succeeded\n".to_owned())
}

/// Returns the user's name; asks for it only where the password isn't what stdin is for.
fn user(args: &LoginArgs) -> Result<String, Failure> {
    let given = args.username.clone().filter(|user| !user.is_empty());
    let user = match given {
        None if !args.password_stdin => asked("Username: ", prompt::Answer::Shown)?,
        given => given,
    };
    user.ok_or_else(|| Failure::usage("no user name").with_help("name the user with -u NAME"))
}

/// Asks at the terminal; `None` without one, or without an answer.
fn asked(question: &str, answer: prompt::Answer) -> Result<Option<String>, Failure> {
    match prompt::is_possible() {
        true => prompt::ask(question, answer).map(|text| Some(text).filter(|text| !text.is_empty())),
        false => Ok(None),
    }
}

/// Forgets a login; returns docker's line.
pub(crate) fn logout(args: &LogoutArgs) -> Result<String, Failure> {
    let registry = registry_of(args.server.as_deref())?;
    let out = registry::log_out(&registry).map_err(|error| failure::of_image(&error))?;
    for path in &out.elsewhere {
        report::warn(&format!(
            "{} has a login to {registry} too, which stays",
            path.display()
        ));
    }
    Ok(match out.was_in {
        true => format!("Removing login credentials for {registry}\n"),
        false => format!("Not logged in to {registry}\n"),
    })
}

fn registry_of(word: Option<&str>) -> Result<String, Failure> {
    let word = word.unwrap_or(DEFAULT);
    registry::registry_of(word).map_err(|_| {
        Failure::usage(format!("`{word}` is no registry"))
            .with_help("a registry is a host with a dot or a port in its name: ghcr.io, localhost:5000")
    })
}

/// Reads the password, without the newline that `echo` adds.
fn password_of_stdin() -> Result<String, Failure> {
    let failed =
        |error: std::io::Error| Failure::machine(format!("cannot read the password from stdin: {error}"));
    let mut text = String::new();
    let mut limited = std::io::stdin().lock().take(MAX_PASSWORD_BYTES);
    limited.read_to_string(&mut text).map_err(failed)?;
    let password = text.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(Failure::usage("the password on stdin is empty"));
    }
    Ok(password.to_owned())
}
