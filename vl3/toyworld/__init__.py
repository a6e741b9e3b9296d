"""The toy world: scenes, questions about them, and the nano that learns from them."""
