{{/* What all Airflow containers share. */}}

{{/* [section] key = value of airflow.cfg as one dict; `airflow.config` wins over ours. */}}
{{- define "plane.airflow.config" -}}
core:
  executor: jetbridge.scheduler.executor.RemoteExecutor
  load_examples: "False"
  {{- if and .Values.trial.enabled .Values.trial.openUI }}
  simple_auth_manager_all_admins: "True"
  {{- end }}
api:
  port: "8080"
  workers: {{ .Values.apiServer.workers | quote }}
  {{- with .Values.apiServer.baseUrl }}
  base_url: {{ . | quote }}
  {{- end }}
scheduler:
  enable_health_check: "True"
  # RemoteExecutor waits for events in place of this sleep.
  scheduler_idle_sleep_time: "0"
  task_queued_timeout: {{ .Values.airflow.taskQueuedTimeoutSeconds | int64 | quote }}
{{- if .Values.tracing.otlpEndpoint }}
traces:
  # Airflow decides which Dag runs are traced; without this, none is.
  otel_on: "True"
{{- end }}
dag_processor:
  dag_bundle_config_list: {{ .Values.airflow.dagBundles | toJson | quote }}
logging:
  # The Log tab says which agent has a task's log; the log itself stays in the execution plane.
  logging_config_class: jetbridge.scheduler.logging_config.LOGGING_CONFIG
  base_log_folder: /var/lib/airflow/logs
  colored_console_log: "False"
{{- end }}

{{/* The same as AIRFLOW__SECTION__KEY variables, for a ConfigMap. */}}
{{- define "plane.airflow.variables" -}}
{{- $config := mergeOverwrite (include "plane.airflow.config" . | fromYaml) (deepCopy .Values.airflow.config) }}
{{- range $section, $options := $config }}
{{- range $key, $value := $options }}
AIRFLOW__{{ $section | upper }}__{{ $key | upper }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "plane.airflow.checksums" -}}
config: {{ include "plane.airflow.variables" . | quote }}
{{- end }}

{{- define "plane.airflow.env" -}}
{{ include "jetbridge.commonEnv" (dict "root" .) }}
- name: AIRFLOW__DATABASE__SQL_ALCHEMY_CONN
  valueFrom:
    secretKeyRef:
      name: {{ include "plane.databaseSecret" . }}
      key: {{ ternary .Values.database.key "connection" (ne .Values.database.existingSecret "") }}
- name: AIRFLOW__CORE__FERNET_KEY
  valueFrom: {secretKeyRef: {name: {{ include "plane.airflowSecret" . }}, key: fernet-key}}
- name: AIRFLOW__API__SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ include "plane.airflowSecret" . }}, key: api-secret-key}}
- name: AIRFLOW__API_AUTH__JWT_SECRET
  valueFrom: {secretKeyRef: {name: {{ include "plane.airflowSecret" . }}, key: jwt-secret}}
{{- with .Values.airflow.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The service's name in traces. "root", "component". */}}
{{- define "plane.airflow.serviceName" -}}
{{- if .root.Values.tracing.otlpEndpoint }}
- name: OTEL_SERVICE_NAME
  value: {{ .component | eq "bridge" | ternary "jetbridge-bridge" (printf "airflow-%s" .component) }}
{{- end }}
{{- end }}

{{- define "plane.airflow.envFrom" -}}
- configMapRef:
    name: {{ include "jetbridge.name" (dict "root" . "component" "airflow") }}
{{- end }}

{{- define "plane.airflow.volumeMounts" -}}
{{ include "jetbridge.commonVolumeMounts" (dict "root" .) }}
- name: airflow-home
  mountPath: /var/lib/airflow
{{- with .Values.airflow.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "plane.airflow.volumes" -}}
{{ include "jetbridge.commonVolumes" . }}
- name: airflow-home
  emptyDir: {}
{{- with .root.Values.airflow.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Init containers of everything that uses the database. "root", "values". */}}
{{- define "plane.airflow.initContainers" -}}
- name: wait-for-migrations
  {{- include "jetbridge.container" (merge (dict "image" .root.Values.images.airflow) .) | nindent 2 }}
  args: [airflow, db, check-migrations, --migration-wait-timeout, {{ .root.Values.airflow.waitForMigrationsSeconds | quote }}]
  envFrom:
    {{- include "plane.airflow.envFrom" .root | nindent 4 }}
  env:
    {{- include "plane.airflow.env" .root | nindent 4 }}
  resources:
    requests: {cpu: 100m, memory: 512Mi}
    limits: {memory: 1Gi}
  volumeMounts:
    {{- include "plane.airflow.volumeMounts" .root | nindent 4 }}
{{- with .values.initContainers }}
{{ toYaml . }}
{{- end }}
{{- end }}
