#!/bin/sh
# Makes the seed corpora, of the PTX that the repository holds.
set -e
cd "$(dirname "$0")"
mkdir -p corpus/parse corpus/execute
for ptx in ../benches/*.ptx ../tests/*.ptx ../tests/cuda/*.ptx; do
    name=$(basename "$ptx" .ptx)
    cp "$ptx" "corpus/parse/$name"
    # Two blocks of 64 threads with every check, and one block of 33 with a seed.
    { printf '\001\077\000'; cat "$ptx"; } > "corpus/execute/$name-checked"
    { printf '\000\040\120'; cat "$ptx"; } > "corpus/execute/$name-seeded"
done
# Words that a random change hardly makes.
grep -hoE '[.%]?[a-zA-Z_][a-zA-Z0-9_]*' ../tests/*.ptx ../tests/cuda/*.ptx ../tests/*.rs |
    grep -E '^[.%a-z]' | sort | uniq -c | sort -rn | head -400 |
    awk '{ printf "\"%s\"\n", $2 }' > ptx.dict
