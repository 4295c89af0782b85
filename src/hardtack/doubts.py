"""Doubts about an evaluation: each flag says that a number in the row may not mean what it seems to.

The paragraphs stand here, apart from the code that raises them (`evaluation.flags`), because reports explain
them too and load no model library.
"""

from collections.abc import Mapping
from types import MappingProxyType

FEW = 100  # attacked examples below which a rate is a look, not a measurement

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "few-examples": (
            f"Raised if fewer than {FEW} examples were attacked. Why: with n examples a rate of one half "
            "is uncertain by about 1 / sqrt(n), 10 points at 100; smaller samples turn chance into findings. "
            "What to do: attack more examples, or call the row a look."
        ),
        "one-class": (
            "Raised if all attacked examples have one label. Why: a model that always answers that label "
            "looks perfectly robust, and the first rows of some published sets are all of one class. What "
            "to do: draw the examples stratified by label."
        ),
        "nothing-attacked": (
            "Raised if every example was wrong before the attack. Why: success rate and queries are "
            "undefined, and accuracy under attack is 0 for a reason that has nothing to do with "
            "robustness. What to do: check that the model was trained on this task and that the label "
            "order is the same."
        ),
        "training-mode": (
            "Raised if the model was handed over in training mode. Why: dropout makes answers random and "
            "batch norm learns from the attack. The evaluation switched it off for its own forward passes, "
            "so its numbers hold; numbers taken elsewhere with the same model may not. What to do: call "
            "model.eval() after training."
        ),
        "probabilities": (
            "Raised if every output row lies in [0, 1] and sums to 1. Why: the model seems to return "
            "probabilities where logits are expected; they saturate near 0 and 1, the rounding to 1e-4 "
            "hides small changes and greedy attacks stop too early, so robustness is overstated. What to "
            "do: return the values before the softmax."
        ),
        "random-output": (
            "Raised if the same texts got different answers when asked twice in the same batches. Why: an "
            "attack that compares two answers then compares noise, and what held once need not hold again. "
            "What to do: find the random part (noise layers, sampling) and fix it, or attack the average "
            "of many answers."
        ),
        "untrained-head": (
            "Raised if the model's classification head was freshly initialised and never trained, as for a "
            "ticket applied to its raw base. Why: its answers are chance, so every rate is. What to do: "
            "retrain the ticket, then evaluate the result."
        ),
        "train-test-overlap": (
            "Raised if an evaluated text also stands in the training split (case and spacing ignored). "
            "Why: the model may know its label by heart. What to do: remove the copies from training or "
            "from the test, and state how many there were."
        ),
        "truncated": (
            "Raised if an attacked text fills the model's maximum length. Why: what stands behind it is "
            "invisible to the victim, so edits there spend queries without effect, and an edit before it "
            "can push words out of sight; both look like robustness or its lack. What to do: raise "
            "--max-length or attack shorter texts."
        ),
        "other-length": (
            "Raised if the model was trained on texts cut at another length than it is evaluated with. Why: "
            "it then sees more, or less, of a long text than it learned from, and an attack behind the cut "
            "spends queries without effect. What to do: give both the same --max-length."
        ),
        "other-split": (
            "Raised if a shifted set was read from another split than the one that was asked for, because it "
            "has no other. Why: choices belong to validation and the last number to test; a set with one "
            "split serves for one of them. What to do: say which of the two this row is."
        ),
        "text-without-tokens": (
            "Raised if a text that was asked had no token for the model, as an empty one where the tokenizer "
            "adds none of its own. Why: the model was shown a single padding token instead, so its answer "
            "says nothing about the text. What to do: see whether the attack deletes words of one-word "
            "texts; a tokenizer with start and end tokens never meets this."
        ),
        "vanishing-gradients": (
            "Raised if the gradient of the loss with respect to the input is zero for a tenth or more of the "
            "attacked examples. Why: an attack that follows gradients goes nowhere there, so what it leaves "
            "standing is hidden, not robust. What to do: look for saturated outputs, rounding or steps that "
            "cannot be differentiated, and believe the black-box attacks."
        ),
        "weaker-white-box": (
            "Raised if the largest radius of a gradient attack's sweep left more examples standing than an "
            "attack on words that sees only outputs, on the same examples. Why: it knows more and may move "
            "further than any word does; if it does less, its gradients mislead it. What to do: give it more "
            "steps and larger radii, look for masked gradients, and take the lower accuracy as the model's."
        ),
        "steps-do-not-help": (
            "Raised if a gradient attack's steps left the odds of the true class no lower than at its random "
            "start, for a tenth or more of the examples looked at. Why: steps along useful gradients lower "
            "them; these go nowhere or backwards, and what holds is hidden, not robust. What to do: lower "
            "the step size, look for masked gradients, and believe the black-box attacks."
        ),
        "radius-does-not-reach-zero": (
            "Raised if examples still held at the largest radius of a sweep of two or more. Why: within a "
            "radius as wide as the inputs themselves every prediction can be changed, so an attack that "
            "cannot is not working, or the sweep ends too early to tell. What to do: add larger radii, then "
            "more steps; then look for masked gradients."
        ),
        "test-read-again": (
            "Raised if this test split was already read with other settings. Why: choosing settings by "
            "their test result makes the best of several look better than it is. What to do: choose on the "
            "validation split, then read the test split once."
        ),
    }
)
