//! What descriptions of buckets and cache services say. What isn't given is taken from the environment, as by the tools
//! of those who run them; credentials are never written anywhere. Spec: cli-and-outputs.md §7.

use std::time::Duration;

use reqwest::Url;
use rusty_s3::Credentials;

use super::{CacheSpecError, required, value};
use crate::export::Attributes;
use crate::objects::{self, GhaSettings, S3Settings, Token};
use crate::options::{Environment, seconds};

/// The name of a cache in a bucket that has no other. Not BuildKit's: its caches are others.
const DEFAULT_NAME: &str = "ashlar";
const DEFAULT_SCOPE: &str = "buildkit";
const DEFAULT_PARALLEL: usize = 4;
/// Each holds a part of a blob in memory.
const MAX_PARALLEL: usize = 64;
const DEFAULT_REFRESH: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// Takes an attribute, or else the first variable that is set.
fn or_variable(
    attributes: &mut Attributes,
    key: &str,
    environment: &Environment,
    variables: &[&str],
) -> Option<String> {
    let given = attributes.take(key).filter(|text| !text.is_empty());
    given.or_else(|| {
        let mut set = variables.iter().filter_map(|name| environment.var(name));
        set.next().map(str::to_owned)
    })
}

fn missing(attributes: &Attributes, key: &'static str) -> CacheSpecError {
    CacheSpecError::Missing {
        kind: attributes.kind.clone(),
        key,
    }
}

fn duration(
    attributes: &mut Attributes,
    key: &'static str,
    default: Duration,
) -> Result<Duration, CacheSpecError> {
    match attributes.take(key) {
        None => Ok(default),
        Some(text) => match seconds(&text) {
            Some(seconds) => Ok(Duration::from_secs(seconds)),
            None => Err(value(key, text, "a duration such as 90s, 10m or 24h")),
        },
    }
}

/// Reads what is said of a bucket.
pub(super) fn s3(
    attributes: &mut Attributes,
    environment: &Environment,
) -> Result<S3Settings, CacheSpecError> {
    let name = or_variable(attributes, "bucket", environment, &["AWS_BUCKET"]);
    let name = name.ok_or_else(|| missing(attributes, "bucket"))?;
    let variables = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    let region = or_variable(attributes, "region", environment, &variables);
    let region = region.ok_or_else(|| missing(attributes, "region"))?;
    let endpoint = attributes
        .take("endpoint_url")
        .filter(|endpoint| !endpoint.is_empty());
    let path_style = attributes.flag("use_path_style", false)?;
    let bucket =
        objects::bucket(&name, &region, endpoint.as_deref(), path_style).map_err(CacheSpecError::Place)?;
    let credentials = credentials(attributes, environment)?;
    let prefix = attributes.take("prefix").unwrap_or_default();
    let mut below = |key: &str, default: &str| {
        let own = attributes.take(key).unwrap_or_else(|| default.to_owned());
        format!("{prefix}{own}")
    };
    let (blobs, manifests) = (
        below("blobs_prefix", "blobs/"),
        below("manifests_prefix", "manifests/"),
    );
    let names = attributes.take("name").filter(|names| !names.is_empty());
    let names = names.unwrap_or_else(|| DEFAULT_NAME.to_owned());
    let manifests: Vec<String> = names
        .split(';')
        .map(|name| format!("{manifests}{name}"))
        .collect();
    // An address would resolve these parts; what it then named would be another object.
    let is_path = |key: &String| key.split('/').any(|part| matches!(part, "." | ".."));
    if let Some(key) = manifests.iter().chain([&blobs]).find(|key| is_path(key)) {
        return Err(value(
            "name",
            key.clone(),
            "a key without `.` and `..` among its parts",
        ));
    }
    let n_parallel = match attributes.take("upload_parallelism") {
        None => DEFAULT_PARALLEL,
        Some(text) => match text.parse() {
            Ok(number) if (1..=MAX_PARALLEL).contains(&number) => number,
            _ => return Err(value("upload_parallelism", text, "a number from 1 to 64")),
        },
    };
    Ok(S3Settings {
        bucket,
        credentials,
        blobs,
        manifests,
        n_parallel,
        refresh: duration(attributes, "touch_refresh", DEFAULT_REFRESH)?,
    })
}

fn credentials(
    attributes: &mut Attributes,
    environment: &Environment,
) -> Result<Option<Credentials>, CacheSpecError> {
    let given = |attributes: &mut Attributes, key: &str| attributes.take(key).filter(|text| !text.is_empty());
    let (id, secret, token) = (
        given(attributes, "access_key_id"),
        given(attributes, "secret_access_key"),
        given(attributes, "session_token"),
    );
    // The parts of one login belong together: none is taken from the other place.
    let (id, secret, token) = match (id, secret) {
        (None, None) => {
            let var = |name| environment.var(name).map(str::to_owned);
            let token = token.or_else(|| var("AWS_SESSION_TOKEN"));
            (var("AWS_ACCESS_KEY_ID"), var("AWS_SECRET_ACCESS_KEY"), token)
        }
        (id, secret) => (id, secret, token),
    };
    match (id, secret, token) {
        (None, None, _) => Ok(None),
        (Some(id), Some(secret), None) => Ok(Some(Credentials::new(id, secret))),
        (Some(id), Some(secret), Some(token)) => Ok(Some(Credentials::new_with_token(id, secret, token))),
        (None, Some(_), _) => Err(missing(attributes, "access_key_id")),
        (Some(_), None, _) => Err(missing(attributes, "secret_access_key")),
    }
}

/// Reads what is said of a cache service.
pub(super) fn gha(
    attributes: &mut Attributes,
    environment: &Environment,
) -> Result<GhaSettings, CacheSpecError> {
    for key in ["repository", "ghtoken"] {
        if attributes.take(key).is_some() {
            return Err(CacheSpecError::Unsupported(format!(
                "attribute `{key}` of type `gha`"
            )));
        }
    }
    let old = || CacheSpecError::Unsupported("service of GitHub Actions in its version 1".to_owned());
    match attributes.take("version").as_deref() {
        None | Some("" | "2") => {}
        Some("1") => return Err(old()),
        Some(other) => return Err(value("version", other.to_owned(), "2")),
    }
    let first = or_variable(attributes, "url", environment, &["ACTIONS_CACHE_URL"]);
    let url = or_variable(attributes, "url_v2", environment, &["ACTIONS_RESULTS_URL"]);
    let url = match (url, first) {
        (Some(url), _) => url,
        (None, Some(_)) => return Err(old()),
        (None, None) => return Err(missing(attributes, "url_v2")),
    };
    let whole = format!("{}/", url.trim_end_matches('/'));
    let url = Url::parse(&whole)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
        .ok_or_else(|| value("url_v2", url, "an address with http or https"))?;
    let token = or_variable(attributes, "token", environment, &["ACTIONS_RUNTIME_TOKEN"]);
    let token = token.ok_or_else(|| missing(attributes, "token"))?;
    let scope = required(attributes, "scope").unwrap_or_else(|_| DEFAULT_SCOPE.to_owned());
    // The service splits lists of keys at commas.
    if scope.len() > 256 || scope.contains([',', '#']) {
        return Err(value(
            "scope",
            scope,
            "at most 256 characters, and no comma or number sign",
        ));
    }
    Ok(GhaSettings {
        url,
        token: Token(token),
        scope,
        timeout: duration(attributes, "timeout", DEFAULT_TIMEOUT)?,
    })
}
