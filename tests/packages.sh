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

# install_erofs DIR: makes sure that erofs-utils which know 512-byte blocks (1.6 or newer) come first in PATH.
# Where the distribution's is older, the one of the next Debian release is unpacked into DIR with the libraries that it
# wants, and run through its own loader; nothing of the system is changed.
install_erofs() {
    version=$(PATH="$PATH:/usr/sbin:/sbin" fsck.erofs -V 2>&1 | sed -n 's/.*(erofs-utils) *\([0-9.]*\).*/\1/p' | head -n 1)
    case $version in
    "" | 0.* | 1.[0-5] | 1.[0-5].*) ;;
    *) return 0 ;;
    esac
    mkdir -p "$1" && tools=$(cd "$1" && pwd) || return 1
    PATH="$tools/bin:$PATH"
    [ ! -x "$tools/bin/mkfs.erofs" ] || return 0
    mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
    [ -n "$mirror" ] || mirror=$(awk '$1 == "deb" && $2 ~ /debian$/ {print $2; exit}' /etc/apt/sources.list 2>/dev/null)
    if [ -z "$mirror" ]; then
        echo "fsck.erofs $version is too old, and this is no Debian: please install erofs-utils 1.6 or newer" >&2
        return 1
    fi
    echo "Unpacking erofs-utils of Debian 13 into $tools"
    mkdir -p "$tools/apt/lists/partial" "$tools/apt/archives/partial" "$tools/root" "$tools/bin"
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$key] $mirror trixie main" >"$tools/apt/sources.list"
    apt="-o Dir::Etc::sourcelist=$tools/apt/sources.list -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists=$tools/apt/lists -o Dir::Cache=$tools/apt -o APT::Sandbox::User=root"
    # shellcheck disable=SC2086 # words on purpose
    apt-get $apt update -q >/dev/null &&
        (cd "$tools/apt/archives" && apt-get $apt download -q erofs-utils/trixie libc6/trixie libdeflate0/trixie \
            liblz4-1/trixie liblzma5/trixie libselinux1/trixie libpcre2-8-0/trixie libuuid1/trixie libxxhash0/trixie \
            libzstd1/trixie zlib1g/trixie >/dev/null) || return 1
    for package in "$tools"/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$tools/root" || return 1
    done
    arch=$(uname -m)-linux-gnu
    loader=$(find "$tools/root" -name 'ld-linux*.so.*' -type f | head -n 1)
    for tool in mkfs.erofs fsck.erofs; do
        {
            echo "#!/bin/sh"
            echo "exec '$loader' --library-path '$tools/root/usr/lib/$arch:$tools/root/lib/$arch' '$tools/root/usr/bin/$tool' \"\$@\""
        } >"$tools/bin/$tool"
        chmod +x "$tools/bin/$tool"
    done
    "$tools/bin/fsck.erofs" -V >/dev/null
}

# fetch_arm64_busybox DIR: unpacks Debian's static busybox for arm64 into DIR/root, for tests of foreign platforms.
fetch_arm64_busybox() {
    [ ! -e "$1/root/bin/sh" ] || return 0
    if ! has apt-get; then
        echo "Only apt-get is known here; tests of foreign platforms are skipped." >&2
        return 0
    fi
    echo "Fetching busybox for arm64 into $1"
    mkdir -p "$1/apt/lists/partial" "$1/apt/archives/partial" "$1/unpacked" && dir=$(cd "$1" && pwd) || return 1
    apt="-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists=$dir/apt/lists
        -o Dir::Cache=$dir/apt -o APT::Sandbox::User=root"
    # shellcheck disable=SC2086 # words on purpose
    apt-get $apt update -q >/dev/null && (cd "$dir/apt/archives" && apt-get $apt download -q busybox-static >/dev/null) || return 1
    for package in "$dir"/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$dir/unpacked" || return 1
    done
    mkdir -p "$dir/root/bin" && cp "$dir/unpacked/bin/busybox" "$dir/root/bin/busybox" &&
        ln -f "$dir/root/bin/busybox" "$dir/root/bin/uname" && ln -f "$dir/root/bin/busybox" "$dir/root/bin/sh" || return 1
    rm -rf "$dir/apt" "$dir/unpacked"
}

# install_moto DIR: makes sure that there is a server that speaks S3, in a Python environment of its own.
install_moto() {
    ! has moto_server || return 0
    dir=$1
    if [ ! -x "$dir/bin/moto_server" ]; then
        echo "Installing moto into $dir"
        python3 -m venv "$dir" && "$dir/bin/pip" install -q --disable-pip-version-check "moto[server]==5.2.1" || return 1
    fi
    PATH="$(cd "$dir" && pwd)/bin:$PATH"
}
