import pytest

from tests.chart import named, of_kind
from tests.helm import HELMS, Object, needs_helm, refusal, render

pytestmark = needs_helm
SPOT = {"name": "spot", "nodeLabels": {"pool": "spot"}, "quota": {"cpu": 32, "nvidia.com/gpu": "4"}}
OWNED = {
    "name": "h100",
    "nodeLabels": {"pool": "h100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "quota": {"nvidia.com/gpu": "8", "cpu": "96"},
}


def pools(**named: Object) -> Object:
    return {"kueue": {"enabled": True, "pools": named}}


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("values", [{}, {"kueue": {"pools": {"gpu": {"flavors": [OWNED]}}}}])
def test_no_queue_is_made_unless_kueue_is_on(helm: str, values: Object) -> None:
    assert not [one for one in render(values, helm=helm) if one["apiVersion"].startswith("kueue")]


@pytest.mark.parametrize("helm", HELMS)
def test_pool_is_a_queue_of_its_name_over_flavors_that_exist(helm: str) -> None:
    objects = render(pools(gpu={"flavors": [OWNED, SPOT]}, cpu={"flavors": [SPOT]}), helm=helm)
    queue = named(objects, "LocalQueue", "gpu")
    assert queue["metadata"]["namespace"] == "ml"
    cluster = named(objects, "ClusterQueue", queue["spec"]["clusterQueue"])
    (group,) = cluster["spec"]["resourceGroups"]
    flavors = [one["name"] for one in group["flavors"]]
    assert flavors == ["rlhi-gpu-h100", "rlhi-gpu-spot"]
    assert set(flavors) <= {one["metadata"]["name"] for one in of_kind(objects, "ResourceFlavor")}
    assert cluster["spec"]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "ml"}}


def test_every_flavor_gives_its_quotas_in_the_order_of_the_covered_resources() -> None:
    cluster = named(render(pools(gpu={"flavors": [OWNED, SPOT]})), "ClusterQueue", "rlhi-gpu")
    (group,) = cluster["spec"]["resourceGroups"]
    assert group["coveredResources"] == ["cpu", "nvidia.com/gpu"]
    quotas = [[(one["name"], one["nominalQuota"]) for one in flavor["resources"]] for flavor in group["flavors"]]
    assert quotas == [[("cpu", "96"), ("nvidia.com/gpu", "8")], [("cpu", "32"), ("nvidia.com/gpu", "4")]]


def test_flavor_chooses_nodes_and_tolerates_their_taint() -> None:
    spec = named(render(pools(gpu={"flavors": [OWNED]})), "ResourceFlavor", "rlhi-gpu-h100")["spec"]
    assert spec == {"nodeLabels": OWNED["nodeLabels"], "tolerations": OWNED["tolerations"]}


@pytest.mark.parametrize(("version", "key"), [("v1beta1", "cohort"), ("v1beta2", "cohortName")])
def test_cohort_is_named_as_the_version_of_kueue_names_it(version: str, key: str) -> None:
    flavor = OWNED | {"borrowingLimit": {"nvidia.com/gpu": 0}}
    values = pools(gpu={"flavors": [flavor], "cohort": "research"})
    values["kueue"]["apiVersion"] = f"kueue.x-k8s.io/{version}"
    cluster = named(render(values), "ClusterQueue", "rlhi-gpu")
    assert cluster["spec"][key] == "research"
    assert {"name": "nvidia.com/gpu", "nominalQuota": "8", "borrowingLimit": "0"} in (
        cluster["spec"]["resourceGroups"][0]["flavors"][0]["resources"]
    )


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (
            {"flavors": [OWNED, SPOT | {"quota": {"cpu": 1}}]},
            "kueue.pools.gpu.flavors.spot.quota: is of cpu; all flavors of the pool are of cpu, nvidia.com/gpu",
        ),
        ({"flavors": [OWNED | {"borrowingLimit": {"cpu": 1}}]}, "flavors.h100.borrowingLimit: needs a cohort"),
        ({"flavors": []}, "/kueue/pools/gpu/flavors"),
        ({"flavors": [OWNED | {"qouta": {}}]}, "qouta"),
        ({"flavors": [OWNED], "nodes": 3}, "nodes"),
    ],
)
def test_pool_that_kueue_would_not_take_is_refused(pool: Object, said: str) -> None:
    assert said in refusal(pools(gpu=pool))
