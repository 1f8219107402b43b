#!/usr/bin/env bash
# Switches the audit webhook on where the API server is a static pod that one reaches by ssh: kops and minikube. See
# README.md beside.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<TEXT
usage: enable-audit.sh enable  --platform kops|minikube --files FOLDER [OPTION…]
       enable-audit.sh restore --platform kops|minikube [OPTION…]

FOLDER is what \`audit-webhook.sh render --output FOLDER\` wrote.

OPTION
  --host HOST        machine of the API server; may be repeated, for several. Default: APISERVER_HOST (several with
                     spaces), else api. and kubectl's current context (kops), \`minikube ip\` (minikube)
  --ssh-user USER    default: ubuntu (kops), docker (minikube)
  --ssh-key FILE     default: ssh's own (kops), \`minikube ssh-key\` (minikube)
  --manifest PATH    of the static pod, on that machine. Default: /etc/kubernetes/manifests/kube-apiserver.manifest
                     (kops), /etc/kubernetes/manifests/kube-apiserver.yaml (minikube)
  --folder PATH      for the files, on that machine. Default: /var/lib/k8s_audit
  --wait SECONDS     for the API server to come back after each machine. Default: 180
  --dry-run          show what would change, change nothing

enable copies the two files, puts the flags and a mount into the manifest, and waits until the API server answers again;
if it does not, the manifest goes back to what it was. A second run changes nothing. The manifest as it was lies in
backup, below --folder on that machine; restore takes out what enable put in.
TEXT
}

die() { printf 'error: %s\n' "$*" >&2; exit 2; }

command=${1:-}
case "$command" in
  enable | restore) shift ;;
  -h | --help | help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

platform='' files='' user='' key='' manifest='' folder=/var/lib/k8s_audit wait=180 dry_run=''
hosts=()
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry_run=--dry-run; shift; continue ;;
    -h | --help) usage; exit 0 ;;
  esac
  [ $# -ge 2 ] || die "$1 needs a value, or is unknown; see --help"
  case "$1" in
    --platform) platform=$2 ;;
    --files) files=$2 ;;
    --host) hosts+=("$2") ;;
    --ssh-user) user=$2 ;;
    --ssh-key) key=$2 ;;
    --manifest) manifest=$2 ;;
    --folder) folder=$2 ;;
    --wait) wait=$2 ;;
    *) die "unknown option $1; see --help" ;;
  esac
  shift 2
done

if [ ${#hosts[@]} -eq 0 ] && [ -n "${APISERVER_HOST:-}" ]; then read -ra hosts <<<"$APISERVER_HOST"; fi
options=(-o BatchMode=yes)
case "$platform" in
  kops)
    user=${user:-ubuntu}
    manifest=${manifest:-/etc/kubernetes/manifests/kube-apiserver.manifest}
    if [ ${#hosts[@]} -eq 0 ]; then
      context=$(kubectl config current-context) || die "kubectl has no current context: name the machine with --host or APISERVER_HOST"
      hosts=("api.$context")
    fi
    ;;
  minikube)
    user=${user:-docker}
    manifest=${manifest:-/etc/kubernetes/manifests/kube-apiserver.yaml}
    if [ ${#hosts[@]} -eq 0 ]; then hosts=("$(minikube ip)"); fi
    [ -n "$key" ] || key=$(minikube ssh-key)
    # A machine on this one, made anew with the same address and another key.
    options+=(-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR)
    ;;
  '') die "--platform is missing: kops or minikube" ;;
  *) die "--platform is \"$platform\": write kops or minikube; the others are not reached by ssh, see README.md" ;;
esac
[ -z "$key" ] || options+=(-i "$key")
for path in "$manifest" "$folder"; do
  [[ $path =~ ^/[A-Za-z0-9._/-]+$ ]] || die "\"$path\" is no absolute path of letters, digits and . _ / -"
done
[[ $wait =~ ^[0-9]+$ ]] || die "--wait is \"$wait\": write seconds"
for host in "${hosts[@]}"; do
  [[ $host =~ ^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$ ]] || die "\"$host\" is no host name: name the machine with --host or APISERVER_HOST"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/patch-apiserver.sh" "$work/"
if [ "$command" = enable ]; then
  [ -n "$files" ] || die "--files is missing: the folder that audit-webhook.sh render wrote"
  for name in audit-policy.yaml webhook.kubeconfig; do
    [ -r "$files/$name" ] || die "there is no $files/$name: audit-webhook.sh render --platform $platform --output $files …"
    cp "$files/$name" "$work/"
  done
fi

# The files go through standard input, as one of them may hold a token. The action is apply, restore or undo.
remote() { # host action
  local script="d=\$(mktemp -d) && tar -xf - -C \"\$d\" && sudo sh \"\$d/patch-apiserver.sh\" $2 $dry_run $manifest $folder \"\$d\"; s=\$?; rm -rf \"\$d\"; exit \$s"
  # shellcheck disable=SC2029  # all of it was made here
  tar -cf - -C "$work" . | ssh "${options[@]}" "$user@$1" "$script"
}

answers() { kubectl get --raw /readyz --request-timeout=5s > /dev/null 2>&1; }

# The old API server answers until the kubelet has seen the new manifest, so the first part of the time is slept.
comes_back() {
  local until=$((SECONDS + wait))
  sleep $((wait / 7))
  until answers; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 3
  done
}

for host in "${hosts[@]}"; do
  echo "== $host"
  case "$command" in
    enable) said=$(remote "$host" apply) ;;
    restore) said=$(remote "$host" restore) ;;
  esac
  printf '%s\n' "$said"
  [ -z "$dry_run" ] || continue
  grep -qF "written   $manifest" <<<"$said" || continue
  if comes_back; then
    echo "the API server answers"
  elif [ "$command" = enable ]; then
    remote "$host" undo || true
    echo "error: the API server did not answer within $wait s, so the manifest of $host is as it was; look at the API server's log there (crictl logs), and that its machine reaches the webhook" >&2
    exit 1
  else
    echo "error: the API server does not answer; the manifest as it once was is in $folder/backup on $host" >&2
    exit 1
  fi
done
