#!/usr/bin/env bash
# Fuzzes one target: bash tests/fuzz/run.sh <eks|gke|aks|shapes> <seconds> [libFuzzer's options]
# Builds all targets: bash tests/fuzz/run.sh build
#
# Needs the stable toolchain and a C++ compiler. The corpus grows in tests/fuzz/target/corpus, what
# fails is written to tests/fuzz/target/failures: give such a file as a further option to see it
# fail again.
set -euo pipefail

usage="usage: run.sh <eks|gke|aks|shapes> <seconds> [options], or run.sh build"
target=${1:?$usage}
case $target in
  build) bins=(--bins) ;;
  eks | gke | aks | shapes)
    bins=(--bin "$target")
    seconds=${2:?$usage}
    shift 2
    ;;
  *)
    echo "unknown target: $target; $usage" >&2
    exit 2
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")"

host=$(rustc -vV | sed -n 's/^host: //p')
# With --target, build scripts and macros are built without these.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
export CARGO_TARGET_DIR=$PWD/target
cargo build --locked --release --target "$host" "${bins[@]}"
[ "$target" != build ] || exit 0

# A byte of flags, see src/lib.rs, and a fixture: as a dump for the converters, for the reader in
# chunks of 64 bytes.
seeds=target/seeds/$target
case $target in
  shapes) folders=(../../bridges/*/fixtures) flags='?' ;;
  *) folders=("../../bridges/$target/fixtures") flags='8' ;;
esac
rm -rf "$seeds"
mkdir -p "$seeds"
find "${folders[@]}" -type f -size -32k | while read -r file; do
  { printf %s "$flags" && cat "$file"; } >"$seeds/${file//[^a-zA-Z0-9]/_}"
done

mkdir -p "target/corpus/$target" target/failures
# 512 MB is what the fuzzer itself may take; the bridges' own bound is tested elsewhere.
exec "target/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 \
  -max_len=32768 -print_final_stats=1 -artifact_prefix="target/failures/$target-" \
  "$@" "target/corpus/$target" "target/seeds/$target"
