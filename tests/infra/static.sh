#!/usr/bin/env bash
# Shows that a bridge's static binary works in an image that has nothing else: builds it as
# deploy/Dockerfile does (but in debug), then runs it in an empty root directory.
#
#   bash tests/infra/static.sh eks            # builds, several minutes the first time
#   bash tests/infra/static.sh eks BINARY     # takes one that is built
#
# Not part of the test suite, as it compiles everything a second time; .ci/run links the tests this way and gives their
# binaries. Starting the binary needs root or user namespaces.
set -euo pipefail
cd "$(dirname "$0")/../.."

bridge=${1:-}
case "$bridge" in
  eks | gke | aks) ;;
  *) echo "usage: bash tests/infra/static.sh eks|gke|aks [BINARY]" >&2; exit 2 ;;
esac
name=$bridge-audit-bridge
host=$(rustc -vV | sed -n 's/^host: //p')
binary=${2:-target/$host/debug/$name}
if [ $# -lt 2 ]; then
  RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --target "$host" -p "$name"
fi

fail() { echo "FAILED: $*" >&2; exit 1; }

headers=$(readelf --program-headers --dynamic "$binary")
if grep -q INTERP <<<"$headers"; then fail "$binary asks for a dynamic loader"; fi
if grep -q NEEDED <<<"$headers"; then fail "$binary needs shared libraries"; fi
echo "static: $binary has no loader and no shared libraries"

root=$(mktemp -d)
chmod 0755 "$root"
receiver=
cleanup() { [ -z "$receiver" ] || kill "$receiver" 2>/dev/null || true; rm -rf "$root"; }
trap cleanup EXIT
install -m 0555 "$binary" "$root/bridge"
if chroot --userspec=65532:65532 / true 2>/dev/null; then
  enter() { chroot --userspec=65532:65532 "$root" "$@"; }
elif unshare --map-root-user true 2>/dev/null; then
  enter() { unshare --map-root-user chroot "$root" "$@"; }
else
  echo "skipped: neither root nor user namespaces here, so it was not started in an empty root" >&2
  exit 0
fi

version=$(enter /bridge version) || fail "it does not start in an empty root directory"
echo "starts: $version"

# What Kubernetes adds to a container is /etc/hosts and /etc/resolv.conf; names must resolve by both
# without a shared library of the C library's name service.
mkdir "$root/etc"
python3 - "$root/port" <<'PY' &
import http.server, sys

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(server.server_address[1]))
import os
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
PY
receiver=$!
for _ in $(seq 100); do [ -s "$root/port" ] && break; sleep 0.1; done
port=$(cat "$root/port") || fail "the receiver did not start"

event='{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","verb":"get","requestURI":"/","stageTimestamp":"2026-11-21T10:00:00.000002Z"}'
echo "$event" > "$root/events.jsonl"
echo "127.0.0.1 receiver.test" > "$root/etc/hosts"
enter /bridge replay /events.jsonl --webhook-url "http://receiver.test:$port/" --give-up-after 5s \
  || fail "a name of /etc/hosts does not resolve"
echo "delivers: by a name of /etc/hosts"

if [ "$(id -u)" = 0 ]; then
  # A name server of one answer, on the only port that resolv.conf can say.
  python3 - "$root/dns" <<'PY' &
import socket, sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.53", 53))
open(sys.argv[1], "w").write("up")
while True:
    query, peer = server.recvfrom(512)
    end = query.index(0, 12) + 5
    wants_a = query[end - 4 : end - 2] == b"\0\1"
    head = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if wants_a else b"\0\0") + b"\0\0\0\0"
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if wants_a else b""
    server.sendto(head + query[12:end] + answer, peer)
PY
  dns=$!
  for _ in $(seq 50); do [ -s "$root/dns" ] && break; sleep 0.1; done
  if [ -s "$root/dns" ]; then
    echo "127.0.0.1 localhost" > "$root/etc/hosts"
    echo "nameserver 127.0.0.53" > "$root/etc/resolv.conf"
    enter /bridge replay /events.jsonl --webhook-url "http://by-dns.test:$port/" --give-up-after 5s \
      || { kill "$dns"; fail "a name does not resolve by DNS"; }
    echo "delivers: by DNS"
    kill "$dns"
  else
    echo "skipped: 127.0.0.53:53 is taken, resolving by DNS was not tested"
  fi
else
  echo "skipped: resolving by DNS needs root for port 53"
fi
# The image that deploy/Dockerfile describes, built without an engine, pushed to a registry on the loopback, and back.
image=$root/image
if command -v go >/dev/null; then
  python3 tests/infra/image.py "$bridge" "$binary" "$image" || fail "the image cannot be built"
  chroot_into() {
    if [ "$(id -u)" = 0 ]; then chroot --userspec=65532:65532 "$image" "$@"; else unshare --map-root-user chroot "$image" "$@"; fi
  }
  said=$(chroot_into /usr/local/bin/audit-bridge version) || fail "it does not start in its image"
  [ "$said" = "$version" ] || fail "the image has another program: $said"
  echo "starts in its image: $said"
else
  echo "skipped: Go is not installed, so the image was not built"
fi
echo "$name works in an image that has nothing but itself"
