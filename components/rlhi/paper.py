"""Figures of the paper, to stand beside a run's own: another model and other data, so for orientation only."""

# Table 2: personalization, instruction-following, usereval; judged by o3 against ChatGPT's answers in the log
WIN_RATES = (
    ("Llama-3.1-8B-Instruct", "context-only", (38.2, 30.6, 32.5)),
    ("Llama-3.1-8B-Instruct", "persona-guided", (39.8, 29.2, 31.3)),
    ("RLHI, user-guided rewrites", "context-only", (54.6, 45.5, 52.0)),
    ("RLHI, user-guided rewrites", "persona-guided", (62.5, 44.5, 54.9)),
    ("RLHI, user-based rewards", "context-only", (61.0, 46.8, 51.3)),
    ("RLHI, user-based rewards", "persona-guided", (62.3, 44.7, 52.5)),
)

# 2.2: user messages of WildChat-1M, labelled by GPT-4o
LABEL_SHARES: dict[str, float] = {
    "initial": 0.2707,
    "new": 0.4040,
    "re-attempt with feedback": 0.2651,
    "re-attempt without feedback": 0.0477,
    "positive feedback": 0.0125,
}
