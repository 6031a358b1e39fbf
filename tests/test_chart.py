"""What the chart installs, by Helm 3 and 4: parts on and off, one bucket for all, secrets made once, no unknown key."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.cluster_server import cluster
from tests.helm import CHART, HELMS, REGISTRIES, Object, needs_helm, refusal, render, tools

pytestmark = needs_helm
FILES = sorted(path.name for path in CHART.glob("values-*.yaml"))
OUTSIDE = ("kueue.x-k8s.io", "keda.sh", "monitoring.coreos.com")  # CRDs that others install
BUCKET = {"endpoint": "https://s3.test", "bucket": "logs", "existingSecret": "keys"}
ELSEWHERE: dict[str, Object] = {
    "mariadb": {"mariadb": {"enabled": False}, "kfp": {"database": {"host": "db", "existingSecret": "db"}}},
    "postgresql": {"postgresql": {"enabled": False}, "mlflow": {"database": {"host": "db", "existingSecret": "db"}}},
    "seaweedfs": {"seaweedfs": {"enabled": False}, "objectStore": BUCKET},
    "mlflow": {"mlflow": {"enabled": False}},
    "workflow-controller": {"kfp": {"workflowController": {"enabled": False}}},
    "ui": {"kfp": {"ui": {"enabled": False}}},
    "crds": {"kfp": {"crds": False}},
}
KFP = {
    "api-server",
    "persistence-agent",
    "scheduled-workflow",
    "ui",
    "metadata",
    "metadata-envoy",
    "workflow-controller",
}


def one(objects: list[Object], kind: str, name: str) -> Object:
    """The only object of a kind and a name."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def components(objects: list[Object]) -> set[str]:
    """Components that objects are there for, beside their policies and what all of them share."""
    kinds = {"Deployment", "StatefulSet", "CustomResourceDefinition"}
    return {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in objects if each["kind"] in kinds}


def arguments(objects: list[Object], kind: str, name: str) -> str:
    """All that the first container of a workload is told: command, arguments and environment."""
    container = one(objects, kind, name)["spec"]["template"]["spec"]["containers"][0]
    return json.dumps([container.get("command"), container.get("args"), container.get("env")])


def check(objects: list[Object], version: str) -> None:
    for each in objects:
        if not each["apiVersion"].startswith(OUTSIDE):
            kubernetes_validate.validate(each, version, strict=True)


def test_newest_kubernetes_takes_what_is_rendered_for_gke() -> None:
    check(render(None, "values-gke.yaml"), "1.37")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.33", "1.34", "1.35", "1.36", "1.37"])
@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("files", [(), *((name,) for name in FILES)], ids=lambda files: "-".join(files) or "default")
def test_every_kubernetes_takes_every_values_file(files: tuple[str, ...], helm: str, version: str) -> None:
    check(render(None, *files, helm=helm), version)


@pytest.mark.parametrize("file", FILES)
def test_both_helms_render_the_same(file: str) -> None:
    new, old = ([each for each in render(None, file, helm=helm) if each["kind"] != "Secret"] for helm in HELMS)
    by_name = [sorted(json.dumps(each, sort_keys=True) for each in objects) for objects in (new, old)]
    assert by_name[0] == by_name[1]
    assert new


def test_all_parts_are_there_by_default() -> None:
    assert components(render()) == {*KFP, "mariadb", "postgresql", "seaweedfs", "mlflow", "crds"}


@pytest.mark.parametrize("part", ELSEWHERE)
def test_part_that_is_off_leaves_nothing_and_takes_nothing_along(part: str) -> None:
    gone = {part, "metadata-envoy"} if part == "ui" else {part}
    assert components(render()) - components(render(ELSEWHERE[part])) == gone


def test_own_kubeflow_pipelines_keeps_its_objects() -> None:
    objects = render(None, "values-byo-kfp.yaml")
    assert components(objects) == {"mlflow", "postgresql"}
    assert not [
        each for each in objects if each["metadata"]["name"] in ("pipeline-runner", "kfp-launcher", "ml-pipeline")
    ]
    assert one(objects, "ConfigMap", "rlhi-environment")["data"]["MLFLOW_TRACKING_URI"].endswith(":5000")


