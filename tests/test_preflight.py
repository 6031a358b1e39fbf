"""What is found to be missing before anything is created, and what is said where it cannot be asked."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines import preflight, registry
from pipelines.__main__ import main
from tests.answers import Answers
from tests.fake_kfp import FakeKfp
from tests.submissions import DIGEST, Place, at_no_cluster, refused


@pytest.fixture(autouse=True)
def _at_no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    at_no_cluster(monkeypatch, tmp_path)


def test_bucket_that_is_not_there_is_refused(kfp: FakeKfp, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(place.argv(kfp, root="s3://no-such-bucket/rlhi"), kfp, capsys)
    assert "s3://no-such-bucket/rlhi: no bucket no-such-bucket is there; make it" in line


def test_image_that_is_not_pushed_is_refused(
    kfp: FakeKfp, place: Place, images: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    images.say("/v2/train/.*", 404)
    assert f"/train@{DIGEST}: is not pushed; push it" in refused(place.argv(kfp), kfp, capsys)


def test_placeholder_of_the_examples_is_refused(kfp: FakeKfp, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    given = {**place.images, "train": f"reg.example.com/train@sha256:{'0' * 64}"}
    assert "is the example's placeholder" in refused(place.argv(kfp, images=given), kfp, capsys)


@pytest.mark.slow
def test_registry_that_cannot_be_asked_is_said_and_stops_nothing(
    kfp: FakeKfp, place: Place, images: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    images.say("/v2/cpu/.*", 403)
    given = {**place.images, "train": f"127.0.0.1:9/train@{DIGEST}"}
    assert main(place.argv(kfp, images=given)) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not checked: image")]
    assert [
        bool(re.search(name, line)) for name, line in zip(("answers 403", "cannot be asked"), said, strict=True)
    ] == [True, True]


def test_registry_that_wants_a_token_is_asked_with_one(images: Answers) -> None:
    images.say("/token", 200, {"token": "t0k"})
    challenge = f'Bearer realm="http://{images.address}/token",service="reg",scope="repository:cpu:pull"'
    images.guard("/v2/cpu/.*", "Bearer t0k", challenge)
    registry.check(f"{images.address}/cpu@{DIGEST}")
    assert any(each.startswith("GET /token?service=reg&scope=repository") for each in images.asked)


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("python@sha256:aa", f"https://{registry.HUB}/v2/library/python/manifests/sha256:aa"),
        ("me/app:1@sha256:aa", f"https://{registry.HUB}/v2/me/app/manifests/sha256:aa"),
        ("registry.example.com/a/b/c@sha256:aa", "https://registry.example.com/v2/a/b/c/manifests/sha256:aa"),
        ("localhost:5000/c@sha256:aa", "http://localhost:5000/v2/c/manifests/sha256:aa"),
    ],
)
def test_image_names_are_read_as_docker_reads_them(reference: str, url: str) -> None:
    assert registry.Image.parse(reference).url == url


SECRET = {"name": "rlhi-object-store", "env": {"AWS_ACCESS_KEY_ID": "access-key"}}
SECRETS = "/api/v1/namespaces/kubeflow/secrets/rlhi-object-store"


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, {}, "Secret rlhi-object-store: not in namespace kubeflow"),
        (200, {"data": {"other": "eA=="}}, "Secret rlhi-object-store: has no key access-key"),
    ],
)
def test_secret_or_key_that_is_not_there_is_refused(
    status: int,
    body: dict[str, Any],
    message: str,
    kfp: FakeKfp,
    place: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Answers() as cluster:
        cluster.say(SECRETS, status, body)
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(place.folder)))
        assert message in refused(place.argv(kfp, secrets=[SECRET]), kfp, capsys)


@pytest.mark.slow
def test_secrets_that_may_not_be_looked_at_are_said_and_stop_nothing(
    kfp: FakeKfp, place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(place.argv(kfp, secrets=[SECRET])) == 0
    assert "not checked: Secret rlhi-object-store: no cluster is known here" in capsys.readouterr().err
    with Answers() as cluster:
        cluster.say(SECRETS, 403, {"message": "forbidden"})
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(place.folder)))
        assert main(place.argv(kfp, secrets=[SECRET])) == 0
        assert "does not show it (403)" in capsys.readouterr().err
        cluster.say(SECRETS, 200, {"data": {"access-key": "eA=="}})
        assert main(place.argv(kfp, secrets=[SECRET])) == 0
        assert "not checked" not in capsys.readouterr().err


@pytest.mark.slow
def test_bucket_cannot_be_asked_without_credentials(
    kfp: FakeKfp, place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert main(place.argv(kfp)) == 0
    assert "no AWS_* credentials here" in capsys.readouterr().err


@pytest.mark.slow
def test_s3_server_of_the_profile_is_asked_where_this_machine_names_none(
    place: Place, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with preflight._as_pods_see_it({"AWS_ENDPOINT_URL": s3, "HF_HOME": "/x"}):
        preflight._bucket(place.root)
        assert "HF_HOME" not in os.environ or os.environ["HF_HOME"] != "/x"
    assert "AWS_ENDPOINT_URL" not in os.environ


def test_s3_whose_address_only_the_cluster_knows_is_not_looked_for_at_amazon(
    kfp: FakeKfp, place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert main(place.argv(kfp, config_maps={"rlhi-environment": ["AWS_ENDPOINT_URL"]})) == 0
    assert "set AWS_ENDPOINT_URL here too" in capsys.readouterr().err
