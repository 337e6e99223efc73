"""The umbrella command `collab`."""
