{{/* Scaling by KEDA, asked of the plane's gateway with an agent token. */}}

{{/* Whether anything here is scaled. */}}
{{- define "agents.isScaled" -}}
{{- $scaled := and .Values.triggerer.enabled .Values.triggerer.autoscaling.enabled -}}
{{- range .Values.workers -}}
{{- $scaled = or $scaled (mergeOverwrite (deepCopy $.Values.workerDefaults) .).autoscaling.enabled -}}
{{- end -}}
{{- if $scaled }}true{{ end -}}
{{- end }}

{{/* Replicas of a Deployment, which are KEDA's to say where it scales. "values". */}}
{{- define "agents.replicas" -}}
{{- if not .values.autoscaling.enabled -}}
replicas: {{ .values.replicas }}
{{- end -}}
{{- end }}

{{/* For budgets: how many there may be. */}}
{{- define "agents.mostReplicas" -}}
{{- .values.autoscaling.enabled | ternary .values.autoscaling.maxReplicas .values.replicas -}}
{{- end }}

{{/* "root", "component", "values"; "role", and "capacity": what one pod does at the same time. */}}
{{- define "agents.scaledObject" -}}
{{- $scaling := .values.autoscaling -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "jetbridge.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    name: {{ include "jetbridge.name" . }}
  pollingInterval: {{ $scaling.pollingSeconds }}
  cooldownPeriod: {{ $scaling.idleSeconds }}
  minReplicaCount: {{ $scaling.minReplicas }}
  maxReplicaCount: {{ $scaling.maxReplicas }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown:
          # A pod that goes drains, but a task that has to start elsewhere waits; so not at once.
          stabilizationWindowSeconds: {{ $scaling.idleSeconds }}
          policies:
            - {type: Percent, value: 50, periodSeconds: 60}
  triggers:
    # When the gateway does not answer, the number of pods stays as it is.
    - type: metrics-api
      metricType: AverageValue
      metadata:
        url: {{ include "agents.depthUrl" . | quote }}
        valueLocation: value
        targetValue: {{ $scaling.workPerReplica | default .capacity | toString | quote }}
        authMode: bearer
      authenticationRef:
        name: {{ include "jetbridge.name" (dict "root" .root "component" "depth") }}
{{- end }}

{{- define "agents.depthUrl" -}}
{{- $query := list (printf "role=%s" .role) -}}
{{- range .values.queues -}}
{{- $query = append $query (printf "queue=%s" (urlquery .)) -}}
{{- end -}}
{{- include "agents.gatewayUrl" .root | trimSuffix "/" }}/v1/depth?{{ join "&" $query -}}
{{- end }}
