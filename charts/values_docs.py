"""Writes charts/rlhi/README.md out of the comments in values.yaml and the types in values.schema.json.

    python charts/values_docs.py [--check]

A row for each value: its key, its type, its default, and the comment above it. With ``--check`` nothing is written, and
the exit code is 1 where the page is out of date.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "rlhi"
VALUES = (CHART / "values.yaml").read_text()
LINES = VALUES.splitlines()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
WHOLE = {"resources", "labels"}  # shown as one value, not by what is in them
HEAD = """\
# rlhi

The cluster that the pipelines run on: Kubeflow Pipelines, MLflow, S3, their databases, vLLM servers, queues of Kueue,
metrics and network policies. Each part is on or off; a database, a bucket or an MLflow that is there already takes the
place of ours.

```bash
helm install rlhi charts/rlhi --namespace rlhi --create-namespace --values charts/rlhi/values-small.yaml \\
    --set registries.github=HOST --set registries.quay=HOST --set registries.google=HOST
helm test rlhi --namespace rlhi --logs
```

| file | for |
|---|---|
"""
NAMES = """
Names that others rely on: the service account `pipeline-runner`, the Secret `rlhi-object-store` (`access-key`,
`secret-key`) unless `objectStore.existingSecret` names another, and the ConfigMap `rlhi-environment`
(`MLFLOW_TRACKING_URI`, `AWS_ENDPOINT_URL`, `AWS_REGION`, `RLHI_S3_SSE`, `RLHI_BUCKET`). Kubeflow Pipelines keeps its
own names, so a namespace holds one.

Passwords and keys are made once, found again by `helm upgrade`, and stay when the release is uninstalled, like the
disks. Where the chart is rendered without a cluster, name Secrets of your own (`existingSecret`): it would make new
ones each time.

## Values

This page is made of `values.yaml` by `python charts/values_docs.py`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_files(), NAMES]
    for key, node in yaml.compose(VALUES).value:  # type: ignore[union-attr]
        parts.append(f"\n### {key.value}\n\n{_comment(key)}\n\n| key | type | default | |\n|---|---|---|---|\n")
        parts += _rows(key.value, node, _schema(SCHEMA, key.value))
    return "".join(parts)


def _files() -> Iterator[str]:
    for path in sorted(CHART.glob("values-*.yaml")):
        yield f"| `{path.name}` | {path.read_text().splitlines()[0].removeprefix('# ').rstrip('.:')} |\n"


def _rows(path: str, node: yaml.Node, schema: Any) -> Iterator[str]:
    """Rows of all that is in ``node``; of itself where it is a single value."""
    if not isinstance(node, yaml.MappingNode) or not node.value:
        yield _row(path, node, schema, "")
        return
    for key, value in node.value:
        inner, note = f"{path}.{key.value}", _comment(key)
        if _holds_settings(key.value, value):
            yield from [f"| `{inner}` | | | {note} |\n"] * bool(note)
            yield from _rows(inner, value, _schema(schema, key.value))
        else:
            yield _row(inner, value, _schema(schema, key.value), note)


def _holds_settings(key: str, node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode) and bool(node.value) and key not in WHOLE and not node.flow_style


def _row(path: str, node: yaml.Node, schema: Any, note: str) -> str:
    default = json.dumps(yaml.safe_load(yaml.serialize(node)), ensure_ascii=False)
    return f"| `{path}` | {_type(schema)} | `{default}` | {note} |\n"


def _type(schema: Any) -> str:
    """What a value may be: a type, or one of some words."""
    if "enum" in schema:
        return " or ".join(f"`{word}`" for word in schema["enum"])
    kind = schema.get("type", "")
    return kind if isinstance(kind, str) else " or ".join(kind)


def _schema(schema: Any, key: str) -> Any:
    """What ``schema`` says of a key; ``{}`` where that is nothing."""
    inner = schema.get("properties", {}).get(key) or schema.get("additionalProperties") or {}
    while "$ref" in inner:
        inner = SCHEMA["definitions"][inner["$ref"].rpartition("/")[2]]
    return inner


def _comment(key: yaml.Node) -> str:
    """The comment right above a key, as one line; examples, which are indented, are left to values.yaml."""
    first = key.start_mark.line
    while first and LINES[first - 1].strip().startswith("#"):
        first -= 1
    said = [line.strip().removeprefix("# ") for line in LINES[first : key.start_mark.line]]
    return " ".join(line for line in said if not line.startswith(" ")).replace("|", "\\|")


def main() -> int:
    """Writes the page, or tells whether it is up to date."""
    target = CHART / "README.md"
    if "--check" not in sys.argv[1:]:
        target.write_text(page())
    elif not target.exists() or target.read_text() != page():
        sys.stderr.write(f"{target} is out of date: run python {sys.argv[0]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
