{{/* What every template shares. Those that take more than the root context take a list: (list $ ...). */}}

{{/* Prefix of the names of our own objects: the release, with the chart's name unless it holds it. */}}
{{- define "rlhi.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (list $ COMPONENT): the labels by which a Service or a PDB finds the pods of a component. */}}
{{- define "rlhi.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* (list $ COMPONENT): all labels of an object. */}}
{{- define "rlhi.labels" -}}
{{- $root := index . 0 -}}
{{ include "rlhi.selector" . }}
app.kubernetes.io/part-of: {{ $root.Chart.Name }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* (list $ IMAGE): the reference of one entry of `images`; a digest wins over the tag. */}}
{{- define "rlhi.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $root.Values.global.imageRegistry -}}
{{- if and (not $registry) $image.registry -}}
{{- $registry = ternary (get $root.Values.registries $image.registry) $image.registry (hasKey $root.Values.registries $image.registry) -}}
{{- if not (or $registry (eq $image.registry "dockerHub")) -}}
{{- fail (printf "registries.%s is empty, and %s comes from there: set it to that registry's host, or global.imageRegistry to a mirror's" $image.registry $image.repository) -}}
{{- end -}}
{{- end -}}
{{- if $registry }}{{ $registry }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end -}}

{{- define "rlhi.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* (list $ UID): the pod's securityContext under the restricted standard; volumes belong to the same id. */}}
{{- define "rlhi.podSecurity" -}}
{{- $uid := index . 1 | int -}}
runAsNonRoot: true
runAsUser: {{ $uid }}
runAsGroup: {{ $uid }}
fsGroup: {{ $uid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The container's securityContext under the restricted standard. */}}
{{- define "rlhi.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* (list $ PART): where the pods of a part run; what the part does not say, `scheduling` says for all. */}}
{{- define "rlhi.scheduling" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with index $part $key | default (index $root.Values.scheduling $key) }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* (list $ SECRET KEY): what a Secret of ours holds, in base64: what the cluster has already, else made now.
     Where the cluster cannot be asked (helm template), it is made anew each time. */}}
{{- define "rlhi.kept" -}}
{{- $root := index . 0 -}}
{{- $found := lookup "v1" "Secret" $root.Release.Namespace (index . 1) -}}
{{- $data := ($found | default dict).data | default dict -}}
{{- index $data (index . 2) | default (randAlphaNum 32 | b64enc) -}}
{{- end -}}

{{/* (list $ COMPONENT NAME PART): a PodDisruptionBudget where a part runs in several replicas. */}}
{{- define "rlhi.pdb" -}}
{{- $root := index . 0 -}}
{{- $part := index . 3 -}}
{{- if gt (int $part.replicas) 1 }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ index . 2 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "rlhi.labels" (list $root (index . 1)) | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "rlhi.selector" (list $root (index . 1)) | nindent 6 }}
{{- end }}
{{- end -}}
