{{/* A dict of root, name, component, part, container and volumes (text), token (whether its pods speak to the API of
     Kubernetes), strategy: a Deployment of one container under the restricted standard, with a PDB for several. */}}
{{- define "rlhi.deployment" -}}
{{- $root := .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "rlhi.labels" (list $root .component) | nindent 4 }}
spec:
  replicas: {{ if hasKey .part "replicas" }}{{ .part.replicas }}{{ else }}1{{ end }}
  {{- with .strategy }}
  strategy: {type: {{ . }}}
  {{- end }}
  selector:
    matchLabels: {{- include "rlhi.selector" (list $root .component) | nindent 6 }}
  template:
    metadata:
      labels: {{- include "rlhi.labels" (list $root .component) | nindent 8 }}
      {{- with .config }}
      annotations: {checksum/config: {{ . | sha256sum }}}
      {{- end }}
    spec:
      serviceAccountName: {{ .account | default .name }}
      automountServiceAccountToken: {{ .token | default false }}
      {{- include "rlhi.pullSecrets" $root | nindent 6 }}
      {{- include "rlhi.scheduling" (list $root .part) | nindent 6 }}
      {{- include "rlhi.spread" (list $root .component) | nindent 6 }}
      securityContext: {{- include "rlhi.podSecurity" (list $root 1000) | nindent 8 }}
      containers:
        - name: {{ .name }}
          {{- .container | nindent 10 }}
          resources: {{- toYaml .part.resources | nindent 12 }}
          securityContext: {{- include "rlhi.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with .mounts }}
            {{- . | nindent 12 }}
            {{- end }}
      volumes:
        - {name: tmp, emptyDir: {}}
        {{- with .volumes }}
        {{- . | nindent 8 }}
        {{- end }}
{{- with include "rlhi.pdb" (list $root .component .name .part) }}
---
{{- . }}
{{- end }}
{{- end -}}

{{/* The account of Kubeflow Pipelines on its database: two environment variables. */}}
{{- define "rlhi.kfpDatabaseUser" -}}
- {name: DBCONFIG_USER, value: {{ .Values.kfp.database.user | quote }}}
- name: DBCONFIG_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "rlhi.kfpDatabaseSecret" . }}, key: password}}
{{- end -}}

{{/* A token by which a controller proves to the API server who it is. */}}
{{- define "rlhi.kfpToken" -}}
- name: token
  projected:
    sources:
      - serviceAccountToken: {path: {{ . }}, expirationSeconds: 3600, audience: pipelines.kubeflow.org}
{{- end -}}
