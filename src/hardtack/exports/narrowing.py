"""Leaves out of a graph what is computed for tokens that nobody reads."""

from typing import Any

_ALIKE = frozenset("Add Cast Div Dropout Erf Gelu Identity Mul Pow Relu Sigmoid Sqrt Sub Tanh".split())


def narrow_(graph: Any) -> int:
    """Compute what only one token is read from for that token alone; return how many nodes that concerns.

    A classifier that reads the first token throws away what the last layer computed for all others behind its
    attention: three quarters of the work of that layer. Where a graph takes one position of [batch, length,
    width], taking it moves up before everything that treats tokens one by one and is read nowhere else:
    products with a matrix, norms over the width, operations on single numbers. Logits change by rounding
    alone.

    Args:
        graph: an `onnx_ir.Graph` with shapes.
    """
    return sum(_moved_up_(graph, node) for node in list(graph) if _takes_one_token(node))


def _takes_one_token(node: Any) -> bool:
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 1:
        return False
    return (
        _rank(node.inputs[0]) == 3 and _rank(node.inputs[1]) == 0 and node.inputs[1].const_value is not None
    )


def _moved_up_(graph: Any, taking: Any) -> int:
    from onnx_ir import Node

    index, readers = taking.inputs[1], {taking}
    for node in reversed(list(graph)):  # readers before what they read
        if _token_by_token(node) and not node.outputs[0].is_graph_output():
            uses = node.outputs[0].uses()
            if uses and all(use.node in readers for use in uses):
                readers.add(node)
    readers.remove(taking)
    if not readers:
        return 0
    taken: dict[Any, Any] = {}
    for node in readers:
        for place, value in enumerate(node.inputs):
            if value is None or _rank(value) != 3 or value.producer() in readers:
                continue
            if value not in taken:
                one = Node("", "Gather", [value, index], taking.attributes.values())
                one.outputs[0].dtype, one.outputs[0].shape = value.dtype, _without_length(value.shape)
                graph.insert_after(value.producer(), one)
                taken[value] = one.outputs[0]
            node.replace_input_with(place, taken[value])
    for node in readers:
        node.outputs[0].shape = _without_length(node.outputs[0].shape)
    for use in list(taking.outputs[0].uses()):
        use.node.replace_input_with(use.idx, taking.inputs[0])
    graph.remove(taking, safe=True)
    return len(readers)


def _token_by_token(node: Any) -> bool:
    """Say whether a node computes [batch, length, width] so that no token's numbers depend on another's."""
    if len(node.outputs) != 1 or _rank(node.outputs[0]) != 3 or node.domain:
        return False
    first, *others = node.inputs
    if node.op_type == "MatMul":
        return _has_tokens(first, node) and _rank(others[0]) == 2
    if node.op_type == "LayerNormalization":  # counted from the end, the width stays where it is
        narrow = all(other is None or _rank(other) == 1 for other in others)
        return _has_tokens(first, node) and narrow and node.attributes.get_int("axis", -1) == -1
    given = [value for value in node.inputs if value is not None]
    return node.op_type in _ALIKE and all(
        _has_tokens(value, node) or _rank(value) in (0, 1) for value in given
    )


def _has_tokens(value: Any, node: Any) -> bool:
    """Say whether an input has the batch and length of the node's output, and a node that makes it."""
    if _rank(value) != 3 or value.producer() is None:
        return False
    return list(value.shape)[:2] == list(node.outputs[0].shape)[:2]


def _rank(value: Any) -> int | None:
    return None if value.shape is None else len(value.shape)


def _without_length(shape: Any) -> Any:
    return type(shape)([shape[0], shape[2]])
