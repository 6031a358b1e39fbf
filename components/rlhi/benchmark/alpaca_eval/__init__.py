"""AlpacaEval 2 (Li et al. 2023; Dubois et al. 2024): a judge's preferences for a model's answers over a baseline's."""
