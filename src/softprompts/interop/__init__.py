"""Trained prompts in other programs: as tokens of a model, as peft's adapters, as embeddings."""
