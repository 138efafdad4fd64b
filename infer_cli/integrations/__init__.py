"""Other programs' evaluations, computed by a model in their own process. Each needs its extra installed."""
