"""What the figures of a training run warn of, each once, with the step at which it first showed.

Beyond the paper. A margin grows when the rejected answer falls faster than the chosen one, so neither margin nor
accuracy says that a model forgets how to answer, writes ever longer, or learns its pairs by heart. These do. All are
functions of rows of the history and of the pairs' lengths: the same run gives the same warnings.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, variance

# A step's figures are means over other pairs than the next one's: a quarter of the steps on either side evens that out,
# and eight are the fewest whose spread tells noise from a trend.
SHORT, LONG = 8, 64
NOISE = 3.0  # standard errors; two, where every step looks again, would soon be passed by chance
FALL = 1.0  # nats of a whole answer: what is less than e times less likely is not worth a word
HALVED = math.log(2)  # nats of one token, that which ends the answer
MANY = 50  # steps, and half of all, after which pairs that can be learned show it: the rate has long warmed up
HALF = 0.05  # 25 steps of 64 pairs know the accuracy to 0.0125, so four standard errors around one half
EXPLODED = 10.0  # sigmoid(-10) is 0.00005: nothing pulls at such a pair, it only drifts, by 10 / beta nats
RISE = 1.02  # 2%: validation pairs stay the same, so this is no noise of the draw, yet not every last digit either
LONGER = 1.2  # DPO is known to overdo lengths: a fifth more in the pairs can be twice as much in the answers
FINITE = ("loss", "grad_norm", "rewards/margins", "eval_loss")


class Watch:
    """Looks at the rows of a history of ``steps`` as they come; ``found`` maps the name of a warning to its text."""

    def __init__(self, beta: float, steps: int) -> None:
        self.found: dict[str, str] = {}
        self._beta = beta
        self._many = max(MANY, steps // 2)
        self._steps: list[Mapping[str, float]] = []
        self._evaluations: list[Mapping[str, float]] = []
        self._looks: dict[str, Callable[[Mapping[str, float]], str | None]] = {
            "warning: not finite": _not_finite,
            "warning: both fall": self._both_fall,
            "warning: ending": self._unending,
            "warning: accuracy": self._stuck,
            "warning: margins": self._exploded,
            "warning: validation": self._overfits,
        }

    def see(self, row: Mapping[str, float]) -> list[str]:
        """Takes the next row; gives the texts of the warnings that it brings."""
        if "loss" in row:
            self._steps.append(row)
        elif math.isfinite(row.get("eval_loss", math.nan)):
            self._evaluations.append(row)
        new = []
        for name, look in self._looks.items():
            if name not in self.found and (text := look(row)):
                self.found[name] = text
                new.append(text)
        return new

    def _both_fall(self, _: Mapping[str, float]) -> str | None:
        """By rewards, which are beta times what an answer gained on the reference.

        Log-probabilities themselves differ more between long and short answers, and so from batch to batch, than
        training moves them.
        """
        lost = [self._lost(f"rewards/{side}", FALL * self._beta) for side in ("chosen", "rejected")]
        if lost[0] is None or lost[1] is None:
            return None
        chosen, rejected = (each / self._beta for each in (lost[0], lost[1]))
        return (
            f"At step {self._steps[-1]['step']:.0f} the log-probabilities of both answers fall: the chosen ones lost "
            f"{chosen:.1f} nats since the first steps, the rejected {rejected:.1f}. The model moves away from both, and"
            ' the margin tells only which it leaves faster. A second term, loss_type ["sigmoid", "sft"], holds the '
            "chosen answers; a smaller learning_rate or a larger beta slows both."
        )

    def _unending(self, _: Mapping[str, float]) -> str | None:
        lost = self._lost("logps/end", HALVED)
        if lost is None:
            return None
        return (
            f"At step {self._steps[-1]['step']:.0f} the token that ends an answer is {math.exp(-lost):.2f} times as "
            "likely at the end of the chosen ones as it was: the model will write longer answers, or not end them."
        )

    def _lost(self, key: str, least: float) -> float | None:
        """How far a figure fell between the first and the last steps, if by more than noise and at ``least`` so far."""
        width = min(LONG, max(SHORT, len(self._steps) // 4))
        if len(self._steps) < 2 * width or key not in self._steps[0]:
            return None
        first, last = ([row[key] for row in rows] for rows in (self._steps[:width], self._steps[-width:]))
        lost = fmean(first) - fmean(last)
        error = math.sqrt((variance(first) + variance(last)) / width)
        return lost if lost > max(NOISE * error, least) else None

    def _stuck(self, _: Mapping[str, float]) -> str | None:
        if len(self._steps) < self._many:
            return None
        last = [row["rewards/accuracies"] for row in self._steps[-MANY // 2 :] if "rewards/accuracies" in row]
        if not last or fmean(last) > 0.5 + HALF:
            return None
        return (
            f"After {self._steps[-1]['step']:.0f} steps {100 * fmean(last):.0f}% of the pairs are ranked rightly, which"
            " is no better than chance: nothing is learned. The learning_rate may be too small, or the pairs are noise."
        )

    def _exploded(self, _: Mapping[str, float]) -> str | None:
        last = [row["rewards/margins"] for row in self._steps[-SHORT:] if "rewards/margins" in row]
        if len(last) < SHORT or not fmean(last) > EXPLODED:
            return None
        return (
            f"The margins reach {fmean(last):.1f} at step {self._steps[-1]['step']:.0f}: no pair pulls any more, and "
            f"the model drifts, {fmean(last) / self._beta:.0f} nats from the reference. Train fewer steps, or with a "
            "smaller learning_rate."
        )

    def _overfits(self, _: Mapping[str, float]) -> str | None:
        losses = [row["eval_loss"] for row in self._evaluations]
        best = min(range(len(losses)), key=losses.__getitem__, default=0)
        since = losses[best + 1 :]
        if len(since) < 2 or min(since[-2:]) <= losses[best] * RISE or not self._learned_since(self._evaluations[best]):
            return None
        return (
            f"The validation loss rises, from {losses[best]:.4f} at step {self._evaluations[best]['step']:.0f} to "
            f"{losses[-1]:.4f} at step {self._evaluations[-1]['step']:.0f}, while the training loss falls: the model "
            "learns its pairs by heart. Fewer epochs, or patience, which gives the best step's weights."
        )

    def _learned_since(self, evaluation: Mapping[str, float]) -> bool:
        """Whether the training loss after an evaluation is below that of as many steps before it."""
        losses = [(row["step"] > evaluation["step"], row["loss"]) for row in self._steps]
        after = [loss for later, loss in losses if later]
        before = [loss for later, loss in losses if not later][-len(after) :] if after else []
        return bool(after and before) and fmean(after) < fmean(before)


def best_step(history: Iterable[Mapping[str, float]]) -> float | None:
    """The step with the lowest validation loss, the first of equals; null where none was measured."""
    found = [(row["eval_loss"], row["step"]) for row in history if math.isfinite(row.get("eval_loss", math.nan))]
    return min(found)[1] if found else None


def _not_finite(row: Mapping[str, float]) -> str | None:
    broken = [name for name in FINITE if name in row and not math.isfinite(row[name])]
    return f"{broken[0]} is {row[broken[0]]} at step {row['step']:.0f}: the weights are spoilt." if broken else None


def warnings(history: Sequence[Mapping[str, float]], beta: float) -> dict[str, str]:
    """The warnings of a whole history, by name."""
    watch = Watch(beta, int(history[-1]["step"]) if history else 0)
    for row in history:
        watch.see(row)
    return watch.found


def length_warnings(chosen: Sequence[int], rejected: Sequence[int], before: float | None = None) -> dict[str, str]:
    """What the answers' lengths, in tokens and in the order of the pairs, warn of.

    ``before`` is the mean length over both answers in an earlier round's pairs, where there was one: sampled answers
    are the model's own, so that their growth from round to round is its growth.
    """
    found = {}
    ratio = sum(chosen) / sum(rejected)
    longer = sum(one > other for one, other in zip(chosen, rejected, strict=True)) / len(chosen)
    if ratio > LONGER and longer > 0.5:  # not one long answer among many
        found["warning: lengths"] = (
            f"The chosen answers are {ratio:.2f} times as long as the rejected ({fmean(chosen):.0f} and "
            f"{fmean(rejected):.0f} tokens), and longer in {100 * longer:.0f}% of the pairs: the model will learn to "
            "write more, asked or not. Compare win rates at equal length."
        )
    now = mean_length(chosen, rejected)
    if before and now > LONGER * before:
        found["warning: growth"] = (
            f"The answers in the pairs grew from {before:.0f} to {now:.0f} tokens since the round before: "
            "the model writes ever longer."
        )
    return found


def mean_length(chosen: Sequence[int], rejected: Sequence[int]) -> float:
    """Tokens of an answer, over both sides."""
    return fmean([*chosen, *rejected])
