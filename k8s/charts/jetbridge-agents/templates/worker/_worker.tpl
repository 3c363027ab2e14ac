{{/*
Seconds from SIGTERM to the last report: the drain, then SIGTERM and SIGKILL of what still runs, then the upload of
logs (10 s) and reports (5 s), then 10 s to spare.
*/}}
{{- define "agents.worker.graceSeconds" -}}
{{- add (ceil .drainSeconds) (ceil .stopGraceSeconds) 10 5 10 -}}
{{- end }}

{{- define "agents.worker.env" -}}
{{- $worker := .values -}}
- name: JETBRIDGE_AGENT_QUEUES
  value: {{ join "," $worker.queues | quote }}
- name: JETBRIDGE_AGENT_SLOTS
  value: {{ $worker.slots | quote }}
{{- include "agents.labelsEnv" $worker.labels }}
- name: JETBRIDGE_AGENT_TASK_MEMORY_MIB
  value: {{ $worker.taskMemoryMiB | quote }}
- name: JETBRIDGE_AGENT_TASKS_PER_SUPERVISOR
  value: {{ $worker.tasksPerSupervisor | quote }}
- name: JETBRIDGE_AGENT_METRICS_PORT
  value: {{ $worker.metricsPort | quote }}
- name: JETBRIDGE_AGENT_DRAIN_SECONDS
  value: {{ $worker.drainSeconds | quote }}
- name: JETBRIDGE_AGENT_STOP_GRACE_SECONDS
  value: {{ $worker.stopGraceSeconds | quote }}
{{- with $worker.preload }}
- name: JETBRIDGE_AGENT_PRELOAD
  value: {{ join "," . | quote }}
{{- end }}
{{- with $worker.env }}
{{ toYaml . }}
{{- end }}
{{- end }}
