{{/* Names and labels that several objects share. */}}

{{/* The image of all containers: by its digest if there is one, else by its tag. */}}
{{- define "tombolo.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{- end -}}
{{- end -}}
{{- end }}

{{/* What every object bears. */}}
{{- define "tombolo.labels" -}}
app.kubernetes.io/part-of: tombolo
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* What selects the Pods of one workload; never changed, since selectors are immutable. */}}
{{- define "tombolo.selector" -}}
app.kubernetes.io/part-of: tombolo
app.kubernetes.io/name: {{ . }}
{{- end }}

{{/* The Service of the store. Its name is the one in every server certificate, as in Cilium. */}}
{{- define "tombolo.store.service" -}}clustermesh-apiserver{{- end }}
{{- define "tombolo.store.host" -}}{{ include "tombolo.store.service" . }}.{{ .Release.Namespace }}.svc{{- end }}

{{/* The Namespace of the peers' Secrets; the programs know it by this name. */}}
{{- define "tombolo.peers.namespace" -}}tombolo-peers{{- end }}

{{/* A variable of the cluster's identity: dict name, key, optional. */}}
{{- define "tombolo.cluster.env" -}}
- name: {{ .name }}
  valueFrom:
    configMapKeyRef: {name: tombolo-cluster, key: {{ .key }}{{ if .optional }}, optional: true{{ end }}}
{{- end }}

{{/* A change of what Pods read once, at their start, starts them anew. */}}
{{- define "tombolo.checksum" -}}
tombolo.io/config: {{ toJson (dict "cluster" .Values.cluster "external" .Values.etcd.external) | sha256sum }}
{{- end }}

{{/* What every container may not do. */}}
{{- define "tombolo.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- end }}
