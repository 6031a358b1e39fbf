"""What the chart's pods may do: the restricted standard, rights by name, no secret in sight, and names that meet."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from pipelines import profiles
from tests.helm import CHART, REGISTRIES, Object, needs_helm, refusal, render

pytestmark = needs_helm
EVERYTHING: Object = {
    "vllm": {"servers": {"policy": {"enabled": True, "model": f"hf://org/name@{'a' * 40}"}}},
    "monitoring": {"serviceMonitors": {"enabled": True}, "dashboard": {"enabled": True}, "rules": {"enabled": True}},
    "global": {"imagePullSecrets": ["pull"]},
}
CASES = [(EVERYTHING, ()), *((None, (path.name,)) for path in sorted(CHART.glob("values-*.yaml")))]
over_all = pytest.mark.parametrize(("values", "files"), CASES, ids=["all", *(case[1][0] for case in CASES[1:])])
SECRET_NAME = re.compile(r"PASSWORD$|SECRET|TOKEN$|ACCESS_?KEY|API_KEY")
Files = tuple[str, ...]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Name, labels and spec of each pod that the objects make."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["metadata"]["labels"], each["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = each["spec"]["template"]
            yield each["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", []), *spec["containers"]]


@over_all
def test_pods_keep_to_the_restricted_standard(values: Object | None, files: Files) -> None:
    for name, _, spec in pods(render(values, *files)):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}, name
        assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume], name


@over_all
def test_containers_may_not_gain_rights_or_write_to_their_image(values: Object | None, files: Files) -> None:
    for name, _, spec in pods(render(values, *files)):
        for container in containers(spec):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name


@over_all
def test_containers_say_what_they_need_and_whether_they_are_well(values: Object | None, files: Files) -> None:
    for name, _, spec in pods(render(values, *files)):
        for container in spec["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name
            assert "livenessProbe" in container or not container.get("ports"), name


@over_all
def test_no_right_is_given_by_a_wildcard(values: Object | None, files: Files) -> None:
    for each in render(values, *files):
        for rule in each.get("rules", []) if each["kind"] in ("Role", "ClusterRole") else []:
            assert "*" not in json.dumps(rule), each["metadata"]["name"]


@over_all
def test_beyond_the_namespace_nodes_are_listed_and_nothing_else(values: Object | None, files: Files) -> None:
    roles = [each for each in render(values, *files) if each["kind"] == "ClusterRole"]
    assert all(each["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}] for each in roles)
    assert all(each["metadata"]["name"] == "ml-pipeline-runner-nodes" for each in roles)


def test_runs_list_no_nodes_where_that_is_off() -> None:
    kinds = {each["kind"] for each in render({"kfp": {"runner": {"listNodes": False}}})}
    assert kinds.isdisjoint({"ClusterRole", "ClusterRoleBinding"})


@over_all
def test_secrets_are_read_by_name_only(values: Object | None, files: Files) -> None:
    rules = [rule for each in render(values, *files) if each["kind"] == "Role" for rule in each["rules"]]
    for rule in rules:
        if "secrets" in rule["resources"]:
            assert rule["resourceNames"]
            assert rule["verbs"] == ["get"]


@over_all
def test_no_secret_stands_in_an_environment(values: Object | None, files: Files) -> None:
    for name, _, spec in pods(render(values, *files)):
        for variable in (variable for container in containers(spec) for variable in container.get("env", [])):
            if SECRET_NAME.search(variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], (name, variable["name"])


def test_what_a_secret_holds_stands_nowhere_else() -> None:
    objects = render(EVERYTHING)
    held = [value for each in objects if each["kind"] == "Secret" for value in each["data"].values()]
    others = json.dumps([each for each in objects if each["kind"] != "Secret"])
    assert len(held) == 5
    assert not [value for value in held if value in others or base64.b64decode(value).decode() in others]


@over_all
def test_selectors_find_the_pods_they_are_meant_for(values: Object | None, files: Files) -> None:
    objects = render(values, *files)
    there = list(pods(objects))
    for each in objects:
        if each["kind"] in ("Service", "PodDisruptionBudget", "Deployment", "StatefulSet"):
            wanted = each["spec"]["selector"].get("matchLabels", each["spec"]["selector"]).items()
            found = [name for name, labels, _ in there if wanted <= labels.items()]
            assert len(found) == 1, (each["kind"], each["metadata"]["name"], found)


@over_all
def test_ports_of_services_are_ports_of_their_pods(values: Object | None, files: Files) -> None:
    objects = render(values, *files)
    for service in (each for each in objects if each["kind"] == "Service"):
        wanted = service["spec"]["selector"].items()
        (spec,) = [spec for _, labels, spec in pods(objects) if wanted <= labels.items()]
        ports: list[Any] = [port for container in spec["containers"] for port in container["ports"]]
        reached = {port["name"] for port in ports} | {port["containerPort"] for port in ports}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= reached, service["metadata"]["name"]


@over_all
def test_mounts_have_volumes_and_homes_can_be_written(values: Object | None, files: Files) -> None:
    for name, _, spec in pods(render(values, *files)):
        volumes = {volume["name"] for volume in spec.get("volumes", [])} | {"data"}
        for container in containers(spec):
            mounts = container.get("volumeMounts", [])
            assert {mount["name"] for mount in mounts} <= volumes, name
            homes = [variable["value"] for variable in container.get("env", []) if variable["name"] == "HOME"]
            writable = [mount["mountPath"] for mount in mounts if not mount.get("readOnly")]
            assert all(any(home.startswith(path) for path in writable) for home in homes), name


@over_all
def test_named_accounts_secrets_and_settings_exist(values: Object | None, files: Files) -> None:
    objects = render(values, *files)
    made = {(each["kind"], each["metadata"]["name"]) for each in objects}
    accounts = {spec["serviceAccountName"] for _, _, spec in pods(objects) if "serviceAccountName" in spec}
    settings = re.findall(r'"configMap": {"name": "([^"]+)"', json.dumps(objects))
    assert {("ServiceAccount", name) for name in accounts} | {("ConfigMap", name) for name in settings} <= made
    if not files:  # those of other files are made by hand, which the files say
        secrets = set(re.findall(r'"(?:secretKeyRef|secret)": {"(?:name|secretName)": "([^"]+)"', json.dumps(objects)))
        assert secrets
        assert {("Secret", name) for name in secrets} <= made


def test_only_those_who_ask_kubernetes_hold_a_token() -> None:
    asks = {
        "ml-pipeline",
        "ml-pipeline-persistenceagent",
        "ml-pipeline-scheduledworkflow",
        "ml-pipeline-ui",
        "workflow-controller",
    }
    objects = render(EVERYTHING)
    assert {name for name, _, spec in pods(objects) if spec.get("automountServiceAccountToken", True)} == asks
    given = {each["metadata"]["name"] for each in objects if each.get("automountServiceAccountToken")}
    assert given == {"pipeline-runner"}  # KFP and Argo make its pods, and their launcher asks


def test_all_pods_and_the_runs_pull_by_the_given_secret() -> None:
    objects = render(EVERYTHING)
    assert all(spec["imagePullSecrets"] == [{"name": "pull"}] for _, _, spec in pods(objects))
    runner = next(
        each for each in objects if (each["kind"], each["metadata"]["name"]) == ("ServiceAccount", "pipeline-runner")
    )
    assert runner["imagePullSecrets"] == [{"name": "pull"}]


def test_registry_override_holds_for_every_image_and_for_those_that_others_start() -> None:
    text = json.dumps(render(EVERYTHING | {"global": {"imageRegistry": "mirror.test:5000"}}))
    assert not re.findall(r"(?:github|google|quay)\.test/", text)
    for image in ("kubeflow/kfp-driver:2.17.1", "kubeflow/kfp-launcher:2.17.1", "argoproj/argoexec:v4.0.5"):
        assert f"mirror.test:5000/{image}" in text


def test_images_come_from_the_registries_that_are_given() -> None:
    found = {container["image"].split("/")[0] for _, _, spec in pods(render()) for container in spec["containers"]}
    assert {"github.test", "quay.test", "google.test"} < found
    assert '"own.test/mlflow/mlflow:' in json.dumps(render({"images": {"mlflow": {"registry": "own.test"}}}))


@pytest.mark.parametrize("name", REGISTRIES)
def test_registry_that_is_not_given_is_asked_for(name: str) -> None:
    said = refusal({"registries": {**REGISTRIES, name: ""}})
    assert f"registries.{name} is empty" in said
    assert "global.imageRegistry" in said


def test_digest_wins_over_the_tag() -> None:
    digest = f"sha256:{'0' * 64}"
    images = [
        container["image"]
        for name, _, spec in pods(render({"images": {"mlflow": {"digest": digest}}}))
        for container in spec["containers"]
        if name == "rlhi-mlflow"
    ]
    assert images == [f"github.test/mlflow/mlflow@{digest}"]


def test_several_replicas_are_not_evicted_at_once() -> None:
    budgets = [
        each for each in render({"kfp": {"apiServer": {"replicas": 2}}}) if each["kind"] == "PodDisruptionBudget"
    ]
    assert [each["metadata"]["name"] for each in budgets] == ["ml-pipeline"]
    assert not [each for each in render() if each["kind"] == "PodDisruptionBudget"]


def settings(objects: list[Object], name: str) -> dict[str, Any]:
    (found,) = [each["data"] for each in objects if (each["kind"], each["metadata"]["name"]) == ("ConfigMap", name)]
    return {key: yaml.safe_load(value) for key, value in found.items()}


def test_volumes_of_runs_belong_to_the_group_that_their_images_run_as() -> None:
    """Also the volumes that a profile's `scratch` asks for: what Argo makes has this for every pod."""
    security = settings(render(), "workflow-controller-configmap")["workflowDefaults"]["spec"]["securityContext"]
    assert security == {
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    users = {
        re.search(r"^USER \d+:(\d+)$", path.read_text(), re.MULTILINE)
        for path in CHART.parents[1].glob("images/*/Dockerfile")
    }
    assert {found and int(found[1]) for found in users} == {security["fsGroup"]}
    none = settings(render({"kfp": {"runner": {"fsGroup": 0}}}), "workflow-controller-configmap")
    assert "fsGroup" not in none["workflowDefaults"]["spec"]["securityContext"]


def test_encryption_is_asked_for_by_stages_mlflow_and_argo() -> None:
    objects = render({"objectStore": {"encryption": {"kind": "aws:kms", "kmsKeyId": "arn:test"}}})
    given = settings(objects, "rlhi-environment")
    assert (given["RLHI_S3_SSE"], given["RLHI_S3_SSE_KMS_KEY_ID"]) == ("aws:kms", "arn:test")
    kept = settings(objects, "workflow-controller-configmap")["artifactRepository"]["s3"]["encryptionOptions"]
    assert kept == {"enableEncryption": True, "kmsKeyId": "arn:test"}
    (spec,) = [spec for name, _, spec in pods(objects) if name == "rlhi-mlflow"]
    env = {variable["name"]: variable.get("value") for variable in spec["containers"][0]["env"]}
    assert json.loads(env["MLFLOW_S3_UPLOAD_EXTRA_ARGS"]) == {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "arn:test",
    }
    assert "encryptionOptions" not in json.dumps(render())
    assert "RLHI_S3_SSE" not in json.dumps(render())
    assert "set objectStore.encryption.kind" in refusal({"objectStore": {"encryption": {"kmsKeyId": "arn:test"}}})


def test_profiles_name_the_secret_and_the_settings_of_the_chart() -> None:
    """In whatever file one looks, the keys of the bucket have one name, and a pod's settings are there."""
    root = CHART.parents[1]
    named = set()
    for path in CHART.glob("values*.yaml"):
        store = yaml.safe_load(path.read_text()).get("objectStore", {})
        if store.get("credentials") != "ambient":
            named.add(store.get("existingSecret") or "rlhi-object-store")
    there = settings(render({"objectStore": {"encryption": {"kind": "aws:kms", "kmsKeyId": "k"}}}), "rlhi-environment")
    for path in (root / "profiles").glob("*.yaml"):
        found = profiles.load(path)
        named |= {secret.name for secret in found.secrets if "AWS_ACCESS_KEY_ID" in secret.env}
        assert set(found.config_maps["rlhi-environment"]) <= there.keys(), path
    assert len(named) == 1
    for path in (root / "README.md", CHART / "README.md"):
        assert f"`{named.copy().pop()}`" in path.read_text()


def test_settings_of_all_pods_give_way_to_those_of_a_part() -> None:
    values = {"scheduling": {"nodeSelector": {"pool": "all"}}, "mlflow": {"nodeSelector": {"pool": "own"}}}
    chosen = {name: spec["nodeSelector"]["pool"] for name, _, spec in pods(render(values))}
    assert chosen.pop("rlhi-mlflow") == "own"
    assert set(chosen.values()) == {"all"}
