{{/*
What every pod and container of ours has in common. "values" is the component's part of the values.
*/}}

{{/* Everything of a pod's spec but its containers and volumes. Optional: "graceSeconds", "automountToken". */}}
{{- define "jetbridge.podSpec" -}}
serviceAccountName: {{ include "jetbridge.serviceAccountName" . }}
automountServiceAccountToken: {{ .automountToken | default false }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml (.values.podSecurityContext | default .root.Values.podSecurityContext) | nindent 2 }}
{{- with .graceSeconds }}
terminationGracePeriodSeconds: {{ . }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector | default .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations | default .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity | default .root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "jetbridge.selectorLabels" $ | nindent 8 }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* A container's image and security context. */}}
{{- define "jetbridge.container" -}}
image: {{ include "jetbridge.image" . }}
imagePullPolicy: {{ .image.pullPolicy | default "IfNotPresent" }}
securityContext:
  {{- toYaml (.values.containerSecurityContext | default .root.Values.containerSecurityContext) | nindent 2 }}
{{- end }}

{{/* Environment of every container: log level, traces, metrics, proxy, custom CA. A list of env entries. */}}
{{- define "jetbridge.commonEnv" -}}
- name: JETBRIDGE_LOG_LEVEL
  value: {{ .root.Values.logLevel | quote }}
- name: JETBRIDGE_LOG_FORMAT
  value: json
{{- with .root.Values.tracing.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
# Airflow takes "otlp" for gRPC; this name means the same to it and to us.
- name: OTEL_TRACES_EXPORTER
  value: otlp_proto_http
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $.root.Values.tracing.sampleRatio | quote }}
{{- end }}
# Said in any case: an endpoint for traces alone would be taken for one of metrics, too.
- name: OTEL_METRICS_EXPORTER
  value: {{ ternary "otlp_proto_http" "none" (not (empty .root.Values.metrics.otlpEndpoint)) }}
{{- with .root.Values.metrics.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_METRICS_ENDPOINT
  value: {{ printf "%s/v1/metrics" (trimSuffix "/" .) | quote }}
- name: OTEL_METRIC_EXPORT_INTERVAL
  value: {{ mulf 1000 $.root.Values.metrics.pushSeconds | int64 | quote }}
{{- end }}
{{- with .root.Values.proxy.http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .root.Values.proxy.https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- if or .root.Values.proxy.http .root.Values.proxy.https }}
- name: NO_PROXY
  value: {{ join "," (concat (list "localhost" "127.0.0.1" ".svc" ".cluster.local") (.root.Values.proxy.noProxy | default list)) | quote }}
{{- end }}
{{- if .root.Values.customCA.configMap }}
- name: SSL_CERT_FILE
  value: /etc/jetbridge/ca/{{ .root.Values.customCA.key }}
- name: REQUESTS_CA_BUNDLE
  value: /etc/jetbridge/ca/{{ .root.Values.customCA.key }}
{{- end }}
{{- with .root.Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "jetbridge.commonVolumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .root.Values.customCA.configMap }}
- name: custom-ca
  mountPath: /etc/jetbridge/ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "jetbridge.commonVolumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .values.tmpSize | default "256Mi" }}
{{- if .root.Values.customCA.configMap }}
- name: custom-ca
  configMap:
    name: {{ .root.Values.customCA.configMap }}
{{- end }}
{{- end }}
