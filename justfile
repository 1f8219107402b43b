# What people do here, by name. `just` lists it; every line can be run without just.

export AWS_EC2_METADATA_DISABLED := "true"

# Lists the recipes.
default:
    @just --list

# The whole suite; or what a filter names: just test live_eks
test *filter:
    cargo test --workspace --locked {{ filter }}

# Format, lints, documentation.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --locked --quiet --lib

# Licences, advisories, bans (needs cargo-deny and the network for advisories).
deny:
    cargo deny --locked check

# End to end with the real binaries, and the checks of the repository.
e2e:
    cargo test --workspace --locked --test replay --test tidy --test 'live_*' --test infra

# Charts, modules, pages, workflows: one file of tests/infra, such as `just infra test_docs`.
infra module="discover":
    cd tests/infra && BRIDGES_FOLDER=../../target/debug $(python3 ../venv.py ../requirements-infra.txt) -m unittest -v {{ module }}

# Makes anew what is made of the chart and of the binaries: rendered examples, tables, lists of options.
generate:
    cargo build --workspace --locked --bins
    cd tests/infra && BRIDGES_FOLDER=../../target/debug $(python3 ../venv.py ../requirements-infra.txt) chart.py
    cd tests/infra && BRIDGES_FOLDER=../../target/debug $(python3 ../venv.py ../requirements-infra.txt) options.py

# Conversion against its floor; replay into a loopback webhook: rate, memory, first POST.
bench:
    cargo bench -p audit-bridge-tests

# Fuzzes a converter (eks, gke, aks) or the reading of dumps (shapes), for so many seconds.
fuzz target="eks" seconds="60":
    bash tests/fuzz/run.sh {{ target }} {{ seconds }}

# Kills the real binary so often while log and webhook fail.
kill kills="1000":
    KILLS={{ kills }} cargo test --workspace --locked --test live_eks killed -- --nocapture

# Constant load for so many minutes: memory, files, lag.
soak minutes="30":
    cargo run --release -p audit-bridge-tests --example soak -- {{ minutes }}

# Everything that CI does.
ci:
    bash .ci/run
