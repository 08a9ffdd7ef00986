#!/usr/bin/env bash
# Runs this folder's tests and measurements on a GPU, within a time, and keeps what each part found.
#
#   OUT=results ./run.sh [--seconds N] [--device cuda[:N]|emulated] [--only tests|compare|bench]... [--peer FILE.so]... [--dry-run]
#
# OUT gets results.json (the measurements), compare.json, run.json (what ran, how long, how it ended), log.txt, and parts.tar with
# stdout and stderr of each part: five files, as some ways to bring them home count files. A part that fails or runs out of time
# loses nothing of the others. Exit status: 0 where all parts passed, 1 where one did not, 2 for wrong usage.
set -uo pipefail

usage() {
    echo "run.sh: $1; usage: [OUT=FOLDER] run.sh [--seconds N] [--device cuda[:N]|emulated]" \
        "[--only tests|compare|bench]... [--peer FILE.so]... [--dry-run]" >&2
    exit 2
}

seconds=540
device=cuda
only=
peers=()
dry=
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=${2-}; shift 2 || usage "--seconds wants a number" ;;
        --device) device=${2-}; shift 2 || usage "--device wants a name" ;;
        --only)
            case ${2-} in tests | compare | bench) ;; *) usage "no part '${2-}'" ;; esac
            only="$only $2"; shift 2 ;;
        --peer)
            [ -f "${2-}" ] || usage "--peer wants a shared library, and '${2-}' is no file"
            peers+=(--peer "$(realpath "$2")"); shift 2 ;;
        --dry-run) dry=1; shift ;;
        *) usage "unknown argument $1" ;;
    esac
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || usage "--seconds wants a number above 0, not '$seconds'"
case $device in cuda | cuda:[0-9]* | emulated) ;; *) usage "no device '$device'" ;; esac

here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/out}
deadline=$((SECONDS + seconds))
records=
failed=0

say() {
    echo "$*"
    [ -n "$dry" ] || echo "$*" >>"$out/log.txt"
}

# record NAME STATUS EXIT SECONDS: adds a part to run.json, which is whole after each.
record() {
    records="$records${records:+,}
    {\"part\": \"$1\", \"status\": \"$2\", \"exit\": $3, \"seconds\": $4}"
    printf '{"device": "%s", "limit_s": %s, "commit": "%s", "parts": [%s\n]}\n' \
        "$device" "$seconds" "${BITNET_COMMIT:-}" "$records" >"$out/run.json"
}

# wanted KIND: whether parts of this kind are run.
wanted() {
    [ -z "$only" ] || [[ " $only " == *" $1 "* ]]
}

# part NAME LIMIT COMMAND...: runs a command for at most LIMIT seconds, and no longer than there is time.
part() {
    local name=$1 limit=$2 started=$SECONDS left=$((deadline - SECONDS)) status
    shift 2
    if [ -n "$dry" ]; then
        local command=$*
        command=${command//$here\//}
        say "$name: at most $limit s: ${command//$scratch\//}"
        return
    fi
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -le 0 ]; then
        say "$name: not run, no time is left"
        record "$name" "no time" null 0
        failed=1
        return
    fi
    timeout --kill-after=5 "$limit" "$@" >"$parts/$name.out" 2>"$parts/$name.err" </dev/null
    status=$?
    tar -rf "$out/parts.tar" -C "$parts" "$name.out" "$name.err"
    case $status in
        0) record "$name" passed 0 $((SECONDS - started)) ;;
        124 | 137) record "$name" "out of time" $status $((SECONDS - started)); failed=1 ;;
        *) record "$name" failed $status $((SECONDS - started)); failed=1 ;;
    esac
    say "$name: exit $status after $((SECONDS - started)) s"
    if [ $status -ne 0 ]; then
        # Tests say on stdout what failed; where stdout is JSON, it may be one long line.
        for stream in out err; do
            tail -n 25 "$parts/$name.$stream" | cut -c 1-400 | sed "s/^/  $name.$stream: /" | tee -a "$out/log.txt"
        done
    fi
}

[ -z "$dry" ] || say "plan for $seconds s on $device, in this order; what a part leaves goes to the later ones"
[ -n "$dry" ] || { mkdir -p "$out" && out=$(cd "$out" && pwd) && : >"$out/log.txt" && rm -f "$out/parts.tar"; } || exit 2
[ ! -f "$here/COMMIT" ] || { BITNET_COMMIT=$(cat "$here/COMMIT") && export BITNET_COMMIT; }
export BITNET_TEST_DEVICE=$device RUST_BACKTRACE=0

# Test programs read their golden data from the folder that they run in.
scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT && tar -xzf "$here/tests.tar.gz" -C "$scratch" || exit 2
cd "$scratch" || exit 2
[ -s modules ] || { say "tests.tar.gz has no list of modules: make the bundle anew"; exit 2; }
parts=$scratch/parts && mkdir "$parts" || exit 2
# So that the driver compiles the PTX once, and not once for each program, wherever it may write.
export CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-$scratch/cuda-cache}
mkdir -p "$CUDA_CACHE_PATH" || say "info: the driver cannot keep what it compiles in $CUDA_CACHE_PATH"

# Shares of the time: tests a third, the comparison a sixth, measurements the rest; what is not run leaves its share to the others.
part info 60 "$here/bitnet" info --json
tests_end=$((SECONDS + seconds / 3))
wanted compare || wanted bench || tests_end=$deadline
# tests NAME COMMAND...: a part of the tests.
tests() {
    local limit=$((seconds / 6)) left=$((tests_end - SECONDS))
    [ "$limit" -le "$left" ] || limit=$left
    part "test-$1" "$limit" "${@:2}"
}
if wanted tests; then
    # A process a module of the integration tests: an error that spoils the GPU's context is that module's only.
    while read -r module names; do
        # shellcheck disable=SC2086 # names of tests have no spaces
        tests "$module" "$scratch/tests/integration" --exact $names
    done <modules
    for program in "$scratch"/tests/*; do
        case $program in *.so | */integration) continue ;; esac
        tests "$(basename "$program")" "$program"
    done
fi
if [ "$device" = emulated ]; then
    say "compare: left out, it needs a GPU"
elif wanted compare; then
    part compare $((seconds / 6)) "$here/bitnet" compare --device "$device" --json
    [ -n "$dry" ] || [ ! -s "$parts/compare.out" ] || cp "$parts/compare.out" "$out/compare.json"
fi
wanted bench || exit $failed
# The program stops by itself before it is stopped, and writes what it has after each step.
share=2
wanted tests || wanted compare || share=1
left=$((dry ? seconds / share : deadline - SECONDS))
budget=$((left > 60 ? left - 30 : left * 2 / 3))
part bench "$left" "$here/bitnet" bench --device "$device" "${peers[@]}" --time-limit "$budget" --output "$out/results.json"
exit $failed
