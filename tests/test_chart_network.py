import re

import pytest

from tests.chart import WORKLOADS, behind, container, labels, named, of_kind, port_of, server, servers
from tests.helm import HELMS, Object, needs_helm, render
from tests.policies import End, goes, matches

pytestmark = needs_helm
SERVERS = servers(policy=server(), reward=server())
INGRESS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}
RUN = End({"workflows.argoproj.io/workflow": "user-guided-rewrites-x2x9p"})
TRAINING = End({"jobset.sigs.k8s.io/jobset-name": "dpo"})
PROMETHEUS = End({"app": "prometheus"}, namespace={"kubernetes.io/metadata.name": "monitoring"})
STRANGER = End({"app": "other"}, namespace={"kubernetes.io/metadata.name": "other"})
DNS = End({"k8s-app": "kube-dns"}, namespace={"kubernetes.io/metadata.name": "kube-system"})
KUBERNETES, HUB, METADATA_SERVER = (
    End(address="10.96.0.1"),
    End(address="18.164.174.23"),
    End(address="169.254.169.254"),
)


def part(component: str) -> End:
    """The pods of a component of the release."""
    name = {"app.kubernetes.io/name": "rlhi", "app.kubernetes.io/instance": "rlhi"}
    return End({**name, "app.kubernetes.io/component": component})


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        (part("api-server"), part("mariadb"), 3306),
        (part("metadata"), part("mariadb"), 3306),
        (part("mlflow"), part("postgresql"), 5432),
        (part("mlflow"), part("seaweedfs"), 8333),
        (part("api-server"), part("mlflow"), 5000),
        (part("ui"), part("api-server"), 8888),
        (part("ui"), part("metadata-envoy"), 9090),
        (part("metadata-envoy"), part("metadata"), 8080),
        (part("persistence-agent"), part("api-server"), 8887),
        (part("scheduled-workflow"), part("api-server"), 8888),
        (part("workflow-controller"), KUBERNETES, 443),
        (part("vllm-policy"), HUB, 443),
        (RUN, part("vllm-policy"), 8000),
        (RUN, part("vllm-reward"), 8000),
        (RUN, part("seaweedfs"), 8333),
        (RUN, part("mlflow"), 5000),
        (RUN, part("metadata"), 8080),
        (RUN, part("api-server"), 8887),
        (RUN, KUBERNETES, 443),
        (RUN, HUB, 443),
        (TRAINING, part("seaweedfs"), 8333),
        (TRAINING, part("mlflow"), 5000),
        (TRAINING, TRAINING, 29500),
        (PROMETHEUS, part("vllm-policy"), 8000),
        (PROMETHEUS, part("workflow-controller"), 9090),
        (PROMETHEUS, part("seaweedfs"), 9327),
        (part("tests"), part("mlflow"), 5000),
    ],
)
@pytest.mark.parametrize("helm", HELMS)
def test_what_a_part_needs_is_let_through(helm: str, source: End, target: End, port: int) -> None:
    assert goes(render(SERVERS, helm=helm), source, target, port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        (STRANGER, part("mlflow"), 5000),
        (STRANGER, part("vllm-policy"), 8000),
        (STRANGER, part("seaweedfs"), 8333),
        (STRANGER, part("api-server"), 8888),
        (PROMETHEUS, part("mariadb"), 3306),
        (PROMETHEUS, part("mlflow"), 5000),
        (RUN, part("mariadb"), 3306),
        (RUN, part("postgresql"), 5432),
        (RUN, TRAINING, 29500),
        (part("vllm-policy"), part("mariadb"), 3306),
        (part("vllm-policy"), part("mlflow"), 5000),
        (part("vllm-policy"), KUBERNETES, 443),
        (part("vllm-policy"), METADATA_SERVER, 80),
        (part("mlflow"), HUB, 443),
        (part("mariadb"), HUB, 443),
        (End({"app": "somebody"}), part("seaweedfs"), 8333),
    ],
)
def test_what_no_part_needs_is_not_let_through(source: End, target: End, port: int) -> None:
    assert not goes(render(SERVERS), source, target, port)


@pytest.mark.parametrize("helm", HELMS)
def test_every_pod_is_shut_in_both_directions_and_can_look_up_names(helm: str) -> None:
    objects = render(SERVERS, helm=helm)
    shut = named(objects, "NetworkPolicy", "rlhi-deny")["spec"]
    assert shut == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for workload in of_kind(objects, *WORKLOADS):
        pod = End(labels(workload))
        assert goes(objects, pod, DNS, 53, "UDP")
        assert not goes(objects, STRANGER, pod, 22)


