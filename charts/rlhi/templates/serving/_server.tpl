{{/* What the templates of the vLLM servers share. A server is one value of `vllm.servers` over `vllm.defaults`. */}}

{{/* The servers that are on, as JSON: name to settings. */}}
{{- define "rlhi.vllm.servers" -}}
{{- $servers := dict -}}
{{- range $name, $own := .Values.vllm.servers -}}
{{- $server := mustMergeOverwrite (deepCopy $.Values.vllm.defaults) (deepCopy ($own | default dict)) -}}
{{- if $server.enabled -}}
{{- include "rlhi.vllm.check" (list $ $name $server) -}}
{{- $_ := set $servers $name $server -}}
{{- end -}}
{{- end -}}
{{- toJson $servers -}}
{{- end -}}

{{/* (list $ NAME): name of a server's objects; its Service is what clients ask. */}}
{{- define "rlhi.vllm.name" -}}
{{- printf "%s-vllm-%s" (include "rlhi.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{/* (list $ NAME SERVER): refuses what could not run, in one line. */}}
{{- define "rlhi.vllm.check" -}}
{{- $where := printf "vllm.servers.%s" (index . 1) -}}
{{- $server := index . 2 -}}
{{- $scaling := $server.autoscaling -}}
{{- $most := include "rlhi.vllm.most" $server | int -}}
{{- if not $server.model -}}
{{- fail (printf "%s.model: is not set; give hf://ORG/NAME@COMMIT or s3://BUCKET/PREFIX" $where) -}}
{{- end -}}
{{- if and (eq $server.cache.kind "pvc") (eq $server.cache.accessMode "ReadWriteOnce") (gt $most 1) -}}
{{- $out := "use ReadWriteMany or cache.kind=emptyDir" -}}
{{- fail (printf "%s.cache.accessMode=ReadWriteOnce: one node only, but up to %d replicas; %s" $where $most $out) -}}
{{- end -}}
{{- if $scaling.enabled -}}
{{- include "rlhi.vllm.checkScaling" (list (index . 0) $where $scaling (include "rlhi.vllm.name" .)) -}}
{{- end -}}
{{- end -}}

{{- define "rlhi.vllm.checkScaling" -}}
{{- $scaling := index . 2 -}}
{{- $least := int $scaling.minReplicas -}}
{{- $most := int $scaling.maxReplicas -}}
{{- if lt $most $least -}}
{{- fail (printf "%s.autoscaling.maxReplicas=%d: below minReplicas=%d" (index . 1) $most $least) -}}
{{- end -}}
{{- if eq $scaling.kind "keda" -}}
{{- if not (index . 0).Values.monitoring.prometheusUrl -}}
{{- fail (printf "monitoring.prometheusUrl: is not set; %s.autoscaling.kind=keda asks it" (index . 1)) -}}
{{- end -}}
{{- /* Kubernetes cuts the names of pods, by which the query finds them, from here on */ -}}
{{- if gt (len (index . 3)) 47 -}}
{{- fail (printf "%s: longer than 47 characters, too long to scale; set fullnameOverride" (index . 3)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* SERVER: the most replicas that it may have. */}}
{{- define "rlhi.vllm.most" -}}
{{- ternary .autoscaling.maxReplicas .replicas .autoscaling.enabled | int -}}
{{- end -}}

{{/* MODEL: what vLLM is told to load; for hf:// without the scheme and the commit. */}}
{{- define "rlhi.vllm.model" -}}
{{- if hasPrefix "hf://" . }}{{ trimPrefix "hf://" . | splitList "@" | first }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* SERVER: the arguments of `vllm serve`, as JSON; the server's own come last, and the last one counts. */}}
{{- define "rlhi.vllm.args" -}}
{{- $model := include "rlhi.vllm.model" .model -}}
{{- $args := list $model "--served-model-name" (.servedModelName | default $model) "--port" "8000" -}}
{{- if hasPrefix "hf://" .model -}}
{{- $commit := splitList "@" .model | last -}}
{{- $args = concat $args (list "--revision" $commit "--tokenizer-revision" $commit) -}}
{{- end -}}
{{- if eq .runner "pooling" -}}
{{- /* a reward is the score itself: vLLM would put a sigmoid on a single label */ -}}
{{- $args = concat $args (list "--runner" "pooling" "--pooler-config" "{\"use_activation\": false}") -}}
{{- end -}}
{{- if gt (int .gpu.count) 1 -}}
{{- $args = concat $args (list "--tensor-parallel-size" (.gpu.count | int | toString)) -}}
{{- end -}}
{{- $args = concat $args (list "--shutdown-timeout" (.drainSeconds | int | toString)) -}}
{{- toJson (concat $args (.args | default list)) -}}
{{- end -}}

{{/* (list $ SERVER): the environment: everything that is written goes to a mount, and no file says who runs it. */}}
{{- define "rlhi.vllm.env" -}}
{{- $root := index . 0 -}}
{{- $server := index . 1 -}}
{{- $fixed := dict "HOME" "/home/vllm" "USER" "vllm" "HF_HOME" "/cache/huggingface" "VLLM_CACHE_ROOT" "/cache/vllm" -}}
{{- $fixed = merge $fixed (dict "VLLM_CONFIG_ROOT" "/home/vllm/config" "XDG_CACHE_HOME" "/home/vllm/cache") -}}
{{- $fixed = merge $fixed (dict "TRITON_CACHE_DIR" "/cache/triton" "TORCHINDUCTOR_CACHE_DIR" "/cache/inductor") -}}
{{- $fixed = merge $fixed (dict "FLASHINFER_WORKSPACE_BASE" "/cache" "VLLM_NO_USAGE_STATS" "1" "DO_NOT_TRACK" "1") -}}
{{- if hasPrefix "s3://" $server.model -}}
{{- $fixed = merge $fixed (include "rlhi.vllm.bucket" $root | fromYaml) -}}
{{- end -}}
{{- range $key, $value := merge (deepCopy ($server.env | default dict)) $fixed }}
- {name: {{ $key }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- if hasPrefix "s3://" $server.model }}
{{ include "rlhi.bucketKeys" (list $root "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY") }}
{{- end }}
{{- with $server.apiKey }}{{ include "rlhi.vllm.secretEnv" (list "VLLM_API_KEY" .) }}{{ end }}
{{- with $server.hfToken }}{{ include "rlhi.vllm.secretEnv" (list "HF_TOKEN" .) }}{{ end }}
{{- end -}}

{{/* What the streamer of vLLM must know of the bucket, but for its keys. */}}
{{- define "rlhi.vllm.bucket" -}}
{{- with include "rlhi.bucketEndpoint" . }}
AWS_ENDPOINT_URL: {{ . | quote }}
{{- end }}
AWS_REGION: {{ .Values.objectStore.region | quote }}
RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING: {{ ternary "0" "1" .Values.objectStore.pathStyle | quote }}
{{- end -}}

{{/* (list VARIABLE SECRET): a variable out of a Secret, where one is named. */}}
{{- define "rlhi.vllm.secretEnv" -}}
{{- with index . 1 }}
{{- if .existingSecret }}
- name: {{ index $ 0 }}
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .key }}}}
{{- end }}
{{- end }}
{{- end -}}

{{/* SERVER: its resources with the GPUs, as JSON. */}}
{{- define "rlhi.vllm.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if gt (int .gpu.count) 0 -}}
{{- $gpu := dict .gpu.resource (int .gpu.count) -}}
{{- $_ := set $resources "limits" (merge $gpu ($resources.limits | default dict)) -}}
{{- end -}}
{{- toJson $resources -}}
{{- end -}}

{{/* SERVER: its tolerations, as JSON: those of its own, and that of the taint by which clusters guard GPU nodes. */}}
{{- define "rlhi.vllm.tolerations" -}}
{{- $all := .tolerations | default list -}}
{{- if gt (int .gpu.count) 0 -}}
{{- $all = append $all (dict "key" .gpu.resource "operator" "Exists" "effect" "NoSchedule") -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}
