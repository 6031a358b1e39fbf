import json

import kubernetes_validate
import pytest

from tests.chart import COMMIT, behind, container, labels, named, of_kind, port_of, server, servers, template
from tests.helm import HELMS, Object, needs_helm, refusal, render
from tests.policies import matches

pytestmark = needs_helm
POLICY, REWARD = "rlhi-vllm-policy", "rlhi-vllm-reward"
KEDA = {"autoscaling": {"enabled": True}}
ASKED = {"monitoring": {"prometheusUrl": "http://prometheus.monitoring.svc:9090"}}


def policy(**more: object) -> Object:
    """The Deployment of one server with these values."""
    return named(render(servers(policy=server(**more))), "Deployment", POLICY)


def args(workload: Object) -> list[str]:
    found: list[str] = container(workload)["args"]
    return found


def after(flag: str, words: list[str]) -> str:
    return words[words.index(flag) + 1]


def environment(workload: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(workload)["env"] if "value" in one}


@pytest.mark.parametrize("helm", HELMS)
def test_no_server_runs_unless_one_is_asked_for(helm: str) -> None:
    assert not [one for one in render(helm=helm) if "vllm" in one["metadata"]["name"]]


@pytest.mark.parametrize("helm", HELMS)
def test_service_leads_to_the_port_of_its_own_server_only(helm: str) -> None:
    objects = render(servers(policy=server(), reward=server(), judge=server()), helm=helm)
    for name in (POLICY, REWARD, "rlhi-vllm-judge"):
        service = named(objects, "Service", name)
        (workload,) = behind(objects, service)
        assert workload["metadata"]["name"] == name
        (port,) = service["spec"]["ports"]
        assert (port["port"], port_of(workload, port["targetPort"])) == (8000, 8000)


def test_model_tokenizer_and_name_are_those_of_the_pinned_address() -> None:
    words = args(policy())
    assert words[0] == after("--served-model-name", words) == "Qwen/Qwen3-8B"
    assert after("--revision", words) == after("--tokenizer-revision", words) == COMMIT


@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "hf://Qwen/Qwen3-8B", "hf://Qwen/Qwen3-8B@main", "https://x/y"])
@pytest.mark.parametrize("helm", HELMS)
def test_model_that_is_not_pinned_is_refused(helm: str, model: str) -> None:
    assert "model" in refusal(servers(policy=server(model=model)), helm)


@pytest.mark.parametrize("helm", HELMS)
def test_server_without_a_model_is_refused_with_what_to_give(helm: str) -> None:
    said = refusal(servers(judge={"enabled": True}), helm)
    assert "vllm.servers.judge.model: is not set; give hf://ORG/NAME@COMMIT or s3://BUCKET/PREFIX" in said


@pytest.mark.parametrize("key", ["modle", "gpus"])
@pytest.mark.parametrize("helm", HELMS)
def test_unknown_key_of_a_server_is_refused(helm: str, key: str) -> None:
    assert key in refusal(servers(policy=server(**{key: 1})), helm)


def test_reward_server_pools_and_puts_no_sigmoid_on_scores() -> None:
    words = args(named(render(servers(reward=server())), "Deployment", REWARD))
    assert after("--runner", words) == "pooling"
    assert json.loads(after("--pooler-config", words)) == {"use_activation": False}


def test_own_arguments_come_last_and_so_prevail() -> None:
    assert args(policy(args=["--max-model-len", "8192"]))[-2:] == ["--max-model-len", "8192"]


def test_value_of_a_server_stands_above_that_of_all() -> None:
    values = servers(policy=server(gpu={"count": 0}, autoscaling={"enabled": False}), judge=server())
    values["vllm"]["defaults"] = {"gpu": {"count": 2}, "autoscaling": {"enabled": True, "kind": "hpa"}}
    objects = render(values)
    mine, other = named(objects, "Deployment", POLICY), named(objects, "Deployment", "rlhi-vllm-judge")
    assert "nvidia.com/gpu" not in container(mine)["resources"]["limits"]
    assert container(other)["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert [one["metadata"]["name"] for one in of_kind(objects, "HorizontalPodAutoscaler")] == ["rlhi-vllm-judge"]


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "nvidia.com/mig-3g.40gb", "amd.com/gpu"])
def test_pod_with_a_gpu_tolerates_the_taint_of_its_kind(resource: str) -> None:
    extra = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
    workload = policy(gpu={"resource": resource}, tolerations=[extra])
    assert container(workload)["resources"]["limits"][resource] == 1
    tolerated = template(workload)["spec"]["tolerations"]
    assert {"key": resource, "operator": "Exists", "effect": "NoSchedule"} in tolerated
    assert extra in tolerated


