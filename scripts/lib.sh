# Shared by scripts/run and scripts/test; read with `.`, never run. POSIX sh.
#
# The caller sets $root to the project's directory. What these functions install goes into $venv alone, except for
# the venv module of Debian and Ubuntu, which root installs with apt.
# shellcheck shell=sh

venv=${AGENTD_VENV:-$root/.venv}

say() {
    printf '%s\n' "$*" >&2
}

# Print the name of a Python 3.11 or later; fail with one line where there is none.
find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    say "agentd needs Python 3.11 or later, and none was found. On Debian or Ubuntu: apt-get install python3 python3-venv"
    return 2
}

# have_venv PYTHON: whether it can make virtual environments. Debian and Ubuntu package that separately.
have_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

# apt_install WHY PACKAGE...: install with apt, as root on Debian or Ubuntu; otherwise name the one line to run, and fail.
# WHY is a whole clause.
apt_install() {
    why=$1
    shift
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        say "$why. On Debian or Ubuntu run: sudo apt-get install -y $*"
        return 2
    fi
    say "installing $* with apt-get: $why"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null || {
        say "cannot install $*"
        return 2
    }
}

# install_venv PYTHON: install what makes virtual environments, or say how and fail.
install_venv() {
    # Debian's own python3 goes with python3-venv, python3.12 with python3.12-venv.
    apt_install "$1 lacks what makes virtual environments" "${1##*/}-venv" || return
    have_venv "$1" && return 0
    say "$1 cannot make virtual environments, with ${1##*/}-venv installed"
    return 2
}

# make_venv [EXTRAS]: have the project, with its dependencies and those of EXTRAS (for example `test`), installed
# in $venv. Does nothing when it was done before and neither pyproject.toml nor the Python has changed since.
make_venv() {
    extras=${1:-}
    stamp=$venv/.agentd-installed${extras:+-$extras}
    wanted=$(cksum <"$root/pyproject.toml")
    if "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python) || return
        have_venv "$python" || install_venv "$python" || return
        if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
            say "cannot make a virtual environment in $venv: it holds something else"
            return 2
        fi
        say "making the virtual environment $venv"
        "$python" -m venv --clear "$venv" || return
    fi
    say "installing agentd and what it needs into $venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 -e "$root${extras:+[$extras]}" || {
        say "cannot install into $venv; see pip's message above"
        return 1
    }
    printf '%s' "$wanted" >"$stamp"
}
