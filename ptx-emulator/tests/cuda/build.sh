#!/bin/sh
# Makes the PTX beside each .cu file. NVCC names the compiler, of CUDA 13 or later.
set -e
cd "$(dirname "$0")"
for source in ${*:-*.cu}; do
    arch=$(sed -n 's|^// arch: ||p' "$source")
    "${NVCC:-nvcc}" -ptx -arch="${arch:-sm_80}" -lineinfo -O3 -std=c++17 -o "${source%.cu}.ptx" "$source"
    # File names without the folders of the machine.
    sed -i 's|^\(\t*\.file\t[0-9]* "\).*/|\1|' "${source%.cu}.ptx"
done
