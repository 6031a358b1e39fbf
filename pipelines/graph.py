"""A recipe as a KFP pipeline. Branches are taken here, so the compiled pipeline holds only the stages it runs."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from pipelines.recipes import Recipe
from rlhi.analyze.component import analyze
from rlhi.classify.component import classify
from rlhi.config import as_json
from rlhi.dpo.component import dpo
from rlhi.errors import InputError
from rlhi.evaluate.component import evaluate
from rlhi.ingest.component import ingest
from rlhi.persona.component import persona
from rlhi.reconstruct.component import reconstruct
from rlhi.reward.component import reward
from rlhi.rewrite.component import rewrite
from rlhi.rip.component import rip
from rlhi.sample.component import sample


def build(recipe: Recipe) -> Any:
    """The KFP pipeline of ``recipe``.

    It takes ``source``, the URI of the raw logs, ``forget``, that of a file of user ids to leave out, and ``compare``,
    those of datasets to compare contexts with; the last two may be empty.
    """

    @dsl.pipeline(name=recipe.name, description=recipe.summary, display_name=recipe.name)  # type: ignore[untyped-decorator]
    def pipeline(source: str, forget: str = "", compare: str = "") -> None:
        conversations = _step(recipe, ingest, source=source, forget=forget)
        turns = _step(recipe, classify, conversations=conversations)
        personas = _step(recipe, persona, conversations=conversations)
        if recipe.analyze is not None:
            _step(recipe, analyze, conversations=conversations, turns=turns, personas=personas, compare=compare)
        read = conversations
        if recipe.reconstruct is not None:
            read = _step(recipe, reconstruct, conversations=conversations, turns=turns)
        answer = rewrite if recipe.rewrite is not None else sample
        candidates = _step(recipe, answer, conversations=read, turns=turns, personas=personas)
        scored = _step(recipe, reward, candidates=candidates)
        pairs = _step(recipe, rip, scored=scored)
        model = _step(recipe, dpo, pairs=pairs)
        _step(recipe, evaluate, conversations=conversations, personas=personas, model=model)

    return pipeline


def compile_to(recipe: Recipe, path: Path) -> None:
    """Writes the pipeline of ``recipe`` as KFP's YAML.

    Raises:
        InputError: the file cannot be written, or is not named .yaml.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: KFP reads pipelines from YAML; name the file {path.stem}.yaml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(build(recipe), package_path=str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


def _step(recipe: Recipe, component: Any, **inputs: Any) -> Any:
    """One task, named as its stage; gives its only output.

    Tasks get no display name: to many KFP servers that is the name by which consumers look for the task (issue 11173).
    """
    task = component(**inputs, config=as_json(recipe.stages[component.name]))
    task.set_caching_options(True)
    (output,) = task.outputs.values()
    return output
