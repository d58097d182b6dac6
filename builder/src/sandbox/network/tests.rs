//! Networks of containers: what the kernel's table says, and, where a program for it is installed, what can be reached.

use super::tool::default_gateway;
use super::*;

const HOST: Wants = Wants {
    host: true,
    resolver: false,
};

#[test]
fn the_gateway_is_read_from_the_routes() {
    let check = |routes: &str, expected: Option<[u8; 4]>| {
        let text = format!("Iface\tDestination\tGateway\tFlags\n{routes}");
        assert_eq!(default_gateway(&text), expected.map(Ipv4Addr::from), "{routes}");
    };
    let gateway = format!("{:08X}", u32::from_ne_bytes([192, 0, 2, 1]));
    check(
        &format!("eth0\t000200C0\t00000000\t0001\neth0\t00000000\t{gateway}\t0003\n"),
        Some([192, 0, 2, 1]),
    );
    check("eth0\t00000000\t00000000\t0001\n", None);
    check("eth0\t00000000\tnonsense\t0001\n", None);
    check("", None);
}

#[test]
fn the_machines_loopback_is_forwarded_on_request_only() {
    for tool in Tool::installed() {
        let closed = tool.plan(Wants::default());
        let open = tool.plan(HOST);
        assert_ne!(closed, open, "{tool:?}");
        let text = serde_json::to_string(&closed).unwrap();
        let closes = ["--no-map-gw", "--disable-host-loopback"];
        assert!(closes.iter().any(|option| text.contains(option)), "{text}");
        assert!(!text.contains("--dns-forward"), "{text}");
    }
}

#[test]
fn what_was_not_asked_for_needs_no_program() {
    if crate::sandbox::launch::probe().is_err() {
        eprintln!("SKIP what_was_not_asked_for_needs_no_program: needs root");
        return;
    }
    let helper = Helper::load().unwrap();
    let networks = Networks::new(HOST);
    let none = networks.take(Wanted::None, &helper, Cancel::never()).unwrap();
    assert_eq!(
        (none.net(), none.host_address(), none.resolver()),
        (Net::None, None, None)
    );
    let host = networks.take(Wanted::Host, &helper, Cancel::never()).unwrap();
    let localhost = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!((host.net(), host.host_address()), (Net::Host, localhost));
    assert_eq!((host.warning.as_ref(), host.resolver()), (None, None));
}

#[test]
fn without_a_program_the_machines_network_is_used_and_that_is_said_once() {
    let networks = Networks::default();
    networks.state().refusal = Some("nothing is installed".to_owned());
    if crate::sandbox::launch::probe().is_err() {
        eprintln!("SKIP without_a_program_the_machines_network_is_used_and_that_is_said_once: needs root");
        return;
    }
    let helper = Helper::load().unwrap();
    let first = networks.take(Wanted::Default, &helper, Cancel::never()).unwrap();
    let warning = first.warning.clone().unwrap();
    for word in ["nothing is installed", "passt", "--network=none"] {
        assert!(warning.contains(word), "{warning}");
    }
    assert_eq!(first.net(), Net::Host);
    assert_eq!(
        networks
            .take(Wanted::Default, &helper, Cancel::never())
            .unwrap()
            .warning,
        None
    );
}

/// What one step did must not get the next one a network with the machine's loopback.
#[test]
fn a_program_that_worked_and_fails_now_is_an_error() {
    if crate::sandbox::launch::probe().is_err() {
        eprintln!("SKIP a_program_that_worked_and_fails_now_is_an_error: needs root");
        return;
    }
    let networks = Networks::default();
    networks.state().tool = Some(Tool::broken());
    let helper = Helper::load().unwrap();
    let error = networks
        .take(Wanted::Default, &helper, Cancel::never())
        .unwrap_err()
        .to_string();
    assert!(error.contains("/no/such/pasta"), "{error}");
    assert_eq!(networks.state().refusal, None);
}

/// A program that hangs is waited for, but not by those who don't want to any more; and it is no reason to use the
/// machine's network.
#[test]
fn nobody_waits_for_a_network_of_what_was_cancelled() {
    if crate::sandbox::launch::probe().is_err() {
        eprintln!("SKIP nobody_waits_for_a_network_of_what_was_cancelled: needs root");
        return;
    }
    let helper = Helper::load().unwrap();
    let plan = Plan {
        program: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), "exec sleep 1000".to_owned()],
        goes_to_background: true,
    };
    let (stop, stopper) = std::io::pipe().unwrap();
    drop(stopper);
    let cancelled = connect(&helper, plan, Cancel::on(stop.as_fd())).map(drop);
    assert!(matches!(cancelled, Err(SandboxError::Cancelled)), "{cancelled:?}");
    let networks = Networks::default();
    if Tool::installed().is_empty() {
        return;
    }
    // It may be there sooner than that is seen, but nothing else may come of it.
    match networks.take(Wanted::Default, &helper, Cancel::on(stop.as_fd())) {
        Err(error) => assert!(matches!(error, SandboxError::Cancelled), "{error}"),
        Ok(taken) => assert_eq!(taken.warning, None),
    }
    assert_eq!(networks.state().refusal, None);
}

/// A program that fails tells why, and the next one is tried.
#[test]
fn a_program_that_fails_is_quoted() {
    if crate::sandbox::launch::probe().is_err() {
        eprintln!("SKIP a_program_that_fails_is_quoted: needs root");
        return;
    }
    let helper = Helper::load().unwrap();
    let check = |goes_to_background, script: &str, expected: &str| {
        let plan = Plan {
            program: "/bin/sh".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            goes_to_background,
        };
        let found = connect(&helper, plan, Cancel::never())
            .map(drop)
            .map_err(|error| error.to_string());
        assert_eq!(found, Err(expected.to_owned()), "{script}");
    };
    check(
        true,
        "echo no log >&2; echo no tunnel >&2; exit 1",
        "sh failed: no tunnel",
    );
    check(false, "exit 1", "sh failed: no reason given");
    let plan = Plan {
        program: "/no/such/program".to_owned(),
        args: Vec::new(),
        goes_to_background: true,
    };
    let error = connect(&helper, plan, Cancel::never()).unwrap_err().to_string();
    assert!(error.contains("cannot start /no/such/program"), "{error}");
}

/// Nobody who interrupts a build waits for a program that never comes up.
#[test]
fn a_network_that_is_waited_for_can_be_cancelled() {
    if crate::sandbox::launch::probe().is_err() {
        eprintln!("SKIP a_network_that_is_waited_for_can_be_cancelled: needs root");
        return;
    }
    let helper = Helper::load().unwrap();
    let (cancelled, other_end) = std::io::pipe().unwrap();
    let plan = Plan {
        program: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), "exec sleep 1000".to_owned()],
        goes_to_background: true,
    };
    drop(other_end);
    let error = connect(&helper, plan, Cancel::on(cancelled.as_fd())).map(drop);
    assert!(matches!(error, Err(SandboxError::Cancelled)), "{error:?}");
}
