"""Reports read rows, outcomes, recipes and ticket folders; never a model."""
