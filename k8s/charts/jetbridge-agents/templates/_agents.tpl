{{/* What every agent is told: gateway, token, object store, Dag bundles; yours, or the trial's. */}}

{{- define "agents.gatewayUrl" -}}
{{- if .Values.gateway.url -}}
{{- .Values.gateway.url -}}
{{- else if .Values.trial.enabled -}}
https://{{ .Values.trial.plane }}-gateway.{{ .Release.Namespace }}.svc
{{- else -}}
{{- fail "gateway.url is needed: the address of the plane's gateway (or trial.enabled=true for a trial's)" -}}
{{- end -}}
{{- end }}

{{- define "agents.gatewayCA" -}}
{{- .Values.gateway.ca.configMap | default (ternary (printf "%s-gateway-ca" .Values.trial.plane) "" (and .Values.trial.enabled (not .Values.gateway.url))) -}}
{{- end }}

{{- define "agents.tokenSecret" -}}
{{- if .Values.agentToken.existingSecret -}}
{{- .Values.agentToken.existingSecret -}}
{{- else if .Values.trial.enabled -}}
{{- .Values.trial.plane }}-trial-agent-token
{{- else -}}
{{- fail "agentToken.existingSecret is needed: the Secret with the agent token (or trial.enabled=true for a trial's)" -}}
{{- end -}}
{{- end }}

{{- define "agents.bundledStore" -}}
{{- if and .Values.trial.enabled (not .Values.objectStore.endpointUrl) }}true{{ end -}}
{{- end }}

{{- define "agents.storeUrl" -}}
{{- if .Values.objectStore.endpointUrl -}}
{{- .Values.objectStore.endpointUrl -}}
{{- else if .Values.trial.enabled -}}
http://{{ include "jetbridge.name" (dict "root" . "component" "object-store") }}:9000
{{- else -}}
{{- fail "objectStore.endpointUrl is needed: where XCom values and task logs go (or trial.enabled=true for a bundled one)" -}}
{{- end -}}
{{- end }}

{{- define "agents.storeSecret" -}}
{{- if .Values.objectStore.existingSecret -}}
{{- .Values.objectStore.existingSecret -}}
{{- else if include "agents.bundledStore" . -}}
{{- include "jetbridge.name" (dict "root" . "component" "object-store") -}}
{{- end -}}
{{- end }}

{{/* A JETBRIDGE_… variable per entry of `settings`. "prefix", "settings". */}}
{{- define "agents.settingsEnv" -}}
{{- range $name, $value := .settings }}
- name: {{ $.prefix }}{{ $name | upper }}
  value: {{ if kindIs "float64" $value }}{{ printf "%v" (ternary (int64 $value) $value (eq (float64 (int64 $value)) $value)) | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- end }}

{{/* Environment of every agent and, but for JETBRIDGE_AGENT_*, of every task. */}}
{{- define "agents.env" -}}
{{ include "jetbridge.commonEnv" (dict "root" .) }}
- name: JETBRIDGE_AGENT_GATEWAY
  value: {{ include "agents.gatewayUrl" . | quote }}
{{- if include "agents.gatewayCA" . }}
- name: JETBRIDGE_AGENT_CA_FILE
  value: /etc/jetbridge/gateway-ca/{{ .Values.gateway.ca.key }}
{{- end }}
{{- if .Values.gateway.clientCertificate.existingSecret }}
- name: JETBRIDGE_AGENT_CLIENT_CERT_FILE
  value: /etc/jetbridge/client-certificate/tls.crt
- name: JETBRIDGE_AGENT_CLIENT_KEY_FILE
  value: /etc/jetbridge/client-certificate/tls.key
{{- end }}
{{- if .Values.siteKey.existingSecret }}
- name: JETBRIDGE_AGENT_SITE_KEY_FILE
  value: /etc/jetbridge/site-key/site-key
{{- end }}
- name: JETBRIDGE_AGENT_START_CHECKS
  value: {{ .Values.startChecks | quote }}
{{- with .Values.secretsProbe }}
- name: JETBRIDGE_SECRETS_PROBE
  value: {{ . | quote }}
{{- end }}
- name: JETBRIDGE_AGENT_TOKEN_FILE
  value: /etc/jetbridge/agent-token/token
