import json
import re

import pytest

from tests.chart import behind, named, of_kind, port_of, server, servers
from tests.helm import CHART, HELMS, Object, needs_helm, render
from tests.policies import matches
from tests.vllm_metrics import SERIES

pytestmark = needs_helm
ALL = servers(policy=server(autoscaling={"enabled": True}), reward=server()) | {
    "monitoring": {
        "prometheusUrl": "http://prometheus.monitoring.svc:9090",
        "serviceMonitors": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}},
    }
}
DASHBOARD = CHART / "dashboards" / "rlhi.json"
KINDS = ("ServiceMonitor", "PrometheusRule")


def panels() -> list[Object]:
    found: list[Object] = json.loads(DASHBOARD.read_text())["panels"]
    return [one for one in found if one["type"] != "row"]


def queries() -> list[str]:
    """What the dashboard, the alerts and the autoscaler ask Prometheus for."""
    objects = render(ALL)
    rules = [rule for one in of_kind(objects, "PrometheusRule") for rule in one["spec"]["groups"][0]["rules"]]
    triggers = [one["spec"]["triggers"][0]["metadata"] for one in of_kind(objects, "ScaledObject")]
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return shown + [one["expr"] for one in rules] + [one["query"] for one in triggers]


@pytest.mark.parametrize("helm", HELMS)
def test_nothing_is_monitored_unless_asked_for(helm: str) -> None:
    objects = render(helm=helm)
    assert not of_kind(objects, *KINDS)
    others = of_kind(objects, "Service", "ConfigMap")
    assert not [one for one in others if one["metadata"]["name"].endswith(("-metrics", "-dashboard"))]


@pytest.mark.parametrize("helm", HELMS)
def test_every_part_with_metrics_is_scraped_at_a_port_that_its_pods_have(helm: str) -> None:
    objects = render(ALL, helm=helm)
    scraped = set()
    for monitor in of_kind(objects, "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        services = [one for one in of_kind(objects, "Service") if matches(monitor["spec"]["selector"], labels_of(one))]
        ports = [(one, port) for one in services for port in one["spec"]["ports"] if port["name"] == endpoint["port"]]
        assert len(ports) == 1, monitor["metadata"]["name"]
        service, port = ports[0]
        (workload,) = behind(objects, service)
        assert port_of(workload, port["targetPort"]), monitor["metadata"]["name"]
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        scraped.add(workload["metadata"]["name"])
    controllers = {"ml-pipeline", "ml-pipeline-scheduledworkflow", "workflow-controller"}
    assert scraped == controllers | {"rlhi-seaweedfs", "rlhi-vllm-policy", "rlhi-vllm-reward"}


def labels_of(one: Object) -> dict[str, str]:
    found: dict[str, str] = one["metadata"]["labels"]
    return found


def test_parts_that_are_off_are_not_scraped() -> None:
    off = {name: {"enabled": False} for name in ("kfp", "mariadb")}
    names = [
        one["metadata"]["name"] for one in of_kind(render({**ALL, "vllm": {}, **off}), "ServiceMonitor", "Service")
    ]
    assert "rlhi-seaweedfs" in names
    assert not [name for name in names if "workflow" in name or "pipeline" in name or "vllm" in name]


def test_argos_own_certificate_is_taken_as_it_is() -> None:
    (endpoint,) = named(render(ALL), "ServiceMonitor", "rlhi-workflow-controller")["spec"]["endpoints"]
    assert (endpoint["scheme"], endpoint["tlsConfig"]) == ("https", {"insecureSkipVerify": True})


@pytest.mark.parametrize("helm", HELMS)
def test_dashboard_reaches_grafana_as_it_lies_in_the_chart(helm: str) -> None:
    config = named(render(ALL, helm=helm), "ConfigMap", "rlhi-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["rlhi.json"]) == json.loads(DASHBOARD.read_text())


def test_queries_ask_for_what_vllm_exports() -> None:
    asked = {name for query in queries() for name in re.findall(r"vllm:\w+", query)}
    assert len(asked) > 8
    assert asked - SERIES == set()


def test_queries_of_servers_and_runs_keep_to_the_namespace() -> None:
    for query in queries():
        for name, chosen in re.findall(r"\b((?:vllm:|argo_|run_server_|resource_manager_)\w+)(\{namespace)?", query):
            assert chosen, f"{name} in {query}"


def test_autoscaler_counts_the_pods_of_its_own_server() -> None:
    (scaled,) = of_kind(render(ALL), "ScaledObject")
    pattern = re.findall(r'pod=~"([^"]+)"', scaled["spec"]["triggers"][0]["metadata"]["query"])[0]
    assert re.fullmatch(pattern, "rlhi-vllm-policy-6d4cf56db6-x7k2p")
    assert not re.fullmatch(pattern, "rlhi-vllm-policy-b-6d4cf56db6-x7k2p")
    assert not re.fullmatch(pattern, "rlhi-vllm-reward-6d4cf56db6-x7k2p")


def test_panels_lie_side_by_side_and_each_has_its_own_id() -> None:
    shown = json.loads(DASHBOARD.read_text())["panels"]
    assert len({one["id"] for one in shown}) == len(shown)
    places = [one["gridPos"] for one in shown]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_alerts_say_what_is_wrong_and_what_to_do() -> None:
    (rule,) = of_kind(render(ALL), "PrometheusRule")
    for alert in rule["spec"]["groups"][0]["rules"]:
        assert alert["annotations"]["summary"]
        assert "{{ $" in alert["annotations"]["description"]