def test_one_block_feeds_all_who_use_the_bucket() -> None:
    objects = render(ELSEWHERE["seaweedfs"])
    launcher = one(objects, "ConfigMap", "kfp-launcher")["data"]
    s3 = yaml.safe_load(launcher["providers"])["s3"]["default"]
    argo = yaml.safe_load(one(objects, "ConfigMap", "workflow-controller-configmap")["data"]["artifactRepository"])[
        "s3"
    ]
    assert launcher["defaultPipelineRoot"] == "s3://logs/runs"
    assert (s3["endpoint"], s3["disableSSL"], s3["credentials"]["secretRef"]["secretName"]) == (
        "s3.test",
        False,
        "keys",
    )
    assert (argo["endpoint"], argo["bucket"], argo["secretKeySecret"]["name"]) == ("s3.test", "logs", "keys")
    server = arguments(objects, "Deployment", "ml-pipeline")
    assert all(word in server for word in ('"s3.test"', '"443"', '"logs"', '"keys"'))
    mlflow = arguments(objects, "Deployment", "rlhi-mlflow")
    assert all(word in mlflow for word in ("https://s3.test", "s3://logs/mlflow", '"keys"'))
    assert one(objects, "ConfigMap", "rlhi-environment")["data"]["AWS_ENDPOINT_URL"] == "https://s3.test"


def test_mlflow_reaches_its_database_by_a_driver_that_its_image_has_and_no_password_in_an_argument() -> None:
    told = arguments(render(), "Deployment", "rlhi-mlflow")
    assert "--backend-store-uri=postgresql+psycopg2://mlflow@rlhi-postgresql:5432/mlflow" in told
    assert (
        '{"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "rlhi-postgresql", "key": "password"}}}' in told
    )


def test_own_identity_of_pods_takes_the_place_of_keys() -> None:
    objects = render(None, "values-eks.yaml")
    assert "AWS_SECRET_ACCESS_KEY" not in json.dumps(objects)
    launcher = yaml.safe_load(one(objects, "ConfigMap", "kfp-launcher")["data"]["providers"])
    assert launcher["s3"]["default"]["credentials"] == {"fromEnv": True}
    for name in ("pipeline-runner", "ml-pipeline", "rlhi-mlflow", "ml-pipeline-ui"):
        assert "eks.amazonaws.com/role-arn" in one(objects, "ServiceAccount", name)["metadata"]["annotations"]


def test_kubeflow_pipelines_logs_to_our_mlflow() -> None:
    config = json.loads(one(render(), "ConfigMap", "ml-pipeline-config")["data"]["config.json"])
    assert config["plugins"]["mlflow"]["endpoint"] == "http://rlhi-mlflow.ml.svc.cluster.local:5000"
    assert config["plugins"]["mlflow"]["settings"]["injectUserEnvVars"] is True


def test_kubeflow_pipelines_logs_to_an_mlflow_outside() -> None:
    objects = render({"mlflow": {"enabled": False, "url": "https://mlflow.test"}, "postgresql": {"enabled": False}})
    config = json.loads(one(objects, "ConfigMap", "ml-pipeline-config")["data"]["config.json"])
    assert config["plugins"]["mlflow"]["endpoint"] == "https://mlflow.test"


@pytest.mark.parametrize("values", [{"mlflow": {"plugin": False}}, {"mlflow": {"enabled": False}}])
def test_without_a_plugin_kubeflow_pipelines_knows_no_mlflow(values: Object) -> None:
    assert "plugins" not in json.loads(one(render(values), "ConfigMap", "ml-pipeline-config")["data"]["config.json"])


def test_secrets_are_made_at_random() -> None:
    made = [
        {each["metadata"]["name"]: each["data"] for each in render(helm=h) if each["kind"] == "Secret"} for h in HELMS
    ]
    assert set(made[0]) == {"rlhi-object-store", "rlhi-mariadb", "rlhi-postgresql"}
    values = [value for secrets in made for data in secrets.values() for value in data.values()]
    assert len(set(values)) == len(values)


