{{/* The name of all objects: the release's, so that two releases in a namespace share nothing. */}}
{{- define "audit-bridge.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name -}}
{{- end -}}

{{/* The program, which is also the name of the application. */}}
{{- define "audit-bridge.program" -}}
{{- .Values.bridge }}-audit-bridge
{{- end -}}

{{- define "audit-bridge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "audit-bridge.program" . }}
app.kubernetes.io/instance: {{ include "audit-bridge.fullname" . }}
{{- end -}}

{{/* Of the pods that read, and not of the one that checks. */}}
{{- define "audit-bridge.readerLabels" -}}
{{ include "audit-bridge.selectorLabels" . }}
app.kubernetes.io/component: audit-log-reader
{{- end -}}

{{- define "audit-bridge.labels" -}}
{{- $labels := include "audit-bridge.readerLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "audit-bridges" -}}
{{- $_ := set $labels "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- mergeOverwrite (deepCopy (default dict .Values.commonLabels)) $labels | toYaml -}}
{{- end -}}

{{- define "audit-bridge.metadata" -}}
name: {{ include "audit-bridge.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "audit-bridge.labels" . | nindent 2 }}
{{- end -}}

{{- define "audit-bridge.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "audit-bridge.fullname" .) -}}
{{- end -}}

{{- define "audit-bridge.image" -}}
{{- $name := printf "%s/%s" .Values.image.registry (.Values.image.repository | default (printf "audit-bridge/%s" (include "audit-bridge.program" .))) -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Questions: "true" or nothing. */}}
{{- define "audit-bridge.subscribes" -}}
{{- if and (eq .Values.bridge "gke") .Values.gke.subscription }}true{{ end -}}
{{- end -}}
{{- define "audit-bridge.sharesPartitions" -}}
{{- if or (and (eq .Values.bridge "aks") .Values.aks.sharePartitions) (and (eq .Values.bridge "eks") .Values.eks.stream .Values.eks.sharePartitions) }}true{{ end -}}
{{- end -}}
{{/* Pub/Sub keeps the position itself. */}}
{{- define "audit-bridge.usesApi" -}}
{{- if and (eq .Values.checkpoint.store "kubernetes") (not (include "audit-bridge.subscribes" .)) }}true{{ end -}}
{{- end -}}
{{- define "audit-bridge.elects" -}}
{{- if and (include "audit-bridge.usesApi" .) (gt (int .Values.replicas) 1) (not (include "audit-bridge.sharesPartitions" .)) }}true{{ end -}}
{{- end -}}
{{/* Several logs: each has a numbered slot for its position. */}}
{{- define "audit-bridge.hasSeveralLogs" -}}
{{- if or (include "audit-bridge.sharesPartitions" .) (and (eq .Values.bridge "eks") (not .Values.eks.stream) (or (gt (len (default list .Values.eks.clusterNames)) 1) (gt (len (default list .Values.eks.logGroups)) 1))) }}true{{ end -}}
{{- end -}}
{{/* Also where one is left of several log groups, and the user says how many slots there were: its position is in one. */}}
{{- define "audit-bridge.hasSlots" -}}
{{- if or (include "audit-bridge.hasSeveralLogs" .) (and (eq .Values.bridge "eks") (not .Values.eks.stream) (gt (int .Values.checkpoint.slots) 0)) }}true{{ end -}}
{{- end -}}

{{/* Several pods are given what is read: the event of a canary may come to any of them. */}}
{{- define "audit-bridge.sharesEvents" -}}
{{- if or (include "audit-bridge.sharesPartitions" .) (and (include "audit-bridge.subscribes" .) (gt (int .Values.replicas) 1)) }}true{{ end -}}
{{- end -}}
{{/* Canaries: by default where the log of one cluster is read, and the API server is asked anyway. */}}
{{- define "audit-bridge.sendsCanaries" -}}
{{- $enabled := toString .Values.canary.enabled -}}
{{- $several := or (and (include "audit-bridge.hasSeveralLogs" .) (not (include "audit-bridge.sharesPartitions" .))) (eq .Values.gke.clusterName "*") (gt (len (default list .Values.gke.resourceNames)) 1) (and .Values.gke.resourceNames (not .Values.gke.projectId) (not .Values.gke.clusterName)) (gt (len (default list .Values.aks.clusterNames)) 1) (gt (len (default list .Values.eks.clusterNames)) 1) (and .Values.eks.stream (ne (len (default list .Values.eks.clusterNames)) 1)) -}}
{{- if or (eq $enabled "true") (and (eq $enabled "auto") (include "audit-bridge.usesApi" .) (not $several)) }}true{{ end -}}
{{- end -}}

{{/* A log that is queried by time is read again a few times: what was delivered of it is kept for the next pod. */}}
{{- define "audit-bridge.keepsIdentities" -}}
{{- if and (include "audit-bridge.usesApi" .) (ne .Values.bridge "aks") (not (and (eq .Values.bridge "eks") .Values.eks.stream)) }}true{{ end -}}
{{- end -}}
{{/* How many log groups are named. */}}
{{- define "audit-bridge.logGroups" -}}
{{- max (len (default list .Values.eks.clusterNames)) (len (default list .Values.eks.logGroups)) -}}
{{- end -}}
{{- define "audit-bridge.slots" -}}
{{- if .Values.checkpoint.slots -}}
{{- int .Values.checkpoint.slots -}}
{{- else if include "audit-bridge.sharesPartitions" . -}}
64
{{- else -}}
{{- max 8 (int (include "audit-bridge.logGroups" .)) -}}
{{- end -}}
{{- end -}}
{{/* The ConfigMaps with positions: of the release, and of each slot. */}}
{{- define "audit-bridge.positionNames" -}}
{{- $name := include "audit-bridge.fullname" . -}}
- {{ $name }}
{{- if include "audit-bridge.hasSlots" . }}
{{- range until (int (include "audit-bridge.slots" .)) }}
- {{ $name }}-slot-{{ . }}
{{- end }}
{{- end }}
{{- end -}}
{{/* The ConfigMaps for what was delivered lately, as many as the bridge uses beside each position. */}}
{{- define "audit-bridge.identityNames" -}}
{{- if include "audit-bridge.keepsIdentities" . }}
{{- range $name := include "audit-bridge.positionNames" . | fromYamlArray }}
{{- range until 8 }}
- {{ $name }}-seen-{{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
{{/* The Leases: of the one that reads; or of each slot and of each replica. */}}
{{- define "audit-bridge.leaseNames" -}}
{{- $name := include "audit-bridge.fullname" . -}}
{{- if include "audit-bridge.elects" . }}
- {{ $name }}
{{- end }}
{{- if include "audit-bridge.sharesPartitions" . }}
{{- range until (int (include "audit-bridge.slots" .)) }}
- {{ $name }}-slot-{{ . }}
{{- end }}
{{- range until (int .Values.checkpoint.members) }}
- {{ $name }}-member-{{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* `standard`, `cilium` or nothing. A bare `off` is a boolean in YAML. */}}
{{- define "audit-bridge.policy" -}}
{{- if not (has (toString .Values.networkPolicy.type) (list "none" "off" "false")) }}{{ .Values.networkPolicy.type }}{{ end -}}
{{- end -}}

{{/* The flags of `run`, by their names. */}}
{{- define "audit-bridge.flags" -}}
{{- $v := .Values -}}
{{- $flags := dict "webhook-url" $v.webhook.url "webhook-timeout" $v.webhook.timeout -}}
{{- if $v.webhook.ca.secretName }}{{ $_ := set $flags "webhook-ca-file" "/etc/audit-bridge/webhook-ca/ca.crt" }}{{ end -}}
{{- if $v.webhook.token.secretName }}{{ $_ := set $flags "webhook-token-file" "/etc/audit-bridge/webhook-token/token" }}{{ end -}}
{{- if $v.webhook.clientCertificate.secretName }}
{{- $_ := set $flags "webhook-client-cert-file" "/etc/audit-bridge/webhook-client/tls.crt" }}
{{- $_ := set $flags "webhook-client-key-file" "/etc/audit-bridge/webhook-client/tls.key" }}
{{- end -}}
{{- if include "audit-bridge.usesApi" . }}
{{- $_ := set $flags "checkpoint-store" "kubernetes" }}
{{- $_ := set $flags "checkpoint-name" (include "audit-bridge.fullname" .) }}
{{- end -}}
{{- if include "audit-bridge.sendsCanaries" . }}
{{- $_ := set $flags "checkpoint-name" (include "audit-bridge.fullname" .) }}
{{- $_ := set $flags "canary-interval" $v.canary.interval }}
{{- $_ := set $flags "canary-deliver" (ternary "" "false" $v.canary.deliver) }}
{{- end -}}
{{- if include "audit-bridge.elects" . }}{{ $_ := set $flags "leader-election" "true" }}{{ end -}}
{{- if eq $v.bridge "eks" }}
{{- $_ := set $flags "cluster-name" (join "," $v.eks.clusterNames) }}
{{- $_ := set $flags "log-group" (join "," $v.eks.logGroups) }}
{{- $_ := set $flags "stream" $v.eks.stream }}
{{- $_ := set $flags "share-partitions" (ternary "true" "" $v.eks.sharePartitions) }}
{{- else if eq $v.bridge "gke" }}
{{- $_ := set $flags "project-id" $v.gke.projectId }}
{{- $_ := set $flags "cluster-name" $v.gke.clusterName }}
{{- $_ := set $flags "location" $v.gke.location }}
{{- $_ := set $flags "resource-name" (join "," (default list $v.gke.resourceNames)) }}
{{- $_ := set $flags "include-data-access" (ternary "true" "" $v.gke.includeDataAccess) }}
{{- $_ := set $flags "subscription" $v.gke.subscription }}
{{- else if eq $v.bridge "aks" }}
{{- $_ := set $flags "event-hub-namespace" $v.aks.eventHubNamespace }}
{{- $_ := set $flags "event-hub" $v.aks.eventHub }}
{{- $_ := set $flags "consumer-group" $v.aks.consumerGroup }}
{{- $_ := set $flags "event-hub-transport" (ternary "" $v.aks.transport (eq $v.aks.transport "amqp-tcp")) }}
{{- $_ := set $flags "cluster-name" (join "," $v.aks.clusterNames) }}
{{- $_ := set $flags "categories" (join "," $v.aks.categories) }}
{{- $_ := set $flags "share-partitions" (ternary "true" "" $v.aks.sharePartitions) }}
{{- if $v.aks.connectionString.secretName }}{{ $_ := set $flags "connection-string-file" "/etc/audit-bridge/event-hub/connection-string" }}{{ end -}}
{{- end -}}
{{- range $flag, $value := $v.settings }}
{{- /* YAML's numbers come as floats, and large ones would be written with an exponent. */}}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ $value = int64 $value }}{{ end -}}
{{- $_ := set $flags $flag (toString $value) }}
{{- end -}}
{{- toYaml $flags -}}
{{- end -}}

{{/* The variables of the container. */}}
{{- define "audit-bridge.env" -}}
{{- range $flag, $value := include "audit-bridge.flags" . | fromYaml }}
{{- if $value }}
- name: {{ printf "AUDIT_BRIDGE_%s" ($flag | replace "-" "_" | upper) }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- with .Values.eks.region }}
{{- if eq $.Values.bridge "eks" }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if and (eq .Values.bridge "gke") .Values.gke.credentials.secretName }}
- name: GOOGLE_APPLICATION_CREDENTIALS
  value: /etc/audit-bridge/credentials/key.json
{{- end }}
{{- if and (eq .Values.bridge "aks") .Values.aks.clientCertificate.secretName }}
- name: AZURE_CLIENT_CERTIFICATE_PATH
  value: /etc/audit-bridge/identity/certificate.pem
- name: AZURE_CLIENT_ID
  value: {{ .Values.aks.clientId | quote }}
- name: AZURE_TENANT_ID
  value: {{ .Values.aks.tenantId | quote }}
{{- end }}
{{- if or .Values.proxy.https .Values.proxy.http }}
{{- with .Values.proxy.https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
- name: NO_PROXY
  value: {{ prepend (ternary (list .Values.proxy.noProxy) list (not (empty .Values.proxy.noProxy))) "localhost,127.0.0.1,.svc,.cluster.local,$(KUBERNETES_SERVICE_HOST),169.254.169.254,169.254.170.23,metadata.google.internal" | join "," | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Secrets as files: volume, Secret, folder, and which key becomes which file. */}}
{{- define "audit-bridge.secrets" -}}
{{- $v := .Values -}}
{{- with $v.webhook.ca }}{{ if .secretName }}
- {name: webhook-ca, secret: {{ .secretName }}, folder: /etc/audit-bridge/webhook-ca, files: {ca.crt: {{ .key | quote }}}}
{{- end }}{{ end }}
{{- with $v.webhook.token }}{{ if .secretName }}
- {name: webhook-token, secret: {{ .secretName }}, folder: /etc/audit-bridge/webhook-token, files: {token: {{ .key | quote }}}}
{{- end }}{{ end }}
{{- with $v.webhook.clientCertificate }}{{ if .secretName }}
- {name: webhook-client, secret: {{ .secretName }}, folder: /etc/audit-bridge/webhook-client, files: {tls.crt: {{ .certKey | quote }}, tls.key: {{ .keyKey | quote }}}}
{{- end }}{{ end }}
{{- if eq $v.bridge "gke" }}{{ with $v.gke.credentials }}{{ if .secretName }}
- {name: credentials, secret: {{ .secretName }}, folder: /etc/audit-bridge/credentials, files: {key.json: {{ .key | quote }}}}
{{- end }}{{ end }}{{ end }}
{{- if eq $v.bridge "aks" }}{{ with $v.aks.connectionString }}{{ if .secretName }}
- {name: event-hub, secret: {{ .secretName }}, folder: /etc/audit-bridge/event-hub, files: {connection-string: {{ .key | quote }}}}
{{- end }}{{ end }}
{{- with $v.aks.clientCertificate }}{{ if .secretName }}
- {name: identity, secret: {{ .secretName }}, folder: /etc/audit-bridge/identity, files: {certificate.pem: {{ .key | quote }}}}
{{- end }}{{ end }}{{ end }}
{{- end -}}

{{- define "audit-bridge.volumeMounts" -}}
- name: state
  mountPath: /var/lib/audit-bridge
{{- range include "audit-bridge.secrets" . | fromYamlArray }}
- name: {{ .name }}
  mountPath: {{ .folder }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "audit-bridge.secretVolumes" -}}
{{- range include "audit-bridge.secrets" . | fromYamlArray }}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      {{- range $path, $key := .files }}
      - key: {{ $key }}
        path: {{ $path }}
      {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What the pods that read and the one that checks have in common. */}}
{{- define "audit-bridge.podLabels" -}}
{{- $labels := dict "app.kubernetes.io/part-of" "audit-bridges" "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- if and (eq .Values.bridge "aks") (not (or .Values.aks.connectionString.secretName .Values.aks.clientCertificate.secretName)) }}{{ $_ := set $labels "azure.workload.identity/use" "true" }}{{ end -}}
{{- $labels = mergeOverwrite (deepCopy (default dict .Values.commonLabels)) (deepCopy (default dict .Values.podLabels)) $labels (include "audit-bridge.selectorLabels" . | fromYaml) -}}
{{- toYaml $labels -}}
{{- end -}}

{{- define "audit-bridge.podSpec" -}}
serviceAccountName: {{ include "audit-bridge.serviceAccountName" . }}
# The cloud's identity comes by a token of its own.
automountServiceAccountToken: {{ or (include "audit-bridge.usesApi" .) (include "audit-bridge.sendsCanaries" .) | eq "true" }}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* The port of a URL, or its scheme's. */}}
{{- define "audit-bridge.port" -}}
{{- $authority := regexReplaceAll "^[a-z]+://([^/?#]*).*$" . "${1}" -}}
{{- $port := regexFind ":[0-9]+$" $authority | trimPrefix ":" -}}
{{- $port | default (get (dict "http" "80" "amqps" "5671") (regexFind "^[a-z]+" .) | default "443") -}}
{{- end -}}

{{/* Ports to let out anywhere: names, the clouds' APIs and the API server, the webhook, the proxy. */}}
{{- define "audit-bridge.egressPorts" -}}
{{- $ports := list (dict "port" 443 "protocol" "TCP") -}}
{{- $urls := list .Values.webhook.url .Values.proxy.https .Values.proxy.http -}}
{{- /* Settings that say where else a cloud is, such as event-hub-endpoint. */}}
{{- range .Values.settings }}{{ if regexMatch "^[a-z]+://" (toString .) }}{{ $urls = append $urls (toString .) }}{{ end }}{{ end -}}
{{- range $urls }}{{ if . }}
{{- $ports = append $ports (dict "port" (include "audit-bridge.port" . | int) "protocol" "TCP") }}
{{- end }}{{ end -}}
{{- if and (eq .Values.bridge "aks") (ne .Values.aks.transport "amqp-web-sockets") }}{{ $ports = append $ports (dict "port" 5671 "protocol" "TCP") }}{{ end -}}
{{- range .Values.networkPolicy.extraEgressPorts }}
{{- if kindIs "map" . }}
{{- $ports = append $ports (dict "port" (int .port) "protocol" (.protocol | default "TCP")) }}
{{- else }}
{{- $ports = append $ports (dict "port" (int .) "protocol" "TCP") }}
{{- end }}
{{- end -}}
{{- $ports | uniq | toYaml -}}
{{- end -}}

{{/* Where identities come from on the node itself, over plain http. */}}
{{- define "audit-bridge.identityEgress" -}}
{{- if eq .Values.bridge "eks" -}}
# EKS Pod Identity: the agent on the node.
cidrs: [169.254.170.23/32, "fd00:ec2::23/128"]
ports: [80]
{{- else if eq .Values.bridge "gke" -}}
# The metadata server (988 on nodes without Dataplane V2, where the redirection happens after the policy).
cidrs: [169.254.169.254/32, 169.254.169.252/32]
ports: [80, 988]
{{- end -}}
{{- end -}}

{{- define "audit-bridge.scrapers" -}}
{{- $known := dict "gmp" (list (dict "namespace" "gmp-system") (dict "namespace" "gke-gmp-system")) "azure" (list (dict "namespace" "kube-system")) -}}
{{- .Values.networkPolicy.scrapers | default (get $known .Values.monitoring.scrape | default list) | toYaml -}}
{{- end -}}