# Pods' names are unique and no longer than a DNS label.
- name: JETBRIDGE_AGENT_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: JETBRIDGE_AGENT_SITE
  value: {{ .Values.site | quote }}
- name: JETBRIDGE_AGENT_DATA_DIR
  value: /var/lib/jetbridge
# Kubernetes shows what is there once the container has ended; the sentinel reads it.
- name: JETBRIDGE_AGENT_TERMINATION_LOG
  value: /dev/termination-log
- name: JETBRIDGE_OBJECT_STORE_ENDPOINT_URL
  value: {{ include "agents.storeUrl" . | quote }}
- name: JETBRIDGE_OBJECT_STORE_REGION
  value: {{ .Values.objectStore.region | quote }}
- name: JETBRIDGE_OBJECT_STORE_XCOM_BUCKET
  value: {{ .Values.objectStore.xcomBucket | quote }}
- name: JETBRIDGE_OBJECT_STORE_LOGS_BUCKET
  value: {{ .Values.objectStore.logsBucket | quote }}
- name: JETBRIDGE_OBJECT_STORE_KEY_PREFIX
  value: {{ .Values.objectStore.keyPrefix | quote }}
{{- if include "agents.storeSecret" . }}
# Files, not variables: they are read again for each request, so that the keys can be rotated.
- name: JETBRIDGE_OBJECT_STORE_ACCESS_KEY_FILE
  value: /etc/jetbridge/object-store/access-key
- name: JETBRIDGE_OBJECT_STORE_SECRET_KEY_FILE
  value: /etc/jetbridge/object-store/secret-key
{{- end }}
{{- if .Values.objectStore.ca.configMap }}
- name: JETBRIDGE_OBJECT_STORE_CA_FILE
  value: /etc/jetbridge/object-store-ca/{{ .Values.objectStore.ca.key }}
{{- end }}
{{- include "agents.settingsEnv" (dict "prefix" "JETBRIDGE_OBJECT_STORE_" "settings" .Values.objectStore.settings) }}
{{- if include "agents.bundledStore" . }}
# The connection of the example Dag.
- name: AIRFLOW_CONN_ORDERS_STORE
  valueFrom: {secretKeyRef: {name: {{ include "agents.storeSecret" . }}, key: orders-connection}}
{{- end }}
{{- end }}

{{/*
Port and probes of an agent, "values". Where nothing is to listen, the container looks at the age of a file that the agent
touches each second.
*/}}
{{- define "agents.probes" -}}
{{- $how := dict "exec" (dict "command" (list "jetbridge-alive")) }}
{{- with .values.metricsPort }}
{{- $how = dict "httpGet" (dict "path" "/healthz" "port" "metrics") }}
ports:
  - name: metrics
    containerPort: {{ . }}
{{- end }}
startupProbe:
  {{- toYaml (merge (deepCopy $how) .values.startupProbe) | nindent 2 }}
livenessProbe:
  {{- toYaml (merge (deepCopy $how) .values.livenessProbe) | nindent 2 }}
{{- end }}

{{/* Who may come in: those who scrape, if there is a port. "root", "values". */}}
{{- define "agents.ingress" -}}
{{- if and .values.metricsPort .root.Values.networkPolicy.metricsFrom }}
ingress:
  - from:
      {{- toYaml .root.Values.networkPolicy.metricsFrom | nindent 6 }}
    ports:
      - port: {{ .values.metricsPort }}
{{- else }}
ingress: []
{{- end }}
{{- end }}

{{/* An agent's own labels (facts for people), given as a dict. */}}
{{- define "agents.labelsEnv" -}}
{{- if . }}
{{- $pairs := list }}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $key $value) }}{{ end }}
- name: JETBRIDGE_AGENT_LABELS
  value: {{ join "," $pairs | quote }}
{{- end }}
{{- end }}

{{- define "agents.envFrom" -}}
- configMapRef:
    name: {{ include "jetbridge.name" (dict "root" . "component" "airflow") }}
{{- end }}

{{- define "agents.volumeMounts" -}}
{{ include "jetbridge.commonVolumeMounts" (dict "root" .) }}
- name: data
  mountPath: /var/lib/jetbridge
