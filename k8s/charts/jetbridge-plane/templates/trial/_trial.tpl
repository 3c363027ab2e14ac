{{/* What the bundled servers have in common: pod template's head and a volume. "root", "component". */}}

{{- define "plane.trial.part" -}}
{{- $values := dict
  "resources" .root.Values.trial.resources
  "serviceAccount" (dict "create" false "name" "")
  "podSecurityContext" (mergeOverwrite (deepCopy .root.Values.podSecurityContext) (dict "runAsUser" .uid "runAsGroup" .uid "fsGroup" .uid)) -}}
{{- dict "component" .component "values" $values | toYaml -}}
{{- end }}

{{- define "plane.trial.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if not .root.Values.trial.volumeSize }}
- name: data
  emptyDir: {}
{{- end }}
{{- end }}

{{- define "plane.trial.volumeClaims" -}}
{{- if .root.Values.trial.volumeSize }}
volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .root.Values.trial.storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests: {storage: {{ .root.Values.trial.volumeSize }}}
{{- end }}
{{- end }}

{{- define "plane.trial.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "jetbridge.metadata" . | nindent 2 }}
spec:
  selector:
    {{- include "jetbridge.selectorLabels" . | nindent 4 }}
  ports:
    - name: {{ .portName }}
      port: {{ .port }}
      targetPort: {{ .portName }}
{{- end }}

{{/* Only this release's pods, and no way out. */}}
{{- define "plane.trial.networkPolicy" -}}
{{- if .root.Values.networkPolicy.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "jetbridge.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "jetbridge.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports:
        - port: {{ .portName }}
      from:
        {{- range .from }}
        - {{- include "jetbridge.peer" (dict "root" $.root "component" .) | nindent 10 }}
        {{- end }}
  egress: []
{{- end }}
{{- end }}

{{/*
The trial's secrets as a dict: those of the cluster, or new ones. Made once per rendering and kept in .Values,
because every call of randAlphaNum gives another one.
*/}}
{{- define "plane.trial.secrets" -}}
{{- if not (hasKey .Values "_trialSecrets") -}}
{{- $name := include "jetbridge.name" (dict "root" . "component" "trial") -}}
{{- $found := (lookup "v1" "Secret" .Release.Namespace $name).data | default dict -}}
{{- $secrets := dict -}}
{{- range $key := list "api-secret-key" "jwt-secret" "postgres-password" "fernet-material" -}}
{{- $_ := set $secrets $key (include "jetbridge.trialSecret" (dict "root" $ "found" $found "key" $key)) -}}
{{- end -}}
{{- /* A Fernet key is 32 bytes in URL-safe base64; 32 letters and digits are 32 bytes. */ -}}
{{- $_ := set $secrets "fernet-key" (get $secrets "fernet-material" | b64enc | replace "+" "-" | replace "/" "_") -}}
{{- $_ := set $secrets "connection" (printf "postgresql://airflow:%s@%s:5432/airflow" (get $secrets "postgres-password") (include "jetbridge.name" (dict "root" . "component" "postgresql"))) -}}
{{- $_ := set $secrets "redis-url" (printf "redis://%s:6379/0" (include "jetbridge.name" (dict "root" . "component" "redis"))) -}}
{{- $_ := set .Values "_trialSecrets" $secrets -}}
{{- end -}}
{{- get .Values "_trialSecrets" | toYaml -}}
{{- end }}

{{- define "plane.trial.token" -}}
{{- $root := .part.root -}}
backoffLimit: 10
activeDeadlineSeconds: 900
template:
  metadata:
    {{- include "jetbridge.podMetadata" (merge (dict "checksums" (dict "script" ($root.Files.Get "files/trial_token.py"))) .part) | nindent 4 }}
  spec:
    {{- include "jetbridge.podSpec" (merge (dict "automountToken" true) .part) | nindent 4 }}
    restartPolicy: OnFailure
    containers:
      - name: trial-token
        {{- include "jetbridge.container" (merge (dict "image" $root.Values.images.plane) .part) | nindent 8 }}
        command: [python3, /etc/jetbridge/scripts/trial_token.py, {{ $root.Release.Namespace | quote }}, {{ .secret }}]
        env:
          {{- include "jetbridge.commonEnv" .part | nindent 10 }}
          {{- include "plane.natsEnv" $root | nindent 10 }}
        resources:
          {{- toYaml $root.Values.trial.resources | nindent 10 }}
        volumeMounts:
          {{- include "jetbridge.commonVolumeMounts" .part | nindent 10 }}
          {{- include "plane.natsVolumeMounts" $root | nindent 10 }}
          - {name: scripts, mountPath: /etc/jetbridge/scripts, readOnly: true}
    volumes:
      {{- include "jetbridge.commonVolumes" .part | nindent 6 }}
      {{- include "plane.natsVolumes" $root | nindent 6 }}
      - name: scripts
        configMap:
          name: {{ include "jetbridge.name" .part }}
{{- end }}
