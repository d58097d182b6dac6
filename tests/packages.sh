# What `tests/run` and `tests/demo` share: finding root, and installing from the distribution what is missing.
# Sourced, not run. POSIX sh.

# as_root CMD…: runs a command as root, through sudo where needed.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        echo "root is needed for: $*" >&2
        echo "Run this as root, or install sudo." >&2
        return 1
    fi
}

# has PROGRAM: whether it can be run, /usr/sbin included (not in every user's PATH).
has() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1
}

# install_missing PROGRAM=PACKAGE…: installs the packages whose program is missing, those only.
install_missing() {
    wanted=
    for pair in "$@"; do
        has "${pair%%=*}" || wanted="$wanted ${pair#*=}"
    done
    [ -n "$wanted" ] || return 0
    if ! has apt-get; then
        echo "Missing:$wanted (Debian's names). Only apt-get is known here; please install them." >&2
        return 1
    fi
    echo "Installing:$wanted"
    as_root apt-get update -q >/dev/null || echo "apt-get update failed; trying with the old lists" >&2
    # shellcheck disable=SC2086 # one word per package
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $wanted >/dev/null
}