- name: agent-token
  mountPath: /etc/jetbridge/agent-token
  readOnly: true
{{- if .Values.gateway.clientCertificate.existingSecret }}
- name: client-certificate
  mountPath: /etc/jetbridge/client-certificate
  readOnly: true
{{- end }}
{{- if .Values.siteKey.existingSecret }}
- name: site-key
  mountPath: /etc/jetbridge/site-key
  readOnly: true
{{- end }}
{{- if include "agents.gatewayCA" . }}
- name: gateway-ca
  mountPath: /etc/jetbridge/gateway-ca
  readOnly: true
{{- end }}
{{- if include "agents.storeSecret" . }}
- name: object-store
  mountPath: /etc/jetbridge/object-store
  readOnly: true
{{- end }}
{{- if .Values.objectStore.ca.configMap }}
- name: object-store-ca
  mountPath: /etc/jetbridge/object-store-ca
  readOnly: true
{{- end }}
{{- end }}

{{/* "root", "values" (a worker's). */}}
{{- define "agents.volumes" -}}
{{ include "jetbridge.commonVolumes" . }}
- name: data
  emptyDir:
    sizeLimit: {{ .values.dataSize }}
# Whole directories, no subPath: a replaced token or key appears in running pods.
- name: agent-token
  secret:
    secretName: {{ include "agents.tokenSecret" .root }}
    defaultMode: 0400
    items:
      - {key: {{ .root.Values.agentToken.key }}, path: token}
{{- with .root.Values.gateway.clientCertificate.existingSecret }}
- name: client-certificate
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.siteKey.existingSecret }}
- name: site-key
  secret:
    secretName: {{ . }}
    defaultMode: 0400
    items:
      - {key: {{ $.root.Values.siteKey.key }}, path: site-key}
{{- end }}
{{- with include "agents.gatewayCA" .root }}
- name: gateway-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- with include "agents.storeSecret" .root }}
- name: object-store
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: access-key, path: access-key}
      - {key: secret-key, path: secret-key}
{{- end }}
{{- with .root.Values.objectStore.ca.configMap }}
- name: object-store-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}

{{/* AIRFLOW__SECTION__KEY variables for the ConfigMap. */}}
{{- define "agents.airflow.variables" -}}
AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST: {{ .Values.airflow.dagBundles | toJson | quote }}
{{- range $section, $options := .Values.airflow.config }}
{{- range $key, $value := $options }}
AIRFLOW__{{ $section | upper }}__{{ $key | upper }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Egress of an agent; "root", "values". */}}
{{- define "agents.egress" -}}
{{- $values := .root.Values -}}
{{ include "jetbridge.dnsEgress" . }}
{{- $trialPlane := and $values.trial.enabled (not $values.gateway.url) }}
- ports:
    {{- if $trialPlane }}
    - port: 8443
    {{- else }}
    - port: {{ include "jetbridge.urlPort" (dict "url" (include "agents.gatewayUrl" .root) "default" 443) }}
    {{- end }}
  {{- if $values.networkPolicy.to.gateway }}
  to:
    {{- toYaml $values.networkPolicy.to.gateway | nindent 4 }}
  {{- else if $trialPlane }}
  to:
    - podSelector:
        matchLabels:
          app.kubernetes.io/name: jetbridge-plane
          app.kubernetes.io/instance: {{ $values.trial.plane }}
          app.kubernetes.io/component: gateway
  {{- end }}
- ports:
    {{- $store := include "agents.storeUrl" .root }}
    - port: {{ include "jetbridge.urlPort" (dict "url" $store "default" (hasPrefix "https:" $store | ternary 443 80)) }}
  {{- if $values.networkPolicy.to.objectStore }}
  to:
    {{- toYaml $values.networkPolicy.to.objectStore | nindent 4 }}
  {{- else if include "agents.bundledStore" .root }}
  to:
    - {{- include "jetbridge.peer" (dict "root" .root "component" "object-store") | nindent 6 }}
  {{- end }}
{{- range list $values.tracing.otlpEndpoint $values.metrics.otlpEndpoint | compact | uniq }}
- ports:
    - port: {{ include "jetbridge.urlPort" (dict "url" . "default" 4318) }}
  {{- with $values.networkPolicy.to.tracing }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- range list $values.proxy.http $values.proxy.https | compact | uniq }}
- ports:
    - port: {{ include "jetbridge.urlPort" (dict "url" . "default" 3128) }}
{{- end }}
{{- with $values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- with .values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
