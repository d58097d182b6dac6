//! The flags that limit containers.

use clap::Args;

/// Limits of containers, of `ashlar build` and `ashlar run`.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = "Limits of containers")]
pub(crate) struct LimitArgs {
    /// Memory, for instance 512m; what is written to files doesn't count
    #[arg(short = 'm', long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Memory and swap together; -1: all swap [default: twice the memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// CPU time, in CPUs: 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// CPU time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_quota: Option<String>,
    /// Length of a period [default: 100000]
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<String>,
    /// Weight against others, who have 1024
    #[arg(short = 'c', long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<String>,
    /// CPUs that may be used: 0-2,4
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes that may be used
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Processes and threads; -1: any number
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<String>,
    /// A limit of every process, such as nofile=1024:2048 (repeatable)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// Put a small process 1 above the command, which reaps orphans so that they don't count
    #[arg(long)]
    pub(crate) init: bool,
    /// Size of /dev/shm, for instance 64m
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// Several limits at once: memory=2g,cpu-quota=50000
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) resource: Vec<String>,
    /// Control group to make the containers' own in [default: this process's]
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
}
