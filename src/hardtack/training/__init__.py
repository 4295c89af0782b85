"""How weights move: the loop, the losses and the adversarial objectives."""
