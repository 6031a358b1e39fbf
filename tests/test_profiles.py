"""What a profile makes of the pods of a recipe, and what it refuses."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import needs, nodes, placing, profiles, variants
from pipelines.__main__ import main
from pipelines.recipes import NO_FILTER, USER_BASED_REWARDS, USER_GUIDED_REWRITES
from rlhi.check.config import CheckConfig
from rlhi.check.task import parser as check_parser
from rlhi.config import parse
from rlhi.errors import InputError
from rlhi.outcome.task import parser as outcome_parser
from tests.clusters import (
    EXAMPLES,
    PLAIN,
    compiled,
    container_of,
    env_of,
    pod_of,
    profile,
    secrets_of,
    tasks_of,
    written,
)

GPU = "nvidia.com/gpu"
# what each example asks for: resource of inference, of scoring and of training, a label of the nodes, a taint
ASKED: Mapping[str, tuple[str, str, str, str, str]] = {
    "aks": (f"1 {GPU}", f"1 {GPU}", f"8 {GPU}", "kubernetes.azure.com/agentpool", "sku"),
    "amd": ("1 amd.com/gpu", "1 amd.com/gpu", "8 amd.com/gpu", "feature.node.kubernetes.io/amd-gpu", "amd.com/gpu"),
    "eks-karpenter": (f"1 {GPU}", f"1 {GPU}", f"8 {GPU}", "karpenter.sh/nodepool", GPU),
    "gke": (f"1 {GPU}", f"1 {GPU}", f"8 {GPU}", "cloud.google.com/gke-accelerator", GPU),
    "mig": ("1 nvidia.com/mig-3g.40gb", "1 nvidia.com/mig-1g.10gb", f"2 {GPU}", "nvidia.com/mig.strategy", GPU),
    "onprem": (f"1 {GPU}", f"1 {GPU}", f"4 {GPU}", "nvidia.com/gpu.present", GPU),
}
TASKS = {"classify": "inference", "evaluate": "inference", "reward": "scoring", "dpo": "training"}


def accelerator_of(spec: Any, task: str) -> str | None:
    found = container_of(spec, task).get("resources", {}).get("accelerator")
    return f"{found['resourceCount']} {found['resourceType']}" if found else None


def check_pod(pod: Any, asked: profiles.StageClass) -> None:
    """A pod has all that its class asks for, but for what its container has."""
    assert pod["nodeSelector"]["labels"] == asked.node_selector
    tolerated = [(each["key"], each.get("value"), each["effect"]) for each in pod["tolerations"]]
    assert tolerated == [(each.key, each.value, each.effect) for each in asked.tolerations]
    assert all((each["operator"] == "Exists") == ("value" not in each) for each in pod["tolerations"])
    queue = {"kueue.x-k8s.io/queue-name": asked.queue} if asked.queue else {}
    meta = pod.get("podMetadata", {})
    assert (meta.get("labels", {}), meta.get("annotations", {})) == (queue, asked.annotations)
    memory, *others = pod["emptyDirMounts"]
    assert (memory["mountPath"], memory["medium"], memory["sizeLimit"]) == ("/dev/shm", "Memory", asked.shared_memory)
    disks = [("", each["sizeLimit"]) for each in others if each["mountPath"] == "/scratch"]
    disks += [(each["storageClassName"], each["size"]) for each in pod.get("genericEphemeralVolume", [])]
    assert asked.scratch is not None
    assert disks == [(asked.scratch.storage_class or "", asked.scratch.size)]
    assert asked.timeout is not None
    assert int(pod["activeDeadlineSeconds"]) == profiles.seconds(asked.timeout)


@pytest.mark.parametrize(
    "path",
    [pytest.param(each, id=each.stem, marks=pytest.mark.slow if each.stem != "gke" else ()) for each in EXAMPLES],
)
def test_pods_of_every_example_get_what_it_asks_for(path: Path, tmp_path: Path) -> None:
    found = profiles.load(path)
    spec, platform = compiled(USER_GUIDED_REWRITES, found, tmp_path)
    inference, scoring, training, label, taint = ASKED[path.stem]
    expected = {"inference": inference, "scoring": scoring, "training": training}
    for task, name in TASKS.items():
        assert accelerator_of(spec, task) == expected[name]
        check_pod(pod_of(platform, task), found.classes[name])
        assert env_of(spec, task)["HF_HOME"].startswith("/scratch")
    assert label in pod_of(platform, "classify")["nodeSelector"]["labels"]
    assert {each["key"] for each in pod_of(platform, "dpo")["tolerations"]} == {taint}
    for task in ("check", "ingest", "rip", "outcome"):
        assert accelerator_of(spec, task) is None
        assert "tolerations" not in pod_of(platform, task)
    assert all("@sha256:" in each["container"]["image"] for each in spec["deploymentSpec"]["executors"].values())
    assert platform["pipelineConfig"] == {"resourceTtlOnCompletion": 7 * 24 * 3600}


def test_every_example_is_asserted() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(ASKED)


def test_stages_stand_between_a_check_and_a_task_that_records_the_outcome(tmp_path: Path) -> None:
    spec, _ = compiled(NO_FILTER, profile(tmp_path), tmp_path)
    tasks, root = tasks_of(spec), spec["root"]["dag"]["tasks"]
    assert set(tasks) == {"check", *NO_FILTER.stages}
    assert "dependentTasks" not in tasks["check"]
    assert tasks["ingest"]["dependentTasks"] == ["check"]
    assert all(
        "ingest" in task["dependentTasks"] or len(task["dependentTasks"])
        for task in tasks.values()
        if task is not tasks["check"]
    )
    assert root["outcome"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert root["outcome"]["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


def test_argv_of_the_tasks_around_is_one_that_they_take(tmp_path: Path) -> None:
    spec, _ = compiled(NO_FILTER, profile(tmp_path), tmp_path)
    for name, parser in (("check", check_parser()), ("outcome", outcome_parser())):
        assert container_of(spec, name)["command"] == ["rlhi", name]
        parser.parse_args(container_of(spec, name)["args"])


def test_check_is_told_all_that_the_recipe_needs(tmp_path: Path) -> None:
    recipe = variants.with_model(USER_BASED_REWARDS, "org/model")
    recipe = variants.with_settings(recipe, ["reward.model.id=org/reward", "reward.model.revision=abc"])
    recipe = variants.with_settings(recipe, ["classify.engine.kind=openai"])
    gpu = {"accelerators": {GPU: 1}}
    secret = {"name": "hub", "env": {"HF_TOKEN": "token"}}
    found = profile(
        tmp_path,
        inference=gpu,
        scoring={"accelerators": {"amd.com/gpu": 1}, "autoscaled": True},
        training={"secrets": [secret]},
    )
    spec, platform = compiled(recipe, found, tmp_path)
    config = parse(
        CheckConfig,
        json.loads(tasks_of(spec)["check"]["inputs"]["parameters"]["config"]["runtimeValue"]["constant"]),
        "check",
    )
    assert config.models == ("org/model", "org/reward@abc")
    assert config.servers == {"http://localhost:8000/v1": "OPENAI_API_KEY"}
    assert config.accelerators == (GPU,)
    assert config.variables == ("HF_TOKEN",)
    # a Secret that may not be absent would keep the check from saying that it is
    assert secrets_of(pod_of(platform, "check")) == {"HF_TOKEN": ("hub", "token", True)}
    assert secrets_of(pod_of(platform, "dpo")) == {"HF_TOKEN": ("hub", "token", False)}
    assert secrets_of(pod_of(platform, "classify")) == {}


def test_retries_last_as_long_as_a_training(tmp_path: Path) -> None:
    spec, _ = compiled(NO_FILTER, profile(tmp_path, training={"retries": 7}, cpu={"retries": 0}), tmp_path)
    tasks = tasks_of(spec)
    assert tasks["dpo"]["retryPolicy"]["maxRetryCount"] == 7
    assert int(tasks["dpo"]["retryPolicy"]["backoffMaxDuration"].removesuffix("s")) > 7 * 24 * 3600
    assert "retryPolicy" not in tasks["ingest"]
    assert "retryPolicy" not in tasks["check"]
    assert spec["root"]["dag"]["tasks"]["outcome"]["retryPolicy"]["maxRetryCount"]


@pytest.mark.slow
def test_nodes_of_a_training_are_asked_for_as_its_class_is_and_its_own_pod_only_waits(tmp_path: Path) -> None:
    found = profiles.load(EXAMPLES[[path.stem for path in EXAMPLES].index("onprem")])
    recipe = nodes.placed(variants.with_settings(NO_FILTER, ["dpo.nodes=2"]), found)
    job, asked = recipe.dpo.trainjob, found.training
    assert job.resources == {"cpu": asked.cpu, "memory": asked.memory, GPU: 4}
    assert (job.node_selector, job.queue, job.service_account) == (asked.node_selector, asked.queue, "pipeline-runner")
    assert [(each.key, each.effect) for each in job.tolerations] == [(GPU, "NoSchedule")]
    assert job.secrets["AWS_ACCESS_KEY_ID"] == "rlhi-object-store/access-key"
    assert job.scratch is not None
    assert asked.scratch is not None
    assert (job.scratch.size, job.scratch.mount) == (asked.scratch.size, asked.scratch.mount)
    spec, platform = compiled(recipe, found, tmp_path)
    assert accelerator_of(spec, "dpo") is None
    assert "nodeSelector" not in pod_of(platform, "dpo")
    assert int(pod_of(platform, "dpo")["activeDeadlineSeconds"]) == profiles.seconds("7d")
    elsewhere = found.model_copy(update={"inference": found.cpu, "scoring": found.cpu})
    assert needs.of(recipe, elsewhere).accelerators == (GPU,)
    assert env_of(spec, "dpo")["RLHI_IMAGE_TRAIN"] == found.images["train"]


def test_nodes_that_are_set_by_hand_stay(tmp_path: Path) -> None:
    settings = ["dpo.nodes=2", "dpo.trainjob.queue=mine"]
    recipe = nodes.placed(variants.with_settings(NO_FILTER, settings), profile(tmp_path))
    assert (recipe.dpo.trainjob.queue, recipe.dpo.trainjob.service_account) == ("mine", None)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_window_of_every_example_is_longer_than_all_tries(path: Path) -> None:
    for asked in profiles.load(path).classes.values():
        assert asked.timeout is not None
        tries = (asked.retries + 1) * profiles.seconds(asked.timeout)
        assert int(placing.window(asked).removesuffix("s")) > tries


def test_settings_of_the_chart_become_variables_of_every_pod(tmp_path: Path) -> None:
    found = profile(tmp_path, config_maps={"rlhi-environment": ["MLFLOW_TRACKING_URI", "AWS_REGION"]})
    _, platform = compiled(NO_FILTER, found, tmp_path)
    for task in ("check", "ingest", "dpo", "outcome"):
        (given,) = pod_of(platform, task)["configMapAsEnv"]
        assert (given["configMapName"], given["optional"]) == ("rlhi-environment", True)
        keys = {each["envVar"]: each["configMapKey"] for each in given["keyToEnv"]}
        assert keys == {"MLFLOW_TRACKING_URI": "MLFLOW_TRACKING_URI", "AWS_REGION": "AWS_REGION"}


def test_every_pod_is_told_how_s3_is_to_encrypt(tmp_path: Path) -> None:
    spec, _ = compiled(NO_FILTER, profile(tmp_path, encryption={"kind": "aws:kms", "key": "arn:test"}), tmp_path)
    for task in ("check", "ingest", "dpo", "outcome"):
        env = env_of(spec, task)
        assert (env["RLHI_S3_SSE"], env["RLHI_S3_SSE_KMS_KEY_ID"]) == ("aws:kms", "arn:test")


def test_what_lies_outside_of_kfp_is_never_taken_from_its_cache(tmp_path: Path) -> None:
    spec, _ = compiled(USER_GUIDED_REWRITES, profile(tmp_path), tmp_path)
    cached = {name for name, task in tasks_of(spec).items() if task["cachingOptions"].get("enableCache")}
    assert set(tasks_of(spec)) - cached == {"check", "ingest"}
    assert not spec["root"]["dag"]["tasks"]["outcome"]["cachingOptions"].get("enableCache")


def test_replies_and_checkpoints_lie_below_the_root_and_every_pod_knows_its_run(tmp_path: Path) -> None:
    recipe = variants.with_shards(NO_FILTER, ["classify=2"])
    spec, platform = compiled(recipe, profile(tmp_path, mlflow="http://mlflow:5000"), tmp_path)
    for task in ("ingest", "classify-shard-2", "dpo"):
        env = env_of(spec, task)
        assert env["RLHI_REPLIES"] == "s3://tests/root/replies"
        assert env["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        (field,) = pod_of(platform, task)["fieldPathAsEnv"]
        assert field == {"name": "RLHI_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}
    assert env_of(spec, "dpo")["RLHI_CHECKPOINTS"] == "s3://tests/root/checkpoints"


def test_stage_can_be_of_another_class_and_a_class_of_another_image(tmp_path: Path) -> None:
    images = {**PLAIN["images"], "vllm": PLAIN["images"]["train"].replace("train", "vllm")}
    found = profile(
        tmp_path, images=images, stages={"classify": "cpu"}, inference={"image": "vllm", "accelerators": {GPU: 1}}
    )
    spec, _ = compiled(NO_FILTER, found, tmp_path)
    assert accelerator_of(spec, "classify") is None
    assert accelerator_of(spec, "persona") == f"1 {GPU}"
    tasks = ("ingest", "classify", "persona", "evaluate")
    images_of = {task: container_of(spec, task)["image"].split("@")[0] for task in tasks}
    assert images_of == {
        "ingest": "reg.example.com/cpu",
        "classify": "reg.example.com/train",
        "persona": "reg.example.com/vllm",
        "evaluate": "reg.example.com/train",  # the image with vLLM lacks what it needs
    }


def test_stage_that_asks_vllm_in_its_process_gets_that_image_by_digest(tmp_path: Path) -> None:
    images = {**PLAIN["images"], "vllm": PLAIN["images"]["train"].replace("train", "vllm")}
    recipe = variants.with_settings(NO_FILTER, ["classify.engine.kind=vllm"])
    spec, _ = compiled(recipe, profile(tmp_path, images=images), tmp_path)
    assert container_of(spec, "classify")["image"] == images["vllm"]
    assert container_of(spec, "persona")["image"] == images["train"]


@pytest.mark.parametrize(
    ("setting", "changed", "message"),
    [
        ("classify.engine.kind=vllm", {}, r"images\.vllm: is missing"),
        (
            "classify.engine.kind=vllm",
            {"inference": {"image": "train"}},
            r"inference\.image: is train, and classify asks",
        ),
        ("evaluate.judge.kind=vllm", {}, "evaluate: asks vLLM in its own process, whose image has no peft; .* openai"),
    ],
)
def test_image_without_vllm_is_refused_where_a_stage_asks_it(
    setting: str, changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        compiled(variants.with_settings(NO_FILTER, [setting]), profile(tmp_path, **changed), tmp_path)


def test_image_with_vllm_lacks_what_keeps_stages_from_it() -> None:
    locked = (Path(__file__).parents[1] / "images/vllm/requirements.lock").read_text()
    assert not [name for name in placing.WITHOUT_VLLM.values() if f"\n{name}==" in locked]


def test_rip_asks_for_a_gpu_where_it_asks_a_model(tmp_path: Path) -> None:
    found = profile(tmp_path)
    asking = replace(NO_FILTER, rip=replace(NO_FILTER.rip, check_follow_ups=True))
    assert (found.class_of(NO_FILTER, "rip"), found.class_of(asking, "rip")) == ("cpu", "inference")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gpus": 4}, "gpus: no such key"),
        ({"cpu": {"gpu": 1}}, "cpu.gpu: no such key"),
        (
            {"training": {"accelerators": {GPU: 1, "amd.com/gpu": 1}}},
            f"training.accelerators: two accelerators on one container (amd.com/gpu, {GPU})",
        ),
        ({"training": {"accelerators": {GPU: 0}}}, "greater than or equal to 1"),
        ({"root": "gs://bucket"}, "root: "),
        ({"images": {"cpu": "reg/cpu:latest"}}, "images.cpu: not by digest"),
        ({"images": {"gpu": "reg/cpu:latest"}}, "images.gpu"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "hush"}}, "AWS_SECRET_ACCESS_KEY looks like a secret"),
        ({"inference": {"env": {"HF_TOKEN": "hush"}}}, "inference.env: HF_TOKEN looks like a secret"),
        ({"stages": {"clasify": "cpu"}}, "no such stage: clasify"),
        ({"keep": "forever"}, "keep: "),
        ({"encryption": {"key": "arn:test"}}, "a key is for the kind aws:kms"),
        ({"scoring": {"retries": -1}}, "scoring.retries: "),
    ],
)
def test_profile_that_cannot_be_is_one_line(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        profiles.load(written(tmp_path, **changed))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "hush" not in str(refused.value)


def test_missing_class_and_file_that_is_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in PLAIN.items() if name != "training"}))
    with pytest.raises(InputError, match="training: is missing"):
        profiles.load(path)
    path.write_text("root: [")
    with pytest.raises(InputError, match="is no YAML"):
        profiles.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        profiles.load(tmp_path / "gone.yaml")


def test_image_that_the_profile_lacks_is_named(tmp_path: Path) -> None:
    found = profile(tmp_path, images={"cpu": PLAIN["images"]["cpu"]})
    with pytest.raises(InputError, match=r"images\.train: is missing"):
        compiled(NO_FILTER, found, tmp_path)


def test_compile_takes_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    assert main(["compile", "no-filter", "-o", str(path), "--profile", str(written(tmp_path)), "--shards", "2"]) == 0
    assert "taskFinalStatus" in path.read_text()
