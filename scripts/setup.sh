# shellcheck shell=bash disable=SC2034
# Shared by ./quickstart and ./test (sourced, not run): system packages, configuring and building.
# All system packages of the project are named here and nowhere else.

BUILD_PACKAGES=(
  cmake ninja-build ccache g++ pkg-config python3 curl
  libboost1.81-dev libboost-json1.81-dev libboost-url1.81-dev libboost-context1.81-dev
  libssl-dev libtomlplusplus-dev libspdlog-dev libfmt-dev prometheus-cpp-dev
  libpcre2-dev libutf8proc-dev libsentencepiece-dev libhwloc-dev libnuma-dev libucx-dev
  libgtest-dev libgmock-dev librapidcheck-dev libbenchmark-dev
  python3-dev python3-numpy pybind11-dev
)
TEST_PACKAGES=(
  python3-venv python3-jinja2 libdnnl-dev iproute2 util-linux clang-19 libclang-rt-19-dev
)

# One compiler cache serves all checkouts: paths below the project are hashed relative to it.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$PWD} CCACHE_NOHASHDIR=${CCACHE_NOHASHDIR:-1}

if [ -t 1 ]; then BOLD=$'\e[1m' PLAIN=$'\e[0m'; else BOLD='' PLAIN=''; fi
say() { printf '%s==> %s%s\n' "$BOLD" "$*" "$PLAIN"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# missing_packages NAMES...: those that dpkg does not have.
missing_packages() {
  local name
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || printf '%s ' "$name"
  done
}

# ensure_packages NAMES...: installs what is missing; asks for root only then.
ensure_packages() {
  if ! command -v dpkg-query >/dev/null; then
    die "this script installs Debian packages, and this system has no dpkg. On Debian 12 it needs no preparation; elsewhere
       install what scripts/setup.sh names, then: cmake --preset release && cmake --build --preset release --target cadre"
  fi
  local missing sudo='' id version
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  id=$(. /etc/os-release 2>/dev/null && echo "${ID:-}") version=$(. /etc/os-release 2>/dev/null && echo "${VERSION_ID:-}")
  if [ "$id" != debian ] || [ "$version" != 12 ]; then
    die "these packages are missing and are installed by name on Debian 12 only (this is ${id:-unknown} ${version:-}): $missing"
  fi
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "not root, and there is no sudo. Ask an administrator to run: apt-get install $missing"
    sudo=sudo
  fi
  say "installing $(wc -w <<<"$missing") system packages: $missing"
  local log=/tmp/cadre-apt.$$.log
  # shellcheck disable=SC2086
  if ! { $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing; } \
      >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    die "apt-get failed; the whole log is in $log"
  fi
  rm -f "$log"
}

# Compiling the largest file takes up to 2 GiB.
build_jobs() {
  local cpus gib
  cpus=$(nproc)
  gib=$(($(awk '/MemAvailable/ {print $2}' /proc/meminfo) / 1048576))
  local by_memory=$((gib / 2))
  [ "$by_memory" -ge 1 ] || by_memory=1
  echo $((cpus < by_memory ? cpus : by_memory))
}

# build PRESET TARGETS...: configures if needed and builds, with ninja's own progress.
build() {
  local preset=$1; shift
  mkdir -p "build/$preset"
  if ! cmake --preset "$preset" >"build/$preset/configure.log" 2>&1; then
    tail -n 25 "build/$preset/configure.log" >&2
    die "configuring failed; the whole log is in build/$preset/configure.log"
  fi
  local started=$SECONDS targets=()
  [ $# = 0 ] || targets=(--target "$@")
  say "building $preset${*:+ ($*)}"
  NINJA_STATUS='[%f/%t, %e s] ' cmake --build "build/$preset" -j "$(build_jobs)" "${targets[@]}" || return 1
  say "built $preset in $((SECONDS - started)) s"
}
