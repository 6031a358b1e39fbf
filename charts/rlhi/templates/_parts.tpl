{{/* What the parts know of one another: the bucket, the databases, MLflow. */}}

{{- define "rlhi.bucketSecret" -}}
{{ .Values.objectStore.existingSecret | default "rlhi-object-store" }}
{{- end -}}

{{- define "rlhi.bucketEndpoint" -}}
{{- if .Values.seaweedfs.enabled -}}
http://{{ include "rlhi.fullname" . }}-seaweedfs.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:8333
{{- else -}}
{{ .Values.objectStore.endpoint }}
{{- end -}}
{{- end -}}

{{/* Host and port of the bucket, without a scheme. */}}
{{- define "rlhi.bucketAddress" -}}
{{ (urlParse (include "rlhi.bucketEndpoint" .)).host }}
{{- end -}}

{{- define "rlhi.bucketHost" -}}
{{ (urlParse (include "rlhi.bucketEndpoint" .)).hostname }}
{{- end -}}

{{- define "rlhi.bucketPort" -}}
{{- $address := include "rlhi.bucketAddress" . -}}
{{- if regexMatch ":[0-9]+$" $address }}{{ regexFind "[0-9]+$" $address }}{{ else if include "rlhi.bucketSecure" . }}443{{ else }}80{{ end }}
{{- end -}}

{{/* Says something where the bucket is reached by TLS. */}}
{{- define "rlhi.bucketSecure" -}}
{{- if hasPrefix "https://" (include "rlhi.bucketEndpoint" .) }}true{{ end }}
{{- end -}}

{{/* (list $ ACCESS SECRET): the keys of the bucket as two environment variables, or none for an ambient identity. */}}
{{- define "rlhi.bucketKeys" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.objectStore.credentials "secret" -}}
{{- $secret := include "rlhi.bucketSecret" $root -}}
- name: {{ index . 1 }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: access-key}}
- name: {{ index . 2 }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: secret-key}}
{{- end -}}
{{- end -}}

{{/* Stores that speak S3 but are not S3 refuse the checksums that clients send of late. */}}
{{- define "rlhi.bucketChecksums" -}}
AWS_REQUEST_CHECKSUM_CALCULATION: when_required
AWS_RESPONSE_CHECKSUM_VALIDATION: when_required
{{- end -}}

{{- define "rlhi.kfpDatabaseHost" -}}
{{- if .Values.mariadb.enabled }}{{ include "rlhi.fullname" . }}-mariadb{{ else }}{{ .Values.kfp.database.host }}{{ end }}
{{- end -}}

{{- define "rlhi.kfpDatabaseSecret" -}}
{{ .Values.kfp.database.existingSecret | default (printf "%s-mariadb" (include "rlhi.fullname" .)) }}
{{- end -}}

{{- define "rlhi.mlflowDatabaseHost" -}}
{{- if .Values.postgresql.enabled }}{{ include "rlhi.fullname" . }}-postgresql{{ else }}{{ .Values.mlflow.database.host }}{{ end }}
{{- end -}}

{{- define "rlhi.mlflowDatabaseSecret" -}}
{{ .Values.mlflow.database.existingSecret | default (printf "%s-postgresql" (include "rlhi.fullname" .)) }}
{{- end -}}

{{/* Where MLflow answers; nothing where there is none. */}}
{{- define "rlhi.mlflowUrl" -}}
{{- if .Values.mlflow.enabled -}}
http://{{ include "rlhi.fullname" . }}-mlflow.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:5000
{{- else -}}
{{ .Values.mlflow.url }}
{{- end -}}
{{- end -}}

{{/* (list $ NAME COMPONENT USES-BUCKET): a service account; its pods get a token only where they ask for one. A fifth
     argument gives it to all of them, who may be made by others. */}}
{{- define "rlhi.serviceAccount" -}}
{{- $root := index . 0 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "rlhi.labels" (list $root (index . 2)) | nindent 4 }}
  {{- if and (index . 3) $root.Values.objectStore.serviceAccountAnnotations }}
  annotations: {{- toYaml $root.Values.objectStore.serviceAccountAnnotations | nindent 4 }}
  {{- end }}
automountServiceAccountToken: {{ gt (len .) 4 }}
{{- include "rlhi.pullSecrets" $root }}
{{- end -}}

{{/* (list $ NAME COMPONENT RULES): a Role and its binding to the service account of the same name. */}}
{{- define "rlhi.role" -}}
{{- $root := index . 0 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "rlhi.labels" (list $root (index . 2)) | nindent 4 }}
rules: {{- index . 3 | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "rlhi.labels" (list $root (index . 2)) | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ index . 1 }}}
subjects:
  - {kind: ServiceAccount, name: {{ index . 1 }}, namespace: {{ $root.Release.Namespace }}}
{{- end -}}

{{/* (list $ NAME COMPONENT PORTS): a Service; PORTS is a map of a port's name to its number. */}}
{{- define "rlhi.service" -}}
{{- $root := index . 0 -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "rlhi.labels" (list $root (index . 2)) | nindent 4 }}
spec:
  selector: {{- include "rlhi.selector" (list $root (index . 2)) | nindent 4 }}
  ports:
    {{- range $name, $port := index . 3 }}
    - {name: {{ $name }}, port: {{ $port }}, targetPort: {{ $name }}}
    {{- end }}
{{- end -}}

{{/* (list $ COMPONENT): its pods on nodes of their own, where there are enough. */}}
{{- define "rlhi.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "rlhi.selector" . | nindent 8 }}
{{- end -}}

{{/* (list $ STORAGE): the claim template of a StatefulSet; it outlives the release. */}}
{{- define "rlhi.claim" -}}
{{- $storage := index . 1 -}}
- metadata: {name: data}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with $storage.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources: {requests: {storage: {{ $storage.size }}}}
{{- end -}}
