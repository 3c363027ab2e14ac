{{/* Small objects that come with every component. */}}

{{- define "jetbridge.serviceAccount" -}}
{{- if .values.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "jetbridge.metadata" (merge (dict "name" (include "jetbridge.serviceAccountName" .) "annotations" .values.serviceAccount.annotations) .) | nindent 2 }}
automountServiceAccountToken: false
{{- end }}
{{- end }}

{{/* Only with more than one replica: on a single one a budget would block every node drain. */}}
{{- define "jetbridge.podDisruptionBudget" -}}
{{- if and .values.podDisruptionBudget.enabled (gt (int .replicas) 1) }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "jetbridge.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "jetbridge.selectorLabels" . | nindent 6 }}
  unhealthyPodEvictionPolicy: AlwaysAllow
{{- end }}
{{- end }}

{{/*
A secret of a trial: the cluster's if there is one, derived from trial.seed if that is set, else random. Always 32
characters. "root", "found" (the data of the Secret), "key".
*/}}
{{- define "jetbridge.trialSecret" -}}
{{- $seed := .root.Values.trial.seed -}}
{{- if $seed -}}
{{- printf "%s %s %s" $seed .root.Release.Name .key | sha256sum | trunc 32 -}}
{{- else -}}
{{- get .found .key | b64dec | default (randAlphaNum 32) -}}
{{- end -}}
{{- end }}

{{/* A peer of a NetworkPolicy: the pods of a component of this release. */}}
{{- define "jetbridge.peer" -}}
podSelector:
  matchLabels:
    {{- include "jetbridge.selectorLabels" . | nindent 4 }}
{{- end }}

{{/* Egress rule: names are looked up anywhere, because clusters differ in where their DNS stands. */}}
{{- define "jetbridge.dnsEgress" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end }}

{{/* Port of a URL, with the scheme's default. "url", "default". */}}
{{- define "jetbridge.urlPort" -}}
{{- $host := (urlParse .url).host -}}
{{- if regexMatch ":[0-9]+$" $host -}}
{{- regexFind "[0-9]+$" $host -}}
{{- else -}}
{{- .default -}}
{{- end -}}
{{- end }}
