"""Figures of the paper, to stand beside a run's own: another model and other data, so for orientation only."""

from rlhi.records import Label

# Table 2: personalization, instruction-following, usereval; judged by o3 against ChatGPT's answers in the log
WIN_RATES = (
    ("Llama-3.1-8B-Instruct", "context-only", (38.2, 30.6, 32.5)),
    ("Llama-3.1-8B-Instruct", "persona-guided", (39.8, 29.2, 31.3)),
    ("RLHI, user-guided rewrites", "context-only", (54.6, 45.5, 52.0)),
    ("RLHI, user-guided rewrites", "persona-guided", (62.5, 44.5, 54.9)),
    ("RLHI, user-based rewards", "context-only", (61.0, 46.8, 51.3)),
    ("RLHI, user-based rewards", "persona-guided", (62.3, 44.7, 52.5)),
)

# 2.2: percent of user messages of WildChat-1M, labelled by GPT-4o
LABEL_SHARES: dict[Label, float] = {
    "initial": 27.07,
    "new": 40.40,
    "re-attempt with feedback": 26.51,
    "re-attempt without feedback": 4.77,
    "positive feedback": 1.25,
}
