"""Score adapters: what changes a model's scores as they are served, without training it again, a paper each."""
