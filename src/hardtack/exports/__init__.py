"""What leaves the toolkit: a model in forms that other programs run. One file a form."""
