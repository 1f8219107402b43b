#!/bin/sh
# Runs as root on the machine of an API server, sent there by enable-audit.sh: puts the audit flags into the
# static pod's manifest, or takes them out again. The kubelet restarts the API server when the manifest changes.
#
#   sh patch-apiserver.sh apply|restore|undo [--dry-run] MANIFEST FOLDER FILES
#
# FOLDER, on this machine, gets audit-policy.yaml and webhook.kubeconfig from FILES, under names made of their content:
# with other content the manifest changes too, so that the API server restarts. Every line that this script adds ends
# in the mark below, so it knows its own: a second run changes nothing, and what others change meanwhile stays.
# restore takes these lines out; undo brings back the manifest as it was before the last apply.
set -eu

mark='# audit-webhook'
die() { echo "error: $*" >&2; exit 1; }

action=$1
shift
dry_run=false
if [ "$1" = --dry-run ]; then dry_run=true; shift; fi
manifest=$1 folder=$2 files=$3
[ -f "$manifest" ] || die "there is no manifest $manifest here: name it with --manifest"
backups=$folder/backup
# The kubelet runs whatever lies beside the manifest, unless its name begins with a dot.
replace() { # content
  new=$(dirname "$manifest")/.$(basename "$manifest").new
  cp -p "$manifest" "$new"
  cat "$1" > "$new"
  mv -f "$new" "$manifest"
  echo "written   $manifest"
}

if [ "$action" = undo ]; then
  last=$(find "$backups" -type f 2> /dev/null | sort | tail -n 1)
  [ -n "$last" ] || die "there is no backup in $backups"
  replace "$last"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 077
grep -v " $mark\$" "$manifest" > "$work/without" || die "$manifest is empty"

# A file's name here, by its content.
named() { echo "$folder/${1%.*}-$(cksum < "$files/$1" | cut -d ' ' -f 1).${1##*.}"; }

# What goes into the manifest, each as lines of one list.
flags() {
  cat <<TEXT
- --audit-policy-file=$(named audit-policy.yaml)
- --audit-webhook-config-file=$(named webhook.kubeconfig)
- --audit-webhook-batch-max-wait=5s
- --audit-webhook-truncate-enabled=true
- --audit-webhook-truncate-max-event-size=256000
TEXT
}
mounts() { printf -- '- mountPath: %s\n  name: audit-webhook\n  readOnly: true\n' "$folder"; }
volumes() { printf -- '- hostPath:\n    path: %s\n    type: Directory\n  name: audit-webhook\n' "$folder"; }

# Finds the container called kube-apiserver among others (kops has a second one), and in it the flags and the mounts.
patch() {
  awk -v mark="$mark" -v flags="$work/flags" -v mounts="$work/mounts" -v volumes="$work/volumes" '
    function indent(text) { match(text, /^ */); return RLENGTH }
    function add(file, spaces,    text) {
      while ((getline text < file) > 0) printf "%*s%s %s\n", spaces, "", text, mark
      close(file)
    }
    { line[NR] = $0 }
    END {
      for (i = 1; i <= NR; i++) if (line[i] ~ /^ *containers: *$/) { top = i; break }
      if (!top) exit 3
      key = indent(line[top]); item = indent(line[top + 1])
      # The pod'"'"'s own keys begin where containers: does; its items begin with a dash.
      for (i = top + 1; i <= NR; i++) {
        if (line[i] ~ /^ *$/ || line[i] ~ /^ *#/) continue
        if (indent(line[i]) <= key && line[i] !~ /^ *- /) break
        if (indent(line[i]) == item && line[i] ~ /^ *- /) first = i
        if (line[i] ~ /^ *(- )?name: kube-apiserver *$/ && indent(line[i]) <= item + 2) from = first
      }
      end = i
      if (!from) exit 3
      for (i = from; i < end; i++) {
        if (i > from && indent(line[i]) == item && line[i] ~ /^ *- /) break
        if (!flag && line[i] ~ /^ *- --[a-z]/) flag = i
        if (line[i] ~ /^ *volumeMounts: *$/ && indent(line[i]) == item + 2) mount = i
      }
      for (i = 1; i <= NR; i++) if (line[i] ~ /^ *volumes: *$/ && indent(line[i]) == key) volume = i
      if (!flag || !mount || !volume) exit 3
      for (i = 1; i <= NR; i++) {
        if (i == flag) add(flags, indent(line[i]))
        print line[i]
        if (i == mount) add(mounts, indent(line[i + 1]))
        if (i == volume) add(volumes, indent(line[i + 1]))
      }
    }' "$1"
}

if [ "$action" = apply ]; then
  if grep -q -e '--audit-policy-file' -e '--audit-webhook-config-file' "$work/without"; then
    die "$manifest has audit flags that this script did not write; merge them by hand, nothing was changed"
  fi
  flags > "$work/flags"
  mounts > "$work/mounts"
  volumes > "$work/volumes"
  patch "$work/without" > "$work/with" ||
    die "$manifest has no container kube-apiserver with a list of flags, mounts and volumes as expected; nothing was changed"
  want=$work/with
else
  want=$work/without
fi

if $dry_run; then
  if cmp -s "$want" "$manifest"; then echo "unchanged $manifest"; else diff -u "$manifest" "$want" || true; fi
  echo "dry run: nothing was changed"
  exit 0
fi

if [ "$action" = apply ]; then
  mkdir -p "$folder" "$backups"
  for name in audit-policy.yaml webhook.kubeconfig; do
    target=$(named "$name")
    if [ -f "$target" ]; then
      echo "unchanged $target"
    else
      cp "$files/$name" "$folder/.$name.new"
      mv -f "$folder/.$name.new" "$target"
      echo "written   $target"
    fi
  done
fi
if cmp -s "$want" "$manifest"; then
  echo "unchanged $manifest"
  exit 0
fi
if [ "$action" = apply ]; then
  number=$(find "$backups" -type f | wc -l)
  backup=$backups/$(printf '%04d' "$((number + 1))")-$(date -u +%Y%m%dT%H%M%SZ)-$(basename "$manifest")
  cp -p "$manifest" "$backup"
  echo "backup    $backup"
fi
replace "$want"
