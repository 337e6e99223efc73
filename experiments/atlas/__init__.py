"""The bundled model `atlas`: its world of facts, its training, its bundle."""
