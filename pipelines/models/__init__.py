"""Commands that use a model: find it by the name that a person types, ask it, serve it."""
