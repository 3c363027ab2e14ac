{{- define "plane.busApply" -}}
{{- $part := dict "root" . "component" "bus-apply" "values" .Values.busApply -}}
# Retried until NATS answers; `jetbridge bus apply` changes nothing that is as declared.
backoffLimit: 10
activeDeadlineSeconds: 900
template:
  metadata:
    {{- include "jetbridge.podMetadata" $part | nindent 4 }}
  spec:
    {{- include "jetbridge.podSpec" $part | nindent 4 }}
    restartPolicy: OnFailure
    containers:
      - name: bus-apply
        {{- include "jetbridge.container" (merge (dict "image" .Values.images.plane) $part) | nindent 8 }}
        args: [bus, apply]
        env:
          {{- include "jetbridge.commonEnv" $part | nindent 10 }}
          {{- include "plane.natsEnv" . | nindent 10 }}
          - name: JETBRIDGE_NATS_REPLICAS
            value: {{ .Values.nats.replicas | quote }}
        resources:
          {{- toYaml .Values.busApply.resources | nindent 10 }}
        volumeMounts:
          {{- include "jetbridge.commonVolumeMounts" $part | nindent 10 }}
          {{- include "plane.natsVolumeMounts" . | nindent 10 }}
    volumes:
      {{- include "jetbridge.commonVolumes" $part | nindent 6 }}
      {{- include "plane.natsVolumes" . | nindent 6 }}
{{- end }}
