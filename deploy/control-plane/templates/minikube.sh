#!/bin/sh
# Files below ~/.minikube/files come into the node when minikube starts, and /etc/ssl/certs is mounted into
# the API server. Run it in the folder that it was rendered into.
set -eu
files="${MINIKUBE_HOME:-$HOME/.minikube}/files/etc/ssl/certs"
mkdir -p "$files"
cp audit-policy.yaml webhook.kubeconfig "$files/"
audit_log=''
@AUDIT_LOG@
minikube start \
  --extra-config=apiserver.audit-policy-file=/etc/ssl/certs/audit-policy.yaml \
  --extra-config=apiserver.audit-webhook-config-file=/etc/ssl/certs/webhook.kubeconfig \
  --extra-config=apiserver.audit-webhook-batch-max-wait=5s \
  --extra-config=apiserver.audit-webhook-truncate-enabled=true \
  --extra-config=apiserver.audit-webhook-truncate-max-event-size=256000 \
  ${audit_log:+"$audit_log"}
