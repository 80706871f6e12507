"""Score adapters: change a model's scores as they are served, without retraining; one module for each paper."""
