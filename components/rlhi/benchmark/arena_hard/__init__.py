"""Arena-Hard v0.1 (Li et al. 2024, arXiv:2406.11939): two games a question against a baseline, five verdicts."""