def ask_cluster(helm: str, verb: str, secrets: list[Object], folder: Path, file: str = "values-small.yaml") -> str:
    """What Helm says that it would do to a cluster with ``secrets``."""
    argv = f"{verb} rlhi {CHART} --namespace ml --dry-run=server --disable-openapi-validation --values {CHART / file}"
    argv += "".join(f" --set registries.{name}={host}" for name, host in REGISTRIES.items())
    with cluster(secrets, folder) as kubeconfig:
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        done = subprocess.run([str(tools() / helm), *argv.split()], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("helm", HELMS)
def test_upgrade_keeps_secrets_and_makes_the_missing_key(helm: str, tmp_path: Path) -> None:
    before = {each["metadata"]["name"]: each for each in render(helm=helm) if each["kind"] == "Secret"}
    lost = before["rlhi-mariadb"]["data"].pop("root-password")
    objects = yaml.safe_load_all(ask_cluster(helm, "template", list(before.values()), tmp_path))
    after = {each["metadata"]["name"]: each for each in objects if each["kind"] == "Secret"}
    assert after["rlhi-mariadb"]["data"].pop("root-password") != lost
    assert {name: each["data"] for name, each in after.items()} == {name: each["data"] for name, each in before.items()}


@pytest.mark.parametrize("helm", HELMS)
def test_notes_say_what_to_type_next_and_what_to_keep(helm: str, tmp_path: Path) -> None:
    notes = ask_cluster(helm, "install", [], tmp_path).partition("NOTES:")[2]
    for words in ("helm test rlhi", "port-forward service/ml-pipeline-ui", "pipelines submit", "s3://rlhi/logs/"):
        assert words in notes
    assert "rlhi-object-store rlhi-mariadb rlhi-postgresql." in notes


def test_notes_say_what_an_own_kubeflow_pipelines_needs(tmp_path: Path) -> None:
    notes = ask_cluster("helm", "install", [], tmp_path, "values-byo-kfp.yaml").partition("NOTES:")[2]
    assert "defaultPipelineRoot: s3://example-rlhi/runs" in notes
    assert '"endpoint": "http://rlhi-mlflow.ml.svc.cluster.local:5000"' in notes


def test_secrets_stay_when_the_release_goes() -> None:
    for each in render():
        if each["kind"] in ("Secret", "CustomResourceDefinition"):
            assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_existing_secrets_are_used_and_none_made_beside_them() -> None:
    assert not [each for each in render(None, "values-gke.yaml") if each["kind"] == "Secret"]


REFUSED: list[tuple[Object, str]] = [
    ({"objectStore": {"endpoint": "https://s3.test"}}, "seaweedfs.enabled=false"),
    ({"seaweedfs": {"enabled": False}}, "objectStore.endpoint"),
    ({"seaweedfs": {"enabled": False}, "objectStore": {"endpoint": "https://s3.test"}}, "objectStore.existingSecret"),
    ({"objectStore": {"credentials": "ambient"}}, "credentials"),
    ({"mariadb": {"enabled": False}}, "kfp.database.host"),
    ({"kfp": {"database": {"host": "db"}}}, "mariadb.enabled=false"),
    ({"postgresql": {"enabled": False}}, "mlflow.database.host"),
    ({"mlflow": {"database": {"host": "db"}}}, "postgresql.enabled=false"),
    ({"mlflow": {"url": "https://mlflow.test"}}, "mlflow.enabled=false"),
    ({"objectStore": {"endpoint": "s3.test"}}, "endpoint"),
    ({"images": {"mlflow": {"digest": "latest"}}}, "digest"),
]


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(("values", "way_out"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_settings_that_do_not_go_together_are_refused(values: Object, way_out: str, helm: str) -> None:
    assert way_out in refusal(values, helm)


def test_every_object_of_the_schema_is_closed() -> None:
    def described(node: Any, path: str) -> list[str]:
        inner = [
            found
            for key, value in node.items()
            if isinstance(value, dict)
            for found in described(value, f"{path}/{key}")
        ]
        return [*inner, path] if "properties" in node and node.get("additionalProperties", True) is True else inner

    schema = json.loads((CHART / "values.schema.json").read_text())
    assert described(schema, "") == ["/properties/global"]  # Helm puts more into it where the chart is part of another


@pytest.mark.parametrize(
    "path", ["kpf", "kfp.apiserver", "mlflow.database.pass", "objectStore.key", "images.mlflow.sha"]
)
def test_unknown_key_is_refused(path: str) -> None:
    values: Any = "x"
    for key in reversed(path.split(".")):
        values = {key: values}
    assert path.rpartition(".")[2] in refusal(values)


def test_page_of_values_is_up_to_date() -> None:
    argv = [sys.executable, str(CHART.parent / "values_docs.py"), "--check"]
    assert not subprocess.run(argv, capture_output=True, text=True).stderr
