#!/usr/bin/env bash
# Makes the files with which an API server sends its audit events to a webhook. For clusters whose API
# server you configure yourself; see README.md beside.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
platforms="kops kubeadm minikube rke2 k3s iks openshift auditsink"

usage() {
  cat <<TEXT
usage: audit-webhook.sh render  --platform PLATFORM --output FOLDER TARGET [OPTION…]
       audit-webhook.sh restore --output FOLDER [--dry-run]

PLATFORM   one of: $platforms

TARGET, where the events go, is one of
  --webhook-url URL                       http:// or https://, as the API server reaches it
  --service NAMESPACE/NAME:PORT/PATH      a service of the cluster, by its ClusterIP: an API server seldom
                                          resolves the names of services. kubectl is asked for the address
      --cluster-ip IP                     the address, where kubectl cannot be asked
      --dns                               by NAME.NAMESPACE.svc instead (always so for openshift, whose collector
                                          is a pod)
      --https                             https instead of http

OPTION
  --tls-server-name NAME
                       the name in the webhook's certificate, where the URL has an IP address: nobody issues
                       certificates for those. With --service it is NAME.NAMESPACE.svc by itself
  --audit-log          kops, kubeadm, minikube, k3s: write the audit log to a file too (minikube: to the container's
                       log), from which \`replay\` brings in what the webhook has missed
  --ca-file FILE       PEM of the CA that signed the webhook's certificate
  --token-file FILE    bearer token for the webhook
  --level LEVEL        auditsink only: Metadata (default), Request, RequestResponse
  --dry-run            show what would change, change nothing

render writes only what differs, and keeps what was there in FOLDER/.backup; restore puts the last such
backup back.
TEXT
}

die() { printf 'error: %s\n' "$*" >&2; exit 2; }

command=${1:-}
case "$command" in
  render | restore) shift ;;
  -h | --help | help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

platform='' output='' url='' service='' cluster_ip='' ca_file='' token_file='' level=Metadata
dns=false scheme=http dry_run=false server_name='' audit_log=false
while [ $# -gt 0 ]; do
  case "$1" in
    --dns) dns=true; shift; continue ;;
    --https) scheme=https; shift; continue ;;
    --audit-log) audit_log=true; shift; continue ;;
    --dry-run) dry_run=true; shift; continue ;;
    -h | --help) usage; exit 0 ;;
  esac
  [ $# -ge 2 ] || die "$1 needs a value, or is unknown; see --help"
  case "$1" in
    --platform) platform=$2 ;;
    --output) output=$2 ;;
    --webhook-url) url=$2 ;;
    --service) service=$2 ;;
    --cluster-ip) cluster_ip=$2 ;;
    --ca-file) ca_file=$2 ;;
    --token-file) token_file=$2 ;;
    --tls-server-name) server_name=$2 ;;
    --level) level=$2 ;;
    *) die "unknown option $1; see --help" ;;
  esac
  shift 2
done
[ -n "$output" ] || die "--output is missing: name the folder for the files"

backups=$output/.backup
# What a backup says of a file that was not there before.
absent=absent

show() { # old new
  diff -u --label "$1 (now)" --label "$1 (then)" -- "$([ -e "$1" ] && echo "$1" || echo /dev/null)" "$2" || true
}

last_backup() {
  if [ -d "$backups" ]; then find "$backups" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1; fi
}

restore() {
  local last file name
  last=$(last_backup)
  [ -n "$last" ] || die "there is no backup in $backups: nothing was changed by this script, or all was restored"
  while IFS= read -r file; do
    name=$(basename "$file" ".$absent")
    if [ "$name" != "$(basename "$file")" ]; then
      echo "removed   $output/$name"
      $dry_run || rm -f -- "$output/$name"
    else
      echo "restored  $output/$name"
      $dry_run || cp -p -- "$file" "$output/$name"
    fi
  done < <(find "$last" -mindepth 1 -maxdepth 1 -type f | sort)
  $dry_run || rm -rf -- "$last"
  if $dry_run; then echo "dry run: nothing was changed"; fi
}

if [ "$command" = restore ]; then
  restore
  exit 0
fi

case " $platforms " in
  *" $platform "*) [ -n "$platform" ] || die "--platform is missing: one of $platforms" ;;
  *) die "--platform is \"$platform\": write one of $platforms" ;;
esac
case "$level" in
  Metadata | Request | RequestResponse) ;;
  *) die "--level is \"$level\": write Metadata, Request or RequestResponse" ;;
esac

# The target.
if [ "$platform" = openshift ] && [ -z "$cluster_ip" ]; then dns=true; fi
if [ -n "$service" ]; then
  [ -z "$url" ] || die "give --webhook-url or --service, not both"
  [[ $service =~ ^([a-z0-9]([a-z0-9-]*[a-z0-9])?)/([a-z0-9]([a-z0-9-]*[a-z0-9])?):([0-9]{1,5})(/[A-Za-z0-9._~/-]*)$ ]] \
    || die "--service is \"$service\": write NAMESPACE/NAME:PORT/PATH, such as falco/falco-k8saudit-webhook:9765/k8s-audit"
  namespace=${BASH_REMATCH[1]} name=${BASH_REMATCH[3]} port=${BASH_REMATCH[5]} path=${BASH_REMATCH[6]}
  if $dns; then
    host=$name.$namespace.svc
  else
    host=$cluster_ip
    [ -n "$host" ] || host=$(kubectl get service --namespace "$namespace" "$name" --output 'jsonpath={.spec.clusterIP}') \
      || die "kubectl does not find the service $name in $namespace; install the receiver first, or give --cluster-ip"
    [ "$host" != None ] || die "the service $name has no ClusterIP (it is headless); give --webhook-url or --cluster-ip"
    [[ $host =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}$ || $host =~ ^[0-9A-Fa-f:]+:[0-9A-Fa-f:]*$ ]] \
      || die "\"$host\" is no address: write --cluster-ip as kubectl get service shows it"
    # A certificate is for the service's name.
    if [ "$scheme" = https ] && [ -z "$server_name" ]; then server_name=$name.$namespace.svc; fi
    case "$host" in *:*) host="[$host]" ;; esac
  fi
  url=$scheme://$host:$port$path
fi
[ -n "$url" ] || die "--webhook-url or --service is missing: say where the events go"
[[ $url =~ ^https?:// ]] || die "the webhook's URL is \"$url\": it must begin with http:// or https://"
[[ $url =~ ^https?://[^/@]*@ ]] && die "the webhook's URL must not have credentials in it; use --token-file"
[[ $url =~ ^https?://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~/%+=,\&?-]*)?$ ]] \
  || die "the webhook's URL is \"$url\": write http://HOST:PORT/PATH; quotes, spaces and fragments are not taken"
if [ -n "$server_name" ]; then
  [[ $server_name =~ ^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$ ]] && [[ ! $server_name =~ ^[0-9.]+$ ]] \
    || die "--tls-server-name is \"$server_name\": write the name that the certificate has, such as NAME.NAMESPACE.svc"
  [[ $url = https://* ]] || die "--tls-server-name without https: no certificate would be asked; write https:// or --https"
fi
if [[ $url =~ ^https://(\[|[0-9.]+(:|/|$)) ]]; then
  case "$platform" in
    iks | openshift | auditsink)
      die "$platform checks the certificate against the address in $url, and has no way to say another name: write a URL with the name that the certificate has, or (in the cluster's own network) http" ;;
  esac
  [ -n "$server_name" ] \
    || die "$url has an IP address, and a certificate has a name: add --tls-server-name NAME, such as NAME.NAMESPACE.svc"
fi
if $audit_log; then
  case "$platform" in
    kops | kubeadm | minikube | k3s) ;;
    rke2) die "RKE2 writes an audit log file by itself as soon as it has a policy; leave out --audit-log" ;;
    *) die "--audit-log: the API server's files are not yours on $platform" ;;
  esac
fi
if [ -n "$ca_file" ]; then
  [ -r "$ca_file" ] || die "--ca-file $ca_file cannot be read"
  grep -q -- '-----BEGIN CERTIFICATE-----' "$ca_file" || die "--ca-file $ca_file holds no PEM certificate"
  [[ $url = https://* ]] || die "--ca-file without https: the CA would not be asked; write https:// or --https"
fi
token=''
if [ -n "$token_file" ]; then
  [ -r "$token_file" ] || die "--token-file $token_file cannot be read"
  token=$(tr -d '\r\n' < "$token_file")
  [[ $token =~ ^[A-Za-z0-9._~+/=-]+$ ]] || die "--token-file $token_file holds no bearer token"
fi
case "$platform" in
  iks | openshift | auditsink)
    [ -z "$token" ] || die "$platform cannot send a bearer token; leave out --token-file" ;;
esac
if [ "$platform" = iks ] && [ -n "$ca_file" ]; then
  die "IKS takes the CA by itself: ibmcloud ks cluster master audit-webhook set --ca-cert FILE"
fi

# Files are made beside and moved when they differ.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 077

ca=''
[ -z "$ca_file" ] || ca=$(base64 < "$ca_file" | tr -d '\n')

tls() { # the members of a kubeconfig's cluster
  if [ -n "$server_name" ]; then echo "tls-server-name: $server_name"; fi
  if [ -n "$ca" ]; then echo "certificate-authority-data: $ca"; fi
}

# Replaces a line that is only @NAME@ by lines of a file, at the same indent; without lines it goes.
block() { # name file
  awk -v mark="@$1@" -v file="$2" '
    { line = $0; sub(/^ +/, "", line) }
    line == mark {
      indent = substr($0, 1, length($0) - length(line))
      while ((getline text < file) > 0) print (text == "" ? "" : indent text)
      close(file)
      next
    }
    { print }'
}

# An audit log file: at most 10 of 100 MB, for 10 days.
audit_log_of() { # folder
  case "$platform" in
    kops)
      printf '%s\n' 'auditLogPath: /var/log/kube-apiserver-audit.log' 'auditLogMaxAge: 10' 'auditLogMaxBackups: 10' \
        'auditLogMaxSize: 100' > "$1/AUDIT_LOG" ;;
    kubeadm)
      printf -- '- name: %s\n  value: "%s"\n' audit-log-path /var/log/kubernetes/audit/audit.log audit-log-maxage 10 \
        audit-log-maxbackup 10 audit-log-maxsize 100 > "$1/AUDIT_LOG"
      printf -- '- name: audit-log\n  hostPath: /var/log/kubernetes/audit\n  mountPath: /var/log/kubernetes/audit\n  pathType: DirectoryOrCreate\n' \
        > "$1/AUDIT_LOG_MOUNT" ;;
    k3s)
      printf -- '- %s\n' audit-log-path=/var/lib/rancher/k3s/server/logs/audit.log audit-log-maxage=10 \
        audit-log-maxbackup=10 audit-log-maxsize=100 > "$1/AUDIT_LOG" ;;
    minikube)
      # Standard output: kubectl logs of the API server.
      echo 'audit_log=--extra-config=apiserver.audit-log-path=-' > "$1/AUDIT_LOG" ;;
  esac
}

fill() { # template
  local values=$work/values
  mkdir -p "$values"
  tls > "$values/TLS"
  if [ -n "$token" ]; then echo "token: $token"; else echo "{}"; fi > "$values/USER"
  if [ -n "$ca" ]; then echo "caBundle: $ca"; fi > "$values/SINK_TLS"
  if [ -n "$ca" ]; then
    printf 'tls:\n  ca:\n    key: ca.crt\n    secretName: audit-webhook\n'
  fi > "$values/OUTPUT_TLS"
  : > "$values/AUDIT_LOG"
  : > "$values/AUDIT_LOG_MOUNT"
  if $audit_log; then audit_log_of "$values"; fi
  # A URL has no character that is special to this sed, but & and |.
  sed -e "s|@URL@|${url//&/\\&}|g" -e "s|@LEVEL@|$level|g" "$here/templates/$1" \
    | block TLS "$values/TLS" | block USER "$values/USER" | block SINK_TLS "$values/SINK_TLS" \
    | block OUTPUT_TLS "$values/OUTPUT_TLS" \
    | block AUDIT_LOG "$values/AUDIT_LOG" | block AUDIT_LOG_MOUNT "$values/AUDIT_LOG_MOUNT" \
    | block POLICY "$here/audit-policy.yaml" | block KUBECONFIG "$work/new/webhook.kubeconfig"
}

mkdir -p "$work/new"
case "$platform" in
  kops | kubeadm | minikube | rke2 | k3s)
    cp "$here/audit-policy.yaml" "$work/new/audit-policy.yaml"
    chmod 0600 "$work/new/audit-policy.yaml"
    fill webhook.kubeconfig > "$work/new/webhook.kubeconfig"
    ;;
esac
for extension in yaml sh; do
  if [ -e "$here/templates/$platform.$extension" ]; then
    fill "$platform.$extension" > "$work/new/$platform.$extension"
  fi
done

# Numbered, as two runs may fall into one second.
last=$(last_backup)
last=$(basename "${last:-0000}")
backup=$backups/$(printf '%04d' $((10#${last%%-*} + 1)))-$(date -u +%Y%m%dT%H%M%SZ)
changed=0
for file in "$work/new"/*; do
  target=$output/$(basename "$file")
  if cmp -s "$file" "$target"; then
    echo "unchanged $target"
    continue
  fi
  changed=$((changed + 1))
  if $dry_run; then
    # Not the token: a diff is read by many.
    show "$target" "$file" | sed -E 's/(token: ).+/\1(hidden)/'
    continue
  fi
  mkdir -p "$backup"
  if [ -e "$target" ]; then cp -p -- "$target" "$backup/"; else : > "$backup/$(basename "$file").$absent"; fi
  cp -- "$file" "$target.new"
  mv -f -- "$target.new" "$target"
  echo "written   $target"
done
if $dry_run; then
  echo "dry run: nothing was changed; $changed would be written"
elif [ "$changed" -gt 0 ]; then
  echo "backup    $backup (undo: audit-webhook.sh restore --output $output)"
fi
