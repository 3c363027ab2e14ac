{{/* Addresses and secrets of what the plane stands on: yours, or the trial's. */}}

{{- define "plane.natsUrl" -}}
{{- if .Values.nats.url -}}
{{- .Values.nats.url -}}
{{- else if .Values.trial.enabled -}}
nats://{{ include "jetbridge.name" (dict "root" . "component" "nats") }}:4222
{{- else -}}
{{- fail "nats.url or nats.existingSecret is needed: the address of NATS (or trial.enabled=true for a bundled one)" -}}
{{- end -}}
{{- end }}

{{- define "plane.redisSecret" -}}
{{- if .Values.redis.existingSecret -}}
{{- .Values.redis.existingSecret -}}
{{- else if .Values.trial.enabled -}}
{{- include "jetbridge.name" (dict "root" . "component" "trial") -}}
{{- else -}}
{{- fail "redis.existingSecret is needed: the Secret with Redis's URL (or trial.enabled=true for a bundled one)" -}}
{{- end -}}
{{- end }}

{{- define "plane.databaseSecret" -}}
{{- if .Values.database.existingSecret -}}
{{- .Values.database.existingSecret -}}
{{- else if .Values.trial.enabled -}}
{{- include "jetbridge.name" (dict "root" . "component" "trial") -}}
{{- else -}}
{{- fail "database.existingSecret is needed: the Secret with Airflow's database connection (or trial.enabled=true)" -}}
{{- end -}}
{{- end }}

{{- define "plane.airflowSecret" -}}
{{- if .Values.airflow.existingSecret -}}
{{- .Values.airflow.existingSecret -}}
{{- else if .Values.trial.enabled -}}
{{- include "jetbridge.name" (dict "root" . "component" "trial") -}}
{{- else -}}
{{- fail "airflow.existingSecret is needed: the Secret with fernet-key, api-secret-key and jwt-secret (or trial.enabled=true)" -}}
{{- end -}}
{{- end }}

{{- define "plane.tlsSecret" -}}
{{- if .Values.gateway.tls.existingSecret -}}
{{- .Values.gateway.tls.existingSecret -}}
{{- else if .Values.trial.enabled -}}
{{- include "jetbridge.name" (dict "root" . "component" "gateway-tls") -}}
{{- else -}}
{{- fail "gateway.tls.existingSecret is needed: the Secret with the gateway's certificate (or trial.enabled=true)" -}}
{{- end -}}
{{- end }}

{{/* A JETBRIDGE_… variable per entry of a component's `settings`. "prefix", "settings". */}}
{{- define "plane.settingsEnv" -}}
{{- range $name, $value := .settings }}
- name: {{ $.prefix }}{{ $name | upper }}
  value: {{ if kindIs "float64" $value }}{{ printf "%v" (ternary (int64 $value) $value (eq (float64 (int64 $value)) $value)) | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- end }}

{{/* Connection to NATS: environment, mounts, volumes. */}}
{{- define "plane.natsEnv" -}}
- name: JETBRIDGE_NATS_URL
  {{- if .Values.nats.existingSecret }}
  valueFrom: {secretKeyRef: {name: {{ .Values.nats.existingSecret }}, key: {{ .Values.nats.key }}}}
  {{- else }}
  value: {{ include "plane.natsUrl" . | quote }}
  {{- end }}
{{- if .Values.nats.credentials.existingSecret }}
- name: JETBRIDGE_NATS_CREDENTIALS_FILE
  value: /etc/jetbridge/nats/{{ .Values.nats.credentials.key }}
{{- end }}
{{- if .Values.nats.ca.configMap }}
- name: JETBRIDGE_NATS_CA_FILE
  value: /etc/jetbridge/nats-ca/{{ .Values.nats.ca.key }}
{{- end }}
{{- end }}

{{- define "plane.redisEnv" -}}
- name: JETBRIDGE_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "plane.redisSecret" . }}
      key: {{ ternary .Values.redis.key "redis-url" (ne .Values.redis.existingSecret "") }}
{{- end }}

