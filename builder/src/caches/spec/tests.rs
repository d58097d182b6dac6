//! What descriptions of caches mean, and what is refused.

use cache::compress::Codec;

use super::*;

fn to_with(text: &str, vars: &[(&str, &str)]) -> Result<CacheTo, CacheSpecError> {
    let vars = vars
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let environment = Environment {
        vars: vars.collect(),
        root: true,
    };
    CacheTo::parse(text, &environment)
}

fn to(text: &str) -> Result<CacheTo, CacheSpecError> {
    to_with(text, &[])
}

fn from(text: &str) -> Result<CacheFrom, CacheSpecError> {
    CacheFrom::parse(text, &Environment::default())
}

#[test]
fn attributes_are_read() {
    let full = to("type=local,dest=out,mode=max,compression=gzip,compression-level=4,tag=main").unwrap();
    assert_eq!(full.mode, CacheMode::Max);
    assert_eq!(full.compression.codec, Codec::Gzip { level: 4 });
    let place = CachePlace::Local {
        dest: "out".into(),
        tag: "main".into(),
        reset: false,
    };
    assert_eq!(full.place, place);
    let plain = to("type=local,dest=out").unwrap();
    assert_eq!(
        (plain.mode, plain.compression.codec),
        (CacheMode::Min, Codec::Zstd { level: 3 })
    );
    let digest = Digest::of(b"x");
    let one = from(&format!("type=local,src=in,digest={digest}")).unwrap();
    let wanted = Wanted::Digest(digest);
    let src = "in".into();
    assert_eq!(one.source, CacheSource::Local { src, wanted });
    let short = from("app").unwrap();
    assert_eq!(
        short,
        from("type=registry,ref=docker.io/library/app:latest").unwrap()
    );
    let signed = from("type=local,src=in,verify=key.pub").unwrap();
    assert_eq!(signed.verify, Some("key.pub".into()));
}

#[test]
fn what_is_wrong_is_said() {
    let check = |text: &str, words: &str| {
        let error = to(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    };
    check("type=local", "needs dest=");
    check("type=local,dest=", "needs dest=");
    check("type=local,dest=x,mode=all", "expected min or max");
    check("type=local,dest=x,src=y", "has no attribute `src`");
    check(
        "type=local,dest=x,compression=lz4",
        "expected gzip, zstd or uncompressed",
    );
    check("type=azblob,name=x", "`azblob` isn't supported yet");
    check("type=tape", "unknown cache type `tape`");
    check("dest=x", "expected type=TYPE");
    check("type=local,\"dest=x", "expected type=TYPE");
    let error = from("type=local,src=x,digest=abc").unwrap_err().to_string();
    assert!(error.contains("invalid digest"), "{error}");
    check("type=inline,mode=max", "expected min");
    check("type=inline,sign=x", "`inline` has no attribute `sign`");
    let error = from("type=inline").unwrap_err().to_string();
    assert!(error.contains("name the image"), "{error}");
}

#[test]
fn buckets_are_read() {
    let own = "type=s3,bucket=b,region=r,access_key_id=id,secret_access_key=key";
    let check = |more: &str, expected: &[&str]| {
        let parsed = to(&format!("{own}{more}")).unwrap();
        let CachePlace::S3(settings) = parsed.place else {
            panic!("{more}");
        };
        let mut keys = vec![settings.bucket.base_url().to_string(), settings.blobs];
        keys.extend(settings.manifests);
        assert_eq!(keys, expected);
    };
    check(
        "",
        &["https://b.s3.r.amazonaws.com/", "blobs/", "manifests/ashlar"],
    );
    check(
        ",endpoint_url=http://127.0.0.1:1/s,use_path_style=true,prefix=p/,blobs_prefix=,manifests_prefix=m-,name=a;b",
        &["http://127.0.0.1:1/s/b/", "p/", "p/m-a", "p/m-b"],
    );
    let vars = [
        ("AWS_BUCKET", "b"),
        ("AWS_REGION", "r"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
    ];
    let of_environment = to_with("type=s3,touch_refresh=1h,upload_parallelism=2", &vars).unwrap();
    let CachePlace::S3(settings) = of_environment.place else {
        panic!();
    };
    assert_eq!((settings.n_parallel, settings.refresh.as_secs()), (2, 3600));
    let credentials = settings.credentials.unwrap();
    assert_eq!((credentials.key(), credentials.secret()), ("id", "key"));
    // Half a login isn't filled up with half of another.
    let error = to_with("type=s3,access_key_id=other", &vars)
        .unwrap_err()
        .to_string();
    assert!(error.contains("needs secret_access_key="), "{error}");
}

#[test]
fn what_is_wrong_with_a_bucket_is_said_without_secrets() {
    let check = |text: &str, words: &str| {
        let error = to(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
        assert!(!error.contains("hush"), "{text}: {error}");
    };
    check("type=s3", "needs bucket=");
    check("type=s3,bucket=b", "needs region=");
    check("type=s3,bucket=b,region=r", "needs access_key_id=");
    let own = "type=s3,bucket=b,region=r,access_key_id=id,secret_access_key=hush";
    check(&format!("{own},name=../x"), "without `.` and `..`");
    check(&format!("{own},upload_parallelism=0"), "a number from 1 to 64");
    check(&format!("{own},touch_refresh=soon"), "a duration such as");
    check(&format!("{own},endpoint_url=ftp://x"), "expected http or https");
    check(
        &format!("{own},endpoint_url=http://127.0.0.1:9"),
        "try use_path_style=true",
    );
    check(&format!("{own},colour=red"), "has no attribute `colour`");
    check(&format!("{own},colour"), "expected type=TYPE");
    let shown = format!("{:?}", to(own).unwrap());
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn cache_services_are_read() {
    let vars = [
        ("ACTIONS_RESULTS_URL", "https://results.example/x"),
        ("ACTIONS_RUNTIME_TOKEN", "hush"),
        ("ACTIONS_CACHE_URL", "https://old.example/"),
    ];
    let parsed = to_with("type=gha,scope=main,mode=max,timeout=1m", &vars).unwrap();
    let shown = format!("{parsed:?}");
    assert!(!shown.contains("hush"), "{shown}");
    let CachePlace::Gha(settings) = parsed.place else {
        panic!();
    };
    assert_eq!(settings.url.as_str(), "https://results.example/x/");
    assert_eq!((&*settings.scope, settings.timeout.as_secs()), ("main", 60));
    let check = |text: &str, vars: &[(&str, &str)], words: &str| {
        let error = to_with(text, vars).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    };
    check("type=gha", &[], "needs url_v2=");
    check("type=gha", &vars[..1], "needs token=");
    check("type=gha", &vars[1..], "version 1 isn't supported yet");
    check("type=gha,version=1", &vars, "version 1 isn't supported yet");
    check("type=gha,version=3", &vars, "expected 2");
    check(
        "type=gha,ghtoken=x",
        &vars,
        "attribute `ghtoken` of type `gha` isn't supported",
    );
    check("type=gha,url_v2=results", &vars, "an address with http or https");
    check("type=gha,\"scope=a,b\"", &vars, "no comma");
}