def test_every_workload_reaches_the_services_that_its_settings_name() -> None:
    objects = render(SERVERS)
    named_services = 0
    for workload in of_kind(objects, *WORKLOADS):
        for service in of_kind(objects, "Service"):
            name = service["metadata"]["name"]
            if name != workload["metadata"]["name"] and names(settings(workload), name):
                named_services += 1
                assert reaches(objects, workload, service), f"{workload['metadata']['name']} to {name}"
    assert named_services >= 6


def names(settings: str, host: str) -> bool:
    return bool(re.search(rf"(?<![-\w.]){re.escape(host)}(?![-\w])", settings))


def settings(workload: Object) -> str:
    """Every value of the container's environment and every argument."""
    only = container(workload)
    values = [one.get("value", "") for one in only.get("env", [])]
    return "\n".join([*values, *only.get("args", [])])


def reaches(objects: list[Object], workload: Object, service: Object) -> bool:
    (target,) = behind(objects, service)
    ports = [port_of(target, one["targetPort"]) for one in service["spec"]["ports"]]
    return any(port and goes(objects, End(labels(workload)), End(labels(target)), port) for port in ports)


def test_every_port_of_a_service_is_open_to_somebody() -> None:
    objects = render(SERVERS | {"networkPolicy": {"clients": {"from": [INGRESS]}}})
    rules = [
        (one["spec"]["podSelector"], rule) for one in of_kind(objects, "NetworkPolicy") for rule in into(one["spec"])
    ]
    for service in of_kind(objects, "Service"):
        (workload,) = behind(objects, service)
        for port in service["spec"]["ports"]:
            number = port_of(workload, port["targetPort"])
            assert any(
                matches(pods, labels(workload)) and number in [one["port"] for one in rule.get("ports", [])]
                for pods, rule in rules
            ), f"{service['metadata']['name']}:{port['name']}"


def into(spec: Object) -> list[Object]:
    rules: list[Object] = spec.get("ingress", [])
    return rules


@pytest.mark.parametrize("helm", HELMS)
def test_policies_can_be_off(helm: str) -> None:
    assert not of_kind(render({"networkPolicy": {"enabled": False}}, helm=helm), "NetworkPolicy")


@pytest.mark.parametrize(
    ("block", "source", "target", "port"),
    [
        ("dns", RUN, DNS, 53),
        ("kubernetes", part("workflow-controller"), KUBERNETES, 443),
        ("internet", part("vllm-policy"), HUB, 443),
        ("monitoring", PROMETHEUS, part("vllm-policy"), 8000),
    ],
)
def test_each_way_can_be_off(block: str, source: End, target: End, port: int) -> None:
    assert goes(render(SERVERS), source, target, port)
    assert not goes(render(SERVERS | {"networkPolicy": {block: {"enabled": False}}}), source, target, port)


def test_cloud_roles_and_clients_are_let_in_only_where_they_are_named() -> None:
    browser = End({}, namespace={"kubernetes.io/metadata.name": "ingress"})
    shut, opened = (
        render(SERVERS | {"networkPolicy": values})
        for values in ({}, {"clients": {"from": [INGRESS]}, "cloudIdentity": {"enabled": True}})
    )
    for source, target, port in [(browser, part("ui"), 3000), (RUN, METADATA_SERVER, 80)]:
        assert not goes(shut, source, target, port)
        assert goes(opened, source, target, port)


def test_pipelines_of_another_namespace_are_let_in_where_they_are_named() -> None:
    elsewhere = {"networkPolicy": {"pipelines": {"from": [INGRESS]}}}
    run = End({}, namespace={"kubernetes.io/metadata.name": "ingress"})
    for target, port in [("vllm-policy", 8000), ("mlflow", 5000), ("seaweedfs", 8333)]:
        assert not goes(render(SERVERS), run, part(target), port)
        assert goes(render(SERVERS | elsewhere), run, part(target), port)
    assert not goes(render(SERVERS | elsewhere), run, part("postgresql"), 5432)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        (part("api-server"), End(address="10.0.0.3"), 3306),
        (part("metadata"), End(address="10.0.0.3"), 3306),
        (part("mlflow"), End(address="10.0.0.4"), 5432),
        (part("mlflow"), HUB, 443),
        (part("api-server"), HUB, 443),
        (part("vllm-policy"), HUB, 443),
        (RUN, METADATA_SERVER, 80),
    ],
)
def test_outside_databases_and_s3_are_reached_on_gke(source: End, target: End, port: int) -> None:
    assert goes(render({}, "values-gke.yaml"), source, target, port)


def test_mlflow_elsewhere_is_reached_at_the_port_of_its_url() -> None:
    values = {"mlflow": {"enabled": False, "url": "http://mlflow.example.com:5001"}, "postgresql": {"enabled": False}}
    objects = render(values)
    assert goes(objects, RUN, HUB, 5001)
    assert goes(objects, part("api-server"), HUB, 5001)
    assert not goes(objects, part("ui"), HUB, 5001)
