"""`demo`: placeholder until the demo lands."""
def demo(**kw): raise SystemExit
