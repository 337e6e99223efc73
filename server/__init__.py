"""The coordinator: rounds, contributions, merges, versions of the model."""
