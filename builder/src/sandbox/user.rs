//! `USER` against the image's `/etc/passwd` and `/etc/group`, by Docker's rules.
//!
//! Pure: who reads the two files takes care that they are regular files and not larger than [`MAX_FILE_BYTES`]. The
//! host's users are never looked at. Spec: dockerfile.md §11, hardening.md T10 and T11.

use std::collections::BTreeSet;

/// How much of either file is read; BuildKit's limit.
pub(crate) const MAX_FILE_BYTES: u64 = 10 << 20;
/// Longer lines are not entries that any system wrote.
const MAX_LINE_BYTES: usize = 64 << 10;
/// The kernel's NGROUPS_MAX.
const MAX_GROUPS: usize = 65_536;
/// `(uid_t) -1` means "leave it" to the kernel, so it is no user.
const NO_ID: u32 = u32::MAX;

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// User.
    pub(crate) uid: u32,
    /// Primary group.
    pub(crate) gid: u32,
    /// Supplementary groups, sorted, the primary one included (CVE-2022-36109).
    pub(crate) groups: Vec<u32>,
    /// Home directory; `/` for a user without entry.
    pub(crate) home: String,
    /// Login name, if there is an entry.
    pub(crate) name: Option<String>,
}

/// Why a `USER` names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    /// The name has no entry.
    #[error("unable to find user {user}: no matching entries in passwd file")]
    UnknownUser {
        /// The name.
        user: String,
    },
    /// The name has no entry.
    #[error("unable to find group {group}: no matching entries in group file")]
    UnknownGroup {
        /// The name.
        group: String,
    },
    /// A number that is no id.
    #[error("`{id}` is not an id between 0 and 4294967294")]
    OutOfRange {
        /// As written.
        id: String,
    },
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("the image's {file} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// Which file.
        file: &'static str,
    },
}

/// Returns who `user` (`name|uid[:group|gid]`, empty for root) is in an image with these two files.
///
/// A number is an id and never a name, whatever the files say.
pub(crate) fn resolve(
    passwd: Option<&[u8]>,
    group: Option<&[u8]>,
    user: &str,
) -> Result<Credentials, UserError> {
    for (file, bytes) in [("/etc/passwd", passwd), ("/etc/group", group)] {
        if bytes.is_some_and(|bytes| bytes.len() as u64 > MAX_FILE_BYTES) {
            return Err(UserError::TooLarge { file });
        }
    }
    let (passwd, group) = (passwd.unwrap_or_default(), group.unwrap_or_default());
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let id = number(user)?;
    let entry = Account::all(passwd).find(|account| match id {
        Some(id) => account.uid == id,
        None => account.name == user.as_bytes(),
    });
    let uid = match (&entry, id) {
        (Some(entry), _) => entry.uid,
        (None, Some(id)) => id,
        (None, None) => {
            return Err(UserError::UnknownUser {
                user: user.to_owned(),
            });
        }
    };
    let gid = match wanted_group {
        Some(wanted) => group_id(group, wanted)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = BTreeSet::from([gid]);
    // With an explicit group there is that group only.
    if let (Some(entry), None) = (&entry, wanted_group) {
        let of_user = Group::all(group)
            .filter(|group| group.has(entry.name))
            .map(|group| group.gid);
        groups.extend(of_user.take(MAX_GROUPS - 1));
    }
    Ok(Credentials {
        uid,
        gid,
        groups: groups.into_iter().collect(),
        home: entry
            .as_ref()
            .map(|entry| String::from_utf8_lossy(entry.home).into_owned())
            .filter(|home| !home.is_empty())
            .unwrap_or_else(|| "/".to_owned()),
        name: entry.map(|entry| String::from_utf8_lossy(entry.name).into_owned()),
    })
}

/// Returns the group that `wanted` (name or number) is in an image with this `/etc/group`.
fn group_id(group: &[u8], wanted: &str) -> Result<u32, UserError> {
    if let Some(id) = number(wanted)? {
        return Ok(id);
    }
    Group::all(group)
        .find(|group| group.name == wanted.as_bytes())
        .map(|group| group.gid)
        .ok_or_else(|| UserError::UnknownGroup {
            group: wanted.to_owned(),
        })
}

/// Reads what is a number in form; `Ok(None)` for a name. Nothing wraps around (CVE-2024-40635), and a sign or a
/// prefix in front of digits is a bad number, not a name.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numeric = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !numeric {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id != NO_ID && digits.len() == text.len() => Ok(Some(id)),
        _ => Err(UserError::OutOfRange { id: text.to_owned() }),
    }
}

/// One usable line of passwd(5).
struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl<'a> Account<'a> {
    fn all(file: &'a [u8]) -> impl Iterator<Item = Self> {
        lines(file).filter_map(|fields| {
            let (name, uid, gid) = (*fields.first()?, id(fields.get(2)?)?, id(fields.get(3)?)?);
            let home = fields.get(5).copied().unwrap_or_default();
            (!name.is_empty()).then_some(Account { name, uid, gid, home })
        })
    }
}