def test_several_gpus_hold_one_copy_of_the_model() -> None:
    assert after("--tensor-parallel-size", args(policy(gpu={"count": 4}))) == "4"
    assert "--tensor-parallel-size" not in args(policy())


def test_pod_keeps_to_the_restricted_standard() -> None:
    workload = policy()
    pod, only = template(workload)["spec"], container(workload)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"]["readOnlyRootFilesystem"]
    assert not only["securityContext"]["allowPrivilegeEscalation"]
    assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not pod["automountServiceAccountToken"]


def test_all_that_vllm_writes_goes_to_a_mount() -> None:
    workload = policy()
    mounts = [one["mountPath"] for one in container(workload)["volumeMounts"]]
    written = {key: value for key, value in environment(workload).items() if value.startswith("/")}
    assert {"HOME", "HF_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"} <= written.keys()
    assert {key for key, value in written.items() if not any(f"{value}/".startswith(f"{m}/") for m in mounts)} == set()
    assert {"/tmp", "/dev/shm"} <= set(mounts)


def test_service_of_any_name_sets_no_variable_of_vllm() -> None:
    assert template(policy())["spec"]["enableServiceLinks"] is False


def test_server_has_the_time_to_load_and_to_finish_what_it_began() -> None:
    workload = policy(startupMinutes=90, drainSeconds=120)
    probe = container(workload)["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 90 * 60
    assert workload["spec"]["progressDeadlineSeconds"] > 90 * 60
    before = container(workload)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert template(workload)["spec"]["terminationGracePeriodSeconds"] > before + 120
    assert after("--shutdown-timeout", args(workload)) == "120"


def test_keys_come_out_of_secrets() -> None:
    workload = policy(apiKey={"existingSecret": "keys"}, hfToken={"existingSecret": "hub", "key": "read"})
    secret = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container(workload)["env"] if "valueFrom" in one}
    assert secret["VLLM_API_KEY"] == {"name": "keys", "key": "api-key"}
    assert secret["HF_TOKEN"] == {"name": "hub", "key": "read"}


def test_model_on_s3_is_read_with_the_settings_of_the_one_bucket() -> None:
    workload = policy(model="s3://rlhi/models/policy")
    assert args(workload)[0] == "s3://rlhi/models/policy"
    assert environment(workload)["AWS_ENDPOINT_URL"].startswith("http://rlhi-seaweedfs.")
    assert "AWS_SECRET_ACCESS_KEY" in {one["name"] for one in container(workload)["env"]}
    assert "AWS_ENDPOINT_URL" not in environment(policy())


def test_cache_is_a_claim_where_it_is_to_outlive_the_pod() -> None:
    objects = render(servers(policy=server(cache={"kind": "pvc", "size": "200Gi"})))
    claim = named(objects, "PersistentVolumeClaim", POLICY)
    assert claim["spec"]["resources"]["requests"]["storage"] == "200Gi"
    volumes = {one["name"]: one for one in template(named(objects, "Deployment", POLICY))["spec"]["volumes"]}
    assert volumes["cache"]["persistentVolumeClaim"]["claimName"] == POLICY
    given = render(servers(policy=server(cache={"kind": "pvc", "existingClaim": "models"})))
    assert not of_kind(given, "PersistentVolumeClaim")


@pytest.mark.parametrize("more", [{"replicas": 2}, KEDA])
def test_claim_of_one_node_for_several_replicas_is_refused(more: Object) -> None:
    said = refusal(servers(policy=server(cache={"kind": "pvc"}, **more)) | ASKED)
    assert "vllm.servers.policy.cache.accessMode=ReadWriteOnce" in said


