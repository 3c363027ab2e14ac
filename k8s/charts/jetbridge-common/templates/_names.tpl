{{/*
Names and labels. Everywhere: "root" is the chart's top-level context, "component" the name of a part of it.
*/}}

{{/* Prefix of every object: the release's name. 40 characters leave room for "-worker-<name>" in the 63 of a label. */}}
{{- define "jetbridge.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "jetbridge.name" -}}
{{- printf "%s-%s" (include "jetbridge.fullname" .root) .component | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "jetbridge.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "jetbridge.labels" -}}
{{ include "jetbridge.selectorLabels" . }}
app.kubernetes.io/part-of: jetbridge
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The metadata of one object. Optional: "name" instead of the component's, "annotations". */}}
{{- define "jetbridge.metadata" -}}
name: {{ .name | default (include "jetbridge.name" .) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "jetbridge.labels" . | nindent 2 }}
{{- $annotations := mergeOverwrite (deepCopy (.root.Values.commonAnnotations | default dict)) (.annotations | default dict) }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
The metadata of a pod template. "checksums" is a dict of name → text: pods roll when the text changes.
*/}}
{{- define "jetbridge.podMetadata" -}}
labels:
  {{- include "jetbridge.labels" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := mergeOverwrite (deepCopy (.root.Values.commonAnnotations | default dict)) (.values.podAnnotations | default dict) }}
{{- range $name, $text := .checksums }}
{{- $_ := set $annotations (printf "checksum/%s" $name) ($text | sha256sum) }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "jetbridge.serviceAccountName" -}}
{{- if .values.serviceAccount.create -}}
{{- .values.serviceAccount.name | default (include "jetbridge.name" .) -}}
{{- else -}}
{{- .values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* repository:tag, or repository@digest when a digest is given; the tag defaults to the chart's appVersion. */}}
{{- define "jetbridge.image" -}}
{{- $image := .image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end }}