/// One usable line of group(5).
struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl<'a> Group<'a> {
    fn all(file: &'a [u8]) -> impl Iterator<Item = Self> {
        lines(file).filter_map(|fields| {
            let (name, gid) = (*fields.first()?, id(fields.get(2)?)?);
            let members = fields.get(3).copied().unwrap_or_default();
            (!name.is_empty()).then_some(Group { name, gid, members })
        })
    }

    fn has(&self, user: &[u8]) -> bool {
        self.members
            .split(|byte| *byte == b',')
            .any(|member| member.trim_ascii() == user)
    }
}

/// Splits a file into lines of fields. Lines that are empty, comments, or absurdly long are skipped, as libc does.
fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#") && line.len() <= MAX_LINE_BYTES)
        .map(|line| line.splitn(8, |byte| *byte == b':').collect())
}

fn id(field: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(field).ok()?;
    number(text).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        # comment\n\
        broken\n\
        wrap:x:4294967296:0::/:/bin/sh\n\
        app:x:1000:1001:App:/home/app:/bin/sh\n\
        2000:x:0:0:numeric name:/root:/bin/sh\n\
        nohome:x:1002:1002::\n";
    const GROUP: &[u8] =
        b"root:x:0:\naudio:x:29:app,other\napp:x:1001:\nstaff:x:50: app \n3000:x:0:app\nbad:x:-1:app\n";

    /// uid, gid, groups, home; or the error's text.
    fn check(user: &str, expected: Result<(u32, u32, &[u32], &str), &str>) {
        let found = resolve(Some(PASSWD), Some(GROUP), user);
        match expected {
            Ok((uid, gid, groups, home)) => {
                let found = found.unwrap_or_else(|error| panic!("{user}: {error}"));
                let home = home.to_owned();
                assert_eq!(
                    (found.uid, found.gid, found.groups.as_slice(), found.home),
                    (uid, gid, groups, home),
                    "{user}"
                );
            }
            Err(message) => assert_eq!(
                found.map_err(|error| error.to_string()),
                Err(message.to_owned()),
                "{user}"
            ),
        }
    }

    #[test]
    fn users_are_resolved_as_docker_does() {
        check("", Ok((0, 0, &[0], "/root")));
        check("root", Ok((0, 0, &[0], "/root")));
        check("app", Ok((1000, 1001, &[0, 29, 50, 1001], "/home/app")));
        check("1000", Ok((1000, 1001, &[0, 29, 50, 1001], "/home/app")));
        check("app:audio", Ok((1000, 29, &[29], "/home/app")));
        check("app:77", Ok((1000, 77, &[77], "/home/app")));
        check("app:", Ok((1000, 1001, &[0, 29, 50, 1001], "/home/app")));
        check(":audio", Ok((0, 29, &[29], "/root")));
        check("1234", Ok((1234, 0, &[0], "/")));
        check("nohome", Ok((1002, 1002, &[1002], "/")));
        check(
            "nobody",
            Err("unable to find user nobody: no matching entries in passwd file"),
        );
        check(
            "app:nogroup",
            Err("unable to find group nogroup: no matching entries in group file"),
        );
    }

    #[test]
    fn a_number_is_an_id_and_never_a_name() {
        check("2000", Ok((2000, 0, &[0], "/")));
        check("app:3000", Ok((1000, 3000, &[3000], "/home/app")));
        check("2147483648", Ok((2_147_483_648, 0, &[0], "/")));
        check("4294967294", Ok((4_294_967_294, 0, &[0], "/")));
        for bad in ["4294967295", "4294967296", "-1", "+1", "99999999999999999999"] {
            check(
                bad,
                Err(&format!("`{bad}` is not an id between 0 and 4294967294")),
            );
            check(
                &format!("app:{bad}"),
                Err(&format!("`{bad}` is not an id between 0 and 4294967294")),
            );
        }
        check(
            "0x0",
            Err("unable to find user 0x0: no matching entries in passwd file"),
        );
        check(
            "wrap",
            Err("unable to find user wrap: no matching entries in passwd file"),
        );
    }

    #[test]
    fn missing_and_huge_files_are_answered() {
        let found = resolve(None, None, "0:0").map(|found| (found.uid, found.gid, found.name));
        assert_eq!(found, Ok((0, 0, None)));
        let huge = vec![b'\n'; usize::try_from(MAX_FILE_BYTES).unwrap() + 1];
        assert_eq!(
            resolve(Some(&huge), None, "0"),
            Err(UserError::TooLarge { file: "/etc/passwd" })
        );
        let many = b"x:x:1:1::/:\n".repeat(800_000);
        assert!(matches!(
            resolve(Some(&many), None, "0"),
            Ok(Credentials { uid: 0, .. })
        ));
        assert_eq!(
            resolve(Some(&many[..9_000_000]), None, "y"),
            Err(UserError::UnknownUser { user: "y".to_owned() })
        );
    }
}
