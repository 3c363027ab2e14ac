{{- define "plane.airflow.migrate" -}}
{{- $part := dict "root" . "component" "migrate" "values" .Values.airflow.migrate -}}
{{- $checksums := include "plane.airflow.checksums" . | fromYaml -}}
backoffLimit: 10
activeDeadlineSeconds: 1800
template:
  metadata:
    {{- include "jetbridge.podMetadata" (merge (dict "checksums" $checksums) $part) | nindent 4 }}
  spec:
    {{- include "jetbridge.podSpec" $part | nindent 4 }}
    restartPolicy: OnFailure
    containers:
      - name: migrate
        {{- include "jetbridge.container" (merge (dict "image" .Values.images.airflow) $part) | nindent 8 }}
        args: [airflow, db, migrate]
        envFrom:
          {{- include "plane.airflow.envFrom" . | nindent 10 }}
        env:
          {{- include "plane.airflow.env" . | nindent 10 }}
        resources:
          {{- toYaml .Values.airflow.migrate.resources | nindent 10 }}
        volumeMounts:
          {{- include "plane.airflow.volumeMounts" . | nindent 10 }}
    volumes:
      {{- include "plane.airflow.volumes" $part | nindent 6 }}
{{- end }}
