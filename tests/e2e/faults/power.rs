//! Power cuts: a file system that forgets, at a random instant, everything that it wasn't told to keep.
//!
//! `EXT4_IOC_SHUTDOWN` without flushing the journal does to a mounted file system what pulling the plug does.

use super::{Numbers, PATIENT, Trial, is_long};
use crate::scene::Output;
use crate::{machine, validate};

/// Mounts a fresh ext4 on the store; builds; cuts the power a moment after there are so many layers; mounts it again.
const CUT: &str = r#"
image=$1 layers=$2 after=$3; shift 3
truncate -s 96M "$image"; mkfs.ext4 -q -F "$image"; patient mount -o loop "$image" "$STORE"; chmod 700 "$STORE"
rm -f watching over; mkfifo watching
python3 - "$STORE" "$layers" "$after" << 'E' &
import fcntl, os, struct, sys, time
store = os.open(sys.argv[1], os.O_RDONLY)
open("watching", "w").close()
def layers():
    try:
        return len(os.listdir(sys.argv[1] + "/layers"))
    except FileNotFoundError:
        return 0
while layers() < int(sys.argv[2]) and not os.path.exists("over"):
    pass
time.sleep(float(sys.argv[3]))
fcntl.ioctl(store, 0x8004587D, struct.pack("I", 2))
E
cut=$!
: < watching
"$@" & pid=$!
code=0; wait $pid || code=$?; : > over; wait $cut
patient umount "$STORE"
# A copy: whoever still has the old one mounted, in a namespace of its own, would have it mounted again as it is.
# And a file of its own, not that of the cut before, which may be mounted and written somewhere for a moment, too.
rm -f "$image.after"; cp --sparse=always "$image" "$image.after"; rm "$image"
patient mount -o loop "$image.after" "$STORE"
exit $code
"#;

/// The build makes at least as many layers.
const LAYERS: u64 = 6;

#[test]
fn power_cuts() {
    // hardening R02, hardening R01: nothing that the index or a name promises is short, empty or wrong afterwards
    let needs = ["root", "exec:mkfs.ext4", "exec:python3"];
    let Some(trial) = Trial::new("power_cuts", &needs) else {
        return;
    };
    if !mounts_loops(&trial) {
        machine::skip("power_cuts", "needs loop devices and ext4");
        return;
    }
    let mut numbers = Numbers(0x1234_5678_9abc);
    let n_cuts = if is_long() { 40 } else { 4 };
    let image = trial.scene.aside("disk").display().to_string();
    let (mut n_cut, mut n_tried) = (0, 0);
    // A build that the cut came too late for kept what it promised, too, but isn't what this is about.
    while n_cut < n_cuts {
        n_tried += 1;
        assert!(n_tried <= 5 * n_cuts, "{n_cut} of {n_tried} builds met the cut");
        let (layers, micros) = (numbers.below(LAYERS), numbers.below(10_000));
        let after = format!("0.{micros:06}");
        let output = cut(&trial, &image, (&layers.to_string(), &after));
        assert_ne!(output.code, Some(99), "{}", output.stderr_text());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // Before anything is built again: what is there must be whole, and then all is as after any other accident.
            let checked = trial.scene.run("ashlar", &["check", "--deep"]);
            let said = output.stderr_text();
            let found = checked.stdout_text() + &checked.stderr_text();
            assert_eq!(
                checked.code,
                Some(0),
                "cut after {layers} layers and {after} s: {found}----
{said}"
            );
            let what = format!("cut after {layers} layers and {after} s");
            // Finished steps may be lost: their records are synced a little later.
            trial.builds_right(&what);
            let problems = validate::store_problems(&trial.scene.store());
            assert_eq!(problems, Vec::<String>::new(), "{what}");
        }));
        let umount = [PATIENT, "patient umount \"$STORE\""].concat();
        trial.scene.must("sh", &["-ec", &umount]);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        n_cut += usize::from(output.code != Some(0));
    }
}

fn cut(trial: &Trial, image: &str, (layers, after): (&str, &str)) -> Output {
    let own = trial.args();
    let script = [PATIENT, CUT].concat();
    let mut args = vec!["-ec", &script, "cut", image, layers, after, "ashlar"];
    args.extend(own.iter().map(String::as_str));
    trial.scene.run("sh", &args)
}

/// Tries it: where loop devices are missing, or may not be used, nothing can be cut.
fn mounts_loops(trial: &Trial) -> bool {
    let image = trial.scene.aside("try").display().to_string();
    let script =
        "truncate -s 8M $0 && mkfs.ext4 -q -F $0 && mount -o loop $0 \"$STORE\" && umount \"$STORE\"";
    trial.scene.run("sh", &["-c", script, &image]).code == Some(0)
}
