"""Settings of several stages that cannot be meant together: refused before the first stage runs."""

from pipelines.recipes import Recipe
from rlhi.config import EngineConfig, ModelConfig
from rlhi.engine import NOT_SERVED
from rlhi.errors import InputError
from rlhi.evaluate.config import EvaluateConfig
from rlhi.promote.config import PromoteConfig
from rlhi.records import AnswerSource
from rlhi.rip import rules

SCALES = {"persona-likelihood": "nats per token"}  # of rewards, where the kind of reward model says it already


def check(recipe: Recipe) -> None:
    """Refuses a recipe whose stages contradict themselves or each other.

    Raises:
        InputError: in one line, with the settings to change.
    """
    for config in recipe.stages.values():
        config.check()
    if recipe.trains:
        _check_learning(recipe)
    if recipe.promote is not None:
        _check_gate(recipe.promote, recipe.evaluate)


def _check_gate(gate: PromoteConfig, evaluate: EvaluateConfig) -> None:
    """What the gate goes by has to be measured, of as many users as it asks for."""
    for name, asked, measured in (("axis", gate.axis, evaluate.axes), ("mode", gate.mode, evaluate.modes)):
        if asked not in measured:
            known = ", ".join(measured)
            raise InputError(f"promote.{name}={asked}: evaluate measures {known}; add it there, or choose one of these")
    turns = evaluate.max_users if evaluate.max_turns is None else evaluate.max_turns
    if min(evaluate.max_users, turns) < gate.min_users:
        most = f"evaluate.max_users={evaluate.max_users} and evaluate.max_turns={evaluate.max_turns}"
        raise InputError(
            f"promote.min_users={gate.min_users}: {most} let no model pass; --set evaluate.max_users=100 --set"
            " evaluate.max_turns=null is the paper's"
        )


def _check_learning(recipe: Recipe) -> None:
    """What is refused of stages that a model as it is does not need."""
    rip = recipe.rip
    source: AnswerSource = "sample" if recipe.rewrite is None else "rewrite"
    rules.check({source}, SCALES.get(recipe.reward.kind, rip.scale), rip)
    _check_prompts(recipe, source)
    if "persona" in recipe.leaves_out:
        _check_userless(recipe)
    if recipe.sample is not None and recipe.sample.keep_cut and not rip.keep_cut:
        raise InputError("sample.keep_cut=true: rip leaves out the answers so kept; set rip.keep_cut=true too")
    if recipe.sample is not None and rip.check_follow_ups:
        raise InputError(f"rip.check_follow_ups=true: {recipe.name} learns from no follow-ups; leave it out")
    if recipe.sample is not None and recipe.rounds > 1:
        _check_policy(recipe.sample.engine, recipe.dpo.model)


def _check_policy(answering: EngineConfig, trained: ModelConfig) -> None:
    """In rounds, who answers is the model that is trained."""
    if answering.kind == "openai":
        raise InputError(f"sample.{NOT_SERVED}, or --rounds 1")
    for name in ("id", "revision", "persona_role"):
        ours, theirs = getattr(answering.model, name), getattr(trained, name)
        if ours != theirs:
            raise InputError(
                f"sample.engine.model.{name}={ours!r} is not dpo.model.{name}={theirs!r}: from the second round on, the"
                " model that is trained answers; make them equal"
            )


def _check_userless(recipe: Recipe) -> None:
    """Nothing may wait for personas that no stage makes."""
    for name, config in (("reward", recipe.reward), ("dpo", recipe.dpo)):
        if config.persona == "on":
            raise InputError(f"{name}.persona=on: {recipe.name} infers no personas; leave it out")


def _check_prompts(recipe: Recipe, source: AnswerSource) -> None:
    answering = recipe.sample if recipe.rewrite is None else recipe.rewrite
    most, least = None if answering is None else answering.max_prompts, recipe.rip.min_pairs
    if most is not None and least > most:
        raise InputError(
            f"rip.min_pairs={least} is above {source}.max_prompts={most}, each of which makes one pair at most; make "
            "it smaller"
        )
