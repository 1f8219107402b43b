#!/bin/sh
# IBM Cloud Kubernetes Service: the policy is IBM's, only the receiver is ours.
#   sh iks.sh CLUSTER
set -eu
cluster=${1:?say which cluster: sh iks.sh CLUSTER}
ibmcloud ks cluster master audit-webhook set --cluster "$cluster" --remote-server '@URL@'
ibmcloud ks cluster master audit-webhook get --cluster "$cluster"
ibmcloud ks cluster master refresh --cluster "$cluster"