def test_replicas_are_drained_one_at_a_time() -> None:
    assert not of_kind(render(servers(policy=server())), "PodDisruptionBudget")
    objects = render(servers(policy=server(replicas=3)))
    budget = named(objects, "PodDisruptionBudget", POLICY)
    assert matches(budget["spec"]["selector"], labels(named(objects, "Deployment", POLICY)))


def test_keda_scales_by_all_requests_in_the_server() -> None:
    objects = render(servers(policy=server(autoscaling={"enabled": True, "requestsPerReplica": 64})) | ASKED)
    spec = named(objects, "ScaledObject", POLICY)["spec"]
    workload = named(objects, "Deployment", spec["scaleTargetRef"]["name"])
    assert "replicas" not in workload["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 4)
    asked = spec["triggers"][0]["metadata"]
    assert asked["serverAddress"] == ASKED["monitoring"]["prometheusUrl"]
    assert asked["threshold"] == "64"
    assert "vllm:num_requests_waiting{" in asked["query"]
    assert "vllm:num_requests_running{" in asked["query"]


def test_replicas_stay_where_nobody_knows_how_long_the_queue_is() -> None:
    spec = named(render(servers(policy=server(**KEDA)) | ASKED), "ScaledObject", POLICY)["spec"]
    assert spec["fallback"]["behavior"] == "currentReplicas"
    assert spec["triggers"][0]["metadata"]["ignoreNullValues"] == "false"


def test_keda_without_a_prometheus_is_refused() -> None:
    assert "monitoring.prometheusUrl: is not set" in refusal(servers(policy=server(**KEDA)))


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    scaling = {"enabled": True, "minReplicas": 5}
    said = refusal(servers(policy=server(autoscaling=scaling)) | ASKED)
    assert "vllm.servers.policy.autoscaling.maxReplicas=4: below minReplicas=5" in said


def test_hpa_scales_by_a_metric_of_pods() -> None:
    objects = render(servers(policy=server(autoscaling={"enabled": True, "kind": "hpa"})))
    spec = named(objects, "HorizontalPodAutoscaler", POLICY)["spec"]
    assert spec["scaleTargetRef"]["name"] == POLICY
    assert spec["metrics"][0]["pods"]["metric"]["name"] == "vllm_requests"


def test_queue_of_kueue_is_named_where_kueue_looks() -> None:
    assert policy(queue="gpu")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert "kueue.x-k8s.io/queue-name" not in policy()["metadata"]["labels"]


@pytest.mark.parametrize("name", ["Policy", "a" * 17, "po.licy"])
def test_name_that_no_service_can_have_is_refused(name: str) -> None:
    said = refusal({"vllm": {"servers": {name: server()}}})
    assert "/vllm/servers" in said
    assert name in said


@pytest.mark.parametrize("version", ["1.33", "1.37"])
@pytest.mark.parametrize("helm", HELMS)
def test_kubernetes_takes_servers_of_every_shape(helm: str, version: str) -> None:
    scaled = server(model="s3://rlhi/reward", autoscaling={"enabled": True, "kind": "hpa"}, runtimeClassName="nvidia")
    kept = server(replicas=2, cache={"kind": "pvc", "accessMode": "ReadWriteMany"}, hfToken={"existingSecret": "hub"})
    objects = render(servers(policy=kept, reward=scaled, judge=server(gpu={"count": 4}, env={"N": 1})), helm=helm)
    ours = [one for one in objects if "vllm" in one["metadata"]["name"]]
    assert {"Deployment", "PersistentVolumeClaim", "PodDisruptionBudget", "NetworkPolicy"} <= {
        one["kind"] for one in ours
    }
    for one in ours:
        kubernetes_validate.validate(one, version, strict=True)


def test_helm_test_asks_every_server_that_is_on() -> None:
    pod = named(render(servers(policy=server(), judge=server())), "Pod", "rlhi-test")
    asked = [one for one in pod["spec"]["containers"][0]["args"] if "vllm" in one]
    assert asked == ["http://rlhi-vllm-judge:8000/health", "http://rlhi-vllm-policy:8000/health"]
