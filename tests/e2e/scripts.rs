//! The list of scripts: one test each, so that one can be run by its name.
//!
//! A script that is not in the list is found by a test; a name without a script fails by itself.

use crate::script;

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        const LISTED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                script::run(stringify!($name));
            }
        )*
    };
}

scripts! {
    add_archives,
    add_git,
    add_http,
    annotations,
    arg_and_env,
    bases,
    build_arg_file,
    cache_content,
    cache_damaged,
    cache_gha,
    cache_inline,
    cache_local,
    cache_mounts,
    cache_registry,
    cache_s3,
    cache_signed,
    cache_stages,
    calls,
    cancel,
    check_and_repair,
    case_archives,
    case_cancel,
    case_errors,
    case_outputs,
    case_platforms,
    case_run,
    checks,
    config,
    container_escapes,
    container_users,
    context_files,
    context_reads,
    context_ignore,
    copy_errors,
    copy_escapes,
    copy_exclude,
    copy_kinds,
    copy_link_flag,
    copy_links,
    copy_owner_mode,
    copy_parents,
    copy_paths,
    copy_wildcards,
    debugging,
    delta_archives,
    determinism,
    df,
    diff,
    diffs,
    doctor,
    dry_run,
    dockerfile_syntax,
    entitlements,
    errors,
    exec_and_shell_form,
    expansion,
    failing_run,
    floods,
    full_disk,
    full_to_the_last_byte,
    heredocs,
    history,
    hostile_config,
    image_commands,
    import_and_export,
    kill_leaves_nothing,
    leaks,
    limits,
    lock_file,
    logs,
    metadata,
    mounts_bind,
    mounts_cache,
    mounts_projects,
    mounts_secret,
    mounts_ssh,
    multi_stage,
    named_contexts,
    names,
    network,
    network_own,
    oci_runtime,
    onbuild,
    outputs,
    parallel_stages,
    platform_archives,
    platforms,
    process_sandbox,
    provenance,
    prune,
    prune_ceiling,
    refused,
    registry_pull,
    run_command,
    run_environment,
    rewrite_timestamp,
    sbom,
    run_files,
    save_and_load,
    stale_context,
    store_access,
    step_endings,
    stuck_step,
    suggestions,
    terminals,
    timeouts,
    unpacked_lowers,
    until,
    users_and_workdir,
    volatile,
    waiting,
    waiting_for_layers,
    why,
}

macro_rules! scripts_unpacked {
    ($($name:ident),* $(,)?) => {
        /// What depends on how layers get below a RUN, once more without EROFS.
        mod unpacked {
            use super::*;
            $(
                #[test]
                fn $name() {
                    script::run_with(stringify!($name), &[("ASHLAR_LOWERS", "unpacked")]);
                }
            )*
        }
    };
}

scripts_unpacked! {
    add_archives,
    bases,
    cache_content,
    copy_links,
    copy_kinds,
    copy_owner_mode,
    copy_parents,
    diffs,
    kill_leaves_nothing,
    metadata,
    mounts_bind,
    mounts_cache,
    mounts_secret,
    mounts_ssh,
    multi_stage,
    names,
    onbuild,
    prune,
    outputs,
    run_command,
    rewrite_timestamp,
    run_files,
    users_and_workdir,
    waiting,
    waiting_for_layers,
    why,
}

macro_rules! scripts_by_runtime {
    ($runtime:ident: $($name:ident),* $(,)?) => {
        /// What containers do, once more with those of another program.
        mod $runtime {
            use super::*;
            $(
                #[test]
                fn $name() {
                    script::run_with(stringify!($name), &[("ASHLAR_OCI_RUNTIME", stringify!($runtime))]);
                }
            )*
        }
    };
}

scripts_by_runtime! {
    runc:
    cancel,
    case_platforms,
    case_run,
    debugging,
    entitlements,
    exec_and_shell_form,
    failing_run,
    kill_leaves_nothing,
    leaks,
    limits,
    mounts_bind,
    mounts_cache,
    mounts_secret,
    mounts_ssh,
    network,
    network_own,
    process_sandbox,
    run_command,
    run_environment,
    run_files,
    step_endings,
    timeouts,
    until,
    users_and_workdir,
}

scripts_by_runtime! {
    crun:
    debugging,
    kill_leaves_nothing,
    limits,
    mounts_bind,
    run_files,
    step_endings,
}

#[test]
fn every_script_can_be_read() {
    for name in LISTED {
        script::check_syntax(name).unwrap();
    }
}

#[test]
fn every_script_is_listed() {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(script::directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "txt") {
            found.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    found.sort();
    let mut listed = LISTED.to_vec();
    listed.sort_unstable();
    assert_eq!(
        found, listed,
        "tests/e2e/scripts.rs lists the files of testdata/script"
    );
}
