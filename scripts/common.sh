# shellcheck shell=bash
# What the scripts beside this file share. Sourced, never run.
#
# Settings that others read (image names, engine quirks) are in .dev/env as KEY=VALUE, written by scripts/images.
# A variable that is already set in the environment always wins over that file.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DEV_DIR="$ROOT/.dev"
ENV_FILE="$DEV_DIR/env"
# What belongs to the machine and not to one checkout: the engine that scripts/engine started.
# shellcheck disable=SC2034
ENGINE_DIR=/run/device-agent-dev

say() { printf '%s\n' "$*" >&2; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# step TEXT COMMAND...: prints TEXT, runs COMMAND with its output kept in a log, prints the time it took.
# On failure: the end of the log, then one line. COMMAND stops at its first error; so do not call this in a condition.
step() {
    local text=$1 log code started=$SECONDS
    shift
    log=$(mktemp)
    printf '%s ... ' "$text" >&2
    set +e
    (
        set -e
        "$@"
    ) >"$log" 2>&1
    code=$?
    set -e
    end_step "$text" "$code" "$log" "$((SECONDS - started))"
}

end_step() {
    local text=$1 code=$2 log=$3 seconds=$4
    if [ "$code" = 0 ]; then
        printf 'done (%ss)\n' "$seconds" >&2
        rm -f "$log"
    else
        printf 'FAILED\n' >&2
        tail -n 30 "$log" >&2
        rm -f "$log"
        die "failed: $text"
    fi
}

can_apt() { [ "$(id -u)" = 0 ] && have apt-get; }

# Package lists are fetched at most once a run of the scripts, and not at all when they are less than a day old.
apt_update() {
    local stamp="$DEV_DIR/apt-updated"
    mkdir -p "$DEV_DIR"
    [ -n "$(find "$stamp" -mmin -1440 2>/dev/null)" ] && return
    apt-get -q update && touch "$stamp"
}

apt_install_quietly() {
    apt_update
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@" ||
        { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@"; }
}

# apt_install PACKAGE...: for what the scripts cannot do without.
apt_install() {
    can_apt || die "needs the Debian package(s) $*, and may not install them (not root, or no apt): install them and run it again"
    step "installing $* (Debian packages)" apt_install_quietly "$@"
}

# Reads .dev/env without overriding what is set already.
load_env() {
    local key value
    [ -r "$ENV_FILE" ] || return 0
    while IFS='=' read -r key value; do
        [[ $key =~ ^[A-Z_][A-Z0-9_]*$ ]] || continue
        [ -n "${!key+set}" ] || export "$key=$value"
    done <"$ENV_FILE"
}
