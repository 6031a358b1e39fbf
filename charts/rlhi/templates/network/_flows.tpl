{{/* Who talks to whom, told once; policies.yaml makes of each flow what goes in at one end and out at the other. A flow
     has the components it goes `to`, their `ports`, the components it comes `from`, the `peers` of other namespaces,
     and whether the pods of `runs` use it. */}}
{{- define "rlhi.network.flows" -}}
{{- $net := .Values.networkPolicy -}}
{{- $clients := ternary $net.clients.from list $net.clients.enabled -}}
{{- $scrapers := ternary $net.monitoring.from list $net.monitoring.enabled -}}
{{- if .Values.mariadb.enabled }}
- {name: mariadb, to: [mariadb], ports: [{{ .Values.kfp.database.port }}], from: [api-server, metadata]}
{{- end }}
{{- if .Values.postgresql.enabled }}
- {name: postgresql, to: [postgresql], ports: [{{ .Values.mlflow.database.port }}], from: [mlflow]}
{{- end }}
{{- if .Values.seaweedfs.enabled }}
- {name: seaweedfs, to: [seaweedfs], ports: [8333], from: {{ include "rlhi.network.bucketUsers" . }},
   peers: {{ toJson $net.pipelines.from }}, runs: true}
- {name: seaweedfs-metrics, to: [seaweedfs], ports: [9327], peers: {{ toJson $scrapers }}}
{{- end }}
{{- if .Values.mlflow.enabled }}
- {name: mlflow, to: [mlflow], ports: [5000], from: [api-server, tests],
   peers: {{ concat $clients $net.pipelines.from | toJson }}, runs: true}
{{- end }}
{{- with include "rlhi.network.servers" . | fromJsonArray }}
- {name: vllm, to: {{ toJson . }}, ports: [8000], from: [tests],
   peers: {{ concat $scrapers $net.pipelines.from | toJson }}, runs: true}
{{- end }}
{{- if .Values.kfp.enabled }}
- {name: api-server, to: [api-server], ports: [8888, 8887], from: [persistence-agent, scheduled-workflow, ui, tests],
   peers: {{ toJson $clients }}, runs: true}
- {name: metadata, to: [metadata], ports: [8080], from: [metadata-envoy], runs: true}
- {name: metadata-envoy, to: [metadata-envoy], ports: [9090], from: [ui]}
- {name: ui, to: [ui], ports: [3000], from: [tests], peers: {{ toJson $clients }}}
- {name: api-server-metrics, to: [api-server], ports: [8888], peers: {{ toJson $scrapers }}}
- {name: controller-metrics, to: [workflow-controller, scheduled-workflow], ports: [9090],
   peers: {{ toJson $scrapers }}}
{{- end }}
{{- end -}}

{{/* Components of the vLLM servers, as JSON. */}}
{{- define "rlhi.network.servers" -}}
{{- $all := list -}}
{{- range $name := include "rlhi.vllm.servers" . | fromJson | keys | sortAlpha -}}
{{- $all = append $all (printf "vllm-%s" $name) -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{/* Components that read or write the bucket, as JSON. */}}
{{- define "rlhi.network.bucketUsers" -}}
{{- concat (list "api-server" "ui" "mlflow" "tests") (include "rlhi.network.servers" . | fromJsonArray) | toJson -}}
{{- end -}}

{{/* (list $ COMPONENTS): a selector of their pods. */}}
{{- define "rlhi.network.pods" -}}
{{- $root := index . 0 -}}
matchLabels:
  app.kubernetes.io/name: {{ $root.Chart.Name }}
  app.kubernetes.io/instance: {{ $root.Release.Name }}
matchExpressions:
  - {key: app.kubernetes.io/component, operator: In, values: {{ index . 1 | toJson }}}
{{- end -}}

{{/* The pods of runs, by who makes them: Argo, and Kubeflow Trainer for a training on several nodes. */}}
{{- define "rlhi.network.runs" -}}
workflows: {matchExpressions: [{key: workflows.argoproj.io/workflow, operator: Exists}]}
trainings: {matchExpressions: [{key: jobset.sigs.k8s.io/jobset-name, operator: Exists}]}
{{- end -}}

{{/* (list $ NAME): the beginning of a policy. */}}
{{- define "rlhi.network.head" -}}
{{- $root := index . 0 }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "rlhi.fullname" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "rlhi.labels" (list $root "network") | nindent 4 }}
{{- end -}}

{{/* PORTS: as a policy names them. */}}
{{- define "rlhi.network.ports" -}}
{{- range . }}
- {port: {{ int . }}, protocol: TCP}
{{- end }}
{{- end -}}

{{/* (list CIDRS EXCEPT PORTS): a rule of what lies outside of the cluster's pods. */}}
{{- define "rlhi.network.outside" -}}
{{- $except := index . 1 -}}
- to:
    {{- range index . 0 }}
    - ipBlock: {cidr: {{ . }}{{ with $except }}, except: {{ toJson . }}{{ end }}}
    {{- end }}
  ports: {{- include "rlhi.network.ports" (index . 2) | nindent 4 }}
{{- end -}}
