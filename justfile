# The two commands a newcomer needs are the first two; the rest are shortcuts.

default:
    @just --list

# three clusters, one service name, on this machine
demo *args:
    cargo xtask demo {{args}}

# everything
test *only:
    cargo xtask test {{only}}

# exactly what CI runs
ci:
    bash .ci/run

fmt:
    cargo fmt --all

lint:
    cargo xtask setup && cargo clippy --workspace --all-targets

bench name="":
    cargo xtask bench {{name}}
