"""Figures of the paper, to stand beside a run's own: another model and other data, so for orientation only."""

from rlhi.records import Label, Suite

# Table 2: personalization, instruction-following, usereval; judged by o3 against ChatGPT's answers in the log
WIN_RATES = (
    ("Llama-3.1-8B-Instruct", "context-only", (38.2, 30.6, 32.5)),
    ("Llama-3.1-8B-Instruct", "persona-guided", (39.8, 29.2, 31.3)),
    ("RL, rewrites from scratch", "context-only", (52.5, 41.3, 46.3)),
    ("RL, rewrites from scratch", "persona-guided", (54.6, 40.4, 47.3)),
    ("RL, user-agnostic rewards", "context-only", (52.7, 43.3, 47.9)),
    ("RL, user-agnostic rewards", "persona-guided", (54.2, 42.8, 48.4)),
    ("RLHI, user-guided rewrites", "context-only", (54.6, 45.5, 52.0)),
    ("RLHI, user-guided rewrites", "persona-guided", (62.5, 44.5, 54.9)),
    ("RLHI, user-based rewards", "context-only", (61.0, 46.8, 51.3)),
    ("RLHI, user-based rewards", "persona-guided", (62.3, 44.7, 52.5)),
)

# Table 5: usereval on initial turns, on follow-up turns, on all; judged as in Table 2
TURN_WIN_RATES = (
    ("Llama-3.1-8B-Instruct", "context-only", (36.3, 30.9, 32.5)),
    ("Llama-3.1-8B-Instruct", "persona-guided", (33.0, 30.6, 31.3)),
    ("RL, rewrites from scratch", "context-only", (47.2, 45.9, 46.3)),
    ("RL, rewrites from scratch", "persona-guided", (46.7, 47.6, 47.3)),
    ("RL, user-agnostic rewards", "context-only", (50.6, 46.8, 47.9)),
    ("RL, user-agnostic rewards", "persona-guided", (50.6, 47.5, 48.4)),
    ("RLHI, user-guided rewrites", "context-only", (57.0, 49.9, 52.0)),
    ("RLHI, user-guided rewrites", "persona-guided", (60.3, 52.6, 54.9)),
    ("RLHI, user-based rewards", "context-only", (50.3, 51.7, 51.3)),
    ("RLHI, user-based rewards", "persona-guided", (54.7, 51.6, 52.5)),
)

# 2.2: percent of user messages of WildChat-1M, labelled by GPT-4o
LABEL_SHARES: dict[Label, float] = {
    "initial": 27.07,
    "new": 40.40,
    "re-attempt with feedback": 26.51,
    "re-attempt without feedback": 4.77,
    "positive feedback": 1.25,
}

# Table 4: accuracy in percent, the mean over 50 answers to each problem
REASONING: tuple[tuple[str, dict[Suite, float]], ...] = (
    ("Llama-3.1-8B-Instruct", {"minerva": 20.2, "olympiadbench": 14.5, "gpqa": 26.3, "mmlu-pro": 44.9}),
    ("RLHI, user-guided rewrites", {"minerva": 25.4, "olympiadbench": 18.4, "gpqa": 33.1, "mmlu-pro": 50.1}),
)

# Table 3: win rates in percent on AlpacaEval 2, raw and length-controlled, and the score on Arena-Hard, by GPT-4 Turbo
STANDARD: tuple[tuple[str, dict[str, float]], ...] = tuple(
    (name, {"alpaca-eval/length_controlled": controlled, "alpaca-eval": raw, "arena-hard": score})
    for name, controlled, raw, score in (
        ("Llama-3.1-8B-Instruct", 20.9, 21.8, 21.3),
        ("RL, rewrites from scratch", 34.7, 31.0, 50.0),
        ("RL, user-agnostic rewards", 77.0, 73.3, 64.4),
        ("RLHI, user-guided rewrites", 35.2, 38.5, 51.2),
        ("RLHI, user-based rewards", 77.9, 83.4, 64.3),
    )
)

# Fig. 3: its methods in order. What the text of 4.2 gives of it are points over Llama-3.1-8B-Instruct, on UserEval and
# on the mean of AlpacaEval's length-controlled win rate and Arena-Hard's score; SFT's are in the picture only
ABLATION = (
    "RLHI, user-guided rewrites",
    "SFT, rewrites",
    "RLHI without filter, rewrites",
    "RLHI, user-based rewards",
    "SFT, best samples",
)
GAINS: dict[str, tuple[float, float]] = {
    "RLHI, user-guided rewrites": (23.4, 17.7),
    "RLHI without filter, rewrites": (2.5, 3.3),
}

# Fig. 4: users whose pairs are trained on, in data sets of about one size; win rates are in the picture only
DIVERSITY = (1268, 10)
