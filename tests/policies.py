"""What network policies let through, for the tests of the chart: the rules of Kubernetes over rendered objects."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from tests.helm import Object

Labels = dict[str, str]


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod of this namespace or, where it has labels, of another one; or an address."""

    pod: Labels = field(default_factory=dict)
    namespace: Labels | None = None
    address: str | None = None

    @property
    def here(self) -> bool:
        return self.namespace is None and self.address is None


def goes(objects: Iterable[Object], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is let out at one end and in at the other."""
    policies = [one["spec"] for one in objects if one["kind"] == "NetworkPolicy"]
    out = _lets(policies, "Egress", source, target, (port, protocol))
    return out and _lets(policies, "Ingress", target, source, (port, protocol))


def _lets(policies: list[Object], way: str, own: End, other: End, port: tuple[int, str]) -> bool:
    if not own.here:
        return True
    about = [one for one in policies if way in one["policyTypes"] and matches(one["podSelector"], own.pod)]
    rules = [rule for one in about for rule in one.get(way.lower(), [])]
    return not about or any(_rule(rule, "to" if way == "Egress" else "from", other, port) for rule in rules)


def _rule(rule: Object, key: str, other: End, port: tuple[int, str]) -> bool:
    ports = rule.get("ports")
    right = ports is None or any((one["port"], one["protocol"]) == port for one in ports)
    return right and (key not in rule or any(_peer(one, other) for one in rule[key]))


def _peer(peer: Object, other: End) -> bool:
    if "ipBlock" in peer:
        return other.address is not None and _within(peer["ipBlock"], other.address)
    if other.address is not None:
        return False
    if "namespaceSelector" in peer:
        place = other.namespace is not None and matches(peer["namespaceSelector"], other.namespace)
    else:
        place = other.namespace is None
    return place and matches(peer.get("podSelector", {}), other.pod)


def _within(block: Object, address: str) -> bool:
    inside = ip_address(address) in ip_network(block["cidr"])
    return inside and not any(ip_address(address) in ip_network(one) for one in block.get("except", []))


def matches(selector: Object, labels: Labels) -> bool:
    """Whether a selector of labels takes these; of the operators, In and Exists are known."""
    fits = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return fits and all(_expression(one, labels) for one in selector.get("matchExpressions", []))


def _expression(one: Object, labels: Labels) -> bool:
    if one["operator"] == "Exists":
        return one["key"] in labels
    assert one["operator"] == "In", f"{one['operator']}: not known here"
    return labels.get(one["key"]) in one["values"]
