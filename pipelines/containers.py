"""Runs the tasks of a local run in their real images, over Docker or podman, by KFP's DockerRunner."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import Mount
from kfp import local
from kfp.local import docker_task_handler

from pipelines.adapter import Follow, Task, to_status
from rlhi.errors import InputError

PASSED_ON = ("AWS_", "HF_", "MLFLOW_", "RLHI_")  # the variables of this shell that the containers get too
CACHES = ("HF_HOME", "RLHI_CACHE")  # those of them that name folders of models


def check_images(images: Iterable[str]) -> None:
    """Finds out before anything runs whether the containers can start.

    Raises:
        InputError: no engine answers, or it has no such image.
    """
    try:
        client = docker.from_env()
        client.ping()
    except DockerException:
        address = os.environ.get("DOCKER_HOST", "its default address")
        raise InputError(
            f"no container engine answers at {address}; start Docker or podman, or set DOCKER_HOST, "
            "or use --runner process"
        ) from None
    try:
        for image in sorted(set(images)):
            client.images.get(image)
    except ImageNotFound:
        raise InputError(
            f"{image}: no such image here; build or pull it, or name another in {_variable(image)}"
        ) from None
    finally:
        client.close()


def runner(work: Path, read: Sequence[Path], env: Mapping[str, str]) -> Any:
    """KFP's runner, with ``work`` mounted to write and every path of ``read`` to read, each at its own path.

    Models are kept in ``work``, or where `CACHES` say: what one container fetched, the next finds.
    """
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    written = {work, *(Path(passed_on[name]).absolute() for name in CACHES if passed_on.get(name))}
    for path in written:
        path.mkdir(parents=True, exist_ok=True)
    mounts = [Mount(str(path), str(path), type="bind") for path in sorted(written)]
    mounts += [Mount(str(path), str(path), type="bind", read_only=True) for path in read]
    return local.DockerRunner(environment={**passed_on, **env, **_home(work)}, mounts=mounts, user=_user())


class ContainerHandler(docker_task_handler.DockerTaskHandler):  # type: ignore[misc]
    """KFP's handler of containers, with three repairs.

    It takes a container that is already gone for a success; leaves the container running after an interrupt; and puts
    the command behind the image's entry point, where a cluster puts it in its place. A container that exits with 0 but
    reported no outputs is found out by ``follow``.
    """

    def __init__(self, follow: Follow, **given: Any) -> None:
        super().__init__(**given)
        self.follow = follow

    def run(self) -> Any:
        """Runs the argv in its image."""
        return to_status(self.follow(Task.of(self.full_command), self._execute))

    def _execute(self) -> int:
        client = docker.from_env()
        try:
            container = self._start(client)
            try:
                return _followed(container)
            finally:
                with suppress(APIError):  # it is gone
                    container.remove(force=True)
        finally:
            client.close()

    def _start(self, client: Any) -> Any:
        try:
            return client.containers.run(
                self.image,
                self.full_command[1:],
                entrypoint=self.full_command[:1],
                detach=True,
                environment=self.env_vars,
                volumes=self.get_volumes_to_mount(client),
                **self.runner.container_run_args,
            )
        except APIError as error:
            raise InputError(f"{self.image}: the container does not start: {error.explanation}") from None


def _variable(image: str) -> str:
    return next((f"RLHI_IMAGE_{name.upper()}" for name in ("cpu", "vllm") if name in image), "RLHI_IMAGE_TRAIN")


def _followed(container: Any) -> int:
    """Shows what the container writes, to its end; gives its exit code, or 1 if it was removed before."""
    try:
        with closing(container.logs(stream=True, follow=True)) as written:
            for chunk in written:
                sys.stderr.write(chunk.decode(errors="replace"))
        return int(container.wait()["StatusCode"])
    except APIError as error:
        sys.stderr.write(f"error: the container is lost: {error.explanation}\n")
        return 1


def _user() -> str:
    """The caller, so that what the containers write belongs to the caller; a rootless engine's root is the caller."""
    with closing(docker.from_env()) as client:
        rootless = any("rootless" in option for option in client.info().get("SecurityOptions") or [])
    return "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"


def _home(work: Path) -> dict[str, str]:
    """A home that any user can write to, and the place of caches."""
    return {"HOME": "/tmp", "XDG_CACHE_HOME": str(work / "cache")}  # noqa: S108 - inside the container
