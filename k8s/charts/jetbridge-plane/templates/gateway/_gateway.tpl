{{/* Where probes ask: "root", "path". */}}
{{- define "plane.gateway.probe" -}}
{{- if .root.Values.gateway.tls.clientCA.configMap -}}
httpGet: {path: {{ .path }}, port: status}
{{- else -}}
httpGet: {path: {{ .path }}, port: https, scheme: HTTPS}
{{- end -}}
{{- end }}

{{- define "plane.gateway.env" -}}
{{ include "jetbridge.commonEnv" (dict "root" .) }}
{{ include "plane.natsEnv" . }}
{{ include "plane.redisEnv" . }}
- name: JETBRIDGE_GATEWAY_PORT
  value: "8443"
- name: JETBRIDGE_GATEWAY_TLS_CERT_FILE
  value: /etc/jetbridge/tls/tls.crt
- name: JETBRIDGE_GATEWAY_TLS_KEY_FILE
  value: /etc/jetbridge/tls/tls.key
{{- if .Values.gateway.tls.clientCA.configMap }}
- name: JETBRIDGE_GATEWAY_TLS_CLIENT_CA_FILE
  value: /etc/jetbridge/client-ca/{{ .Values.gateway.tls.clientCA.key }}
# The kubelet has no client certificate.
- name: JETBRIDGE_GATEWAY_STATUS_PORT
  value: "8081"
{{- end }}
- name: JETBRIDGE_GATEWAY_AIRFLOW_URL
  value: http://{{ include "jetbridge.name" (dict "root" . "component" "api-server") }}:{{ .Values.apiServer.service.port }}
- name: JETBRIDGE_GATEWAY_AIRFLOW_JWT_SECRET_FILE
  value: /etc/jetbridge/airflow/jwt-secret
- name: JETBRIDGE_GATEWAY_HEARTBEAT_INTERVAL_SECONDS
  value: {{ .Values.leases.heartbeatIntervalSeconds | quote }}
- name: JETBRIDGE_GATEWAY_LEASE_SECONDS
  value: {{ .Values.leases.leaseSeconds | quote }}
- name: JETBRIDGE_GATEWAY_DRAIN_NOTICE_SECONDS
  value: {{ .Values.gateway.drainNoticeSeconds | quote }}
- name: JETBRIDGE_GATEWAY_DRAIN_SECONDS
  value: {{ .Values.gateway.drainSeconds | quote }}
{{- include "plane.settingsEnv" (dict "prefix" "JETBRIDGE_GATEWAY_" "settings" .Values.gateway.settings) }}
{{- with .Values.gateway.env }}
{{ toYaml . }}
{{- end }}
{{- end }}