{{/* Ingress of what serves metrics and nothing else. */}}
{{- define "plane.metricsIngress" -}}
{{- if .Values.networkPolicy.metricsFrom }}
ingress:
  - ports:
      - port: metrics
    from:
      {{- toYaml .Values.networkPolicy.metricsFrom | nindent 6 }}
{{- else }}
ingress: []
{{- end }}
{{- end }}

{{- define "plane.natsVolumeMounts" -}}
{{- if .Values.nats.credentials.existingSecret }}
- name: nats-credentials
  mountPath: /etc/jetbridge/nats
  readOnly: true
{{- end }}
{{- if .Values.nats.ca.configMap }}
- name: nats-ca
  mountPath: /etc/jetbridge/nats-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "plane.natsVolumes" -}}
{{- if .Values.nats.credentials.existingSecret }}
- name: nats-credentials
  secret:
    secretName: {{ .Values.nats.credentials.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- if .Values.nats.ca.configMap }}
- name: nats-ca
  configMap:
    name: {{ .Values.nats.ca.configMap }}
{{- end }}
{{- end }}

{{/*
Egress rules for a list of targets: nats, redis, database, tracing, proxy, api-server. "root", "targets".
Each is limited to its port, and to where networkPolicy.to says; the trial's servers are known.
*/}}
{{- define "plane.egress" -}}
{{ include "jetbridge.dnsEgress" . }}
{{- $values := .root.Values }}
{{- range .targets }}
{{- if eq . "nats" }}
- ports:
    {{- if $values.nats.existingSecret }}
    - port: {{ $values.nats.port }}
    {{- else }}
    {{- range splitList "," (include "plane.natsUrl" $.root) }}
    - port: {{ include "jetbridge.urlPort" (dict "url" (trim .) "default" 4222) }}
    {{- end }}
    {{- end }}
  {{- include "plane.egressTo" (dict "root" $.root "peers" $values.networkPolicy.to.nats "bundled" (and $values.trial.enabled (not (or $values.nats.url $values.nats.existingSecret))) "component" "nats") | nindent 2 }}
{{- else if eq . "redis" }}
- ports:
    - port: {{ $values.redis.port }}
  {{- include "plane.egressTo" (dict "root" $.root "peers" $values.networkPolicy.to.redis "bundled" (and $values.trial.enabled (not $values.redis.existingSecret)) "component" "redis") | nindent 2 }}
{{- else if eq . "database" }}
- ports:
    - port: {{ $values.database.port }}
  {{- include "plane.egressTo" (dict "root" $.root "peers" $values.networkPolicy.to.database "bundled" (and $values.trial.enabled (not $values.database.existingSecret)) "component" "postgresql") | nindent 2 }}
{{- else if eq . "api-server" }}
- ports:
    - port: 8080
  to:
    - {{- include "jetbridge.peer" (dict "root" $.root "component" "api-server") | nindent 6 }}
{{- else if eq . "tracing" }}
{{- range list $values.tracing.otlpEndpoint $values.metrics.otlpEndpoint | compact | uniq }}
- ports:
    - port: {{ include "jetbridge.urlPort" (dict "url" . "default" 4318) }}
  {{- include "plane.egressTo" (dict "root" $.root "peers" $values.networkPolicy.to.tracing "bundled" false) | nindent 2 }}
{{- end }}
{{- else if eq . "proxy" }}
{{- range list $values.proxy.http $values.proxy.https | compact | uniq }}
- ports:
    - port: {{ include "jetbridge.urlPort" (dict "url" . "default" 3128) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "plane.egressTo" -}}
{{- if .peers }}
to:
  {{- toYaml .peers | nindent 2 }}
{{- else if .bundled }}
to:
  - {{- include "jetbridge.peer" . | nindent 4 }}
{{- end }}
{{- end }}
