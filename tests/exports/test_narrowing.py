import numpy as np
import onnx_ir as ir
import pytest
from onnxruntime import InferenceSession

from hardtack.exports.narrowing import narrow_

BATCH, LENGTH, WIDTH = 3, 5, 4


def graph_of(*nodes, reads=1, index=0):
    """A model over x [batch, length, 4] that ends by taking one position of the last node's output."""
    rng = np.random.default_rng(0)
    consts = {
        "matrix": rng.normal(size=(WIDTH, WIDTH)),
        "bias": rng.normal(size=WIDTH),
        "scale": rng.normal(size=WIDTH),
    }
    consts = {name: ir.tensor(value.astype(np.float32), name=name) for name, value in consts.items()}
    values = {
        name: ir.Value(name=name, shape=ir.Shape(t.shape), type=ir.TensorType(t.dtype), const_value=t)
        for name, t in {**consts, "index": ir.tensor(np.int64(index), name="index")}.items()
    }
    x = ir.Value(name="x", shape=ir.Shape(["batch", "length", WIDTH]), type=ir.TensorType(ir.DataType.FLOAT))
    inputs = {"x": x, **values}
    made = []
    for name, kind, given, attributes in (("begin", "Identity", ["x"], {}), *nodes):
        made.append(ir.node(kind, [inputs[one] for one in given], attributes))
        made[-1].outputs[0].name = name
        made[-1].outputs[0].shape = ir.Shape(["batch", "length", WIDTH])
        made[-1].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        inputs[name] = made[-1].outputs[0]
    made.append(ir.node("Gather", [made[-1].outputs[0], values["index"]], {"axis": reads}))
    made[-1].outputs[0].name = "out"
    made[-1].outputs[0].shape = ir.Shape(["batch", WIDTH] if reads == 1 else ["batch", "length"])
    made[-1].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    made.append(ir.node("Identity", [made[-1].outputs[0]]))
    made[-1].outputs[0].name = "y"
    made[-1].outputs[0].shape = made[-2].outputs[0].shape
    made[-1].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [x], [made[-1].outputs[0]], nodes=made, initializers=values.values(), opset_imports={"": 20}
    )
    return ir.Model(graph, ir_version=10)


def run(model):
    x = np.random.default_rng(1).normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    data = ir.serde.serialize_model(model).SerializeToString()
    return InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def kinds(model):
    return [node.op_type for node in model.graph]


MATMUL = ("a", "MatMul", ["begin", "matrix"], {})
PLUS = ("b", "Add", ["a", "bias"], {})
NORM = ("c", "LayerNormalization", ["b", "scale", "bias"], {"axis": -1})


@pytest.mark.parametrize("index", [0, 3])
def test_taking_a_token_moves_before_what_treats_tokens_one_by_one(index):
    model = graph_of(MATMUL, PLUS, NORM, ("d", "Gelu", ["c"], {}), index=index)
    before = run(model)
    assert narrow_(model.graph) == 4
    assert kinds(model) == ["Identity", "Gather", "MatMul", "Add", "LayerNormalization", "Gelu", "Identity"]
    assert np.allclose(run(model), before, atol=1e-6)
    assert [len(node.outputs[0].shape) for node in model.graph] == [3, 2, 2, 2, 2, 2, 2]


def test_a_residual_is_taken_once_and_what_others_read_stays_whole():
    model = graph_of(
        MATMUL,
        ("sum", "Add", ["a", "begin"], {}),
        ("c", "LayerNormalization", ["sum", "scale"], {"axis": -1}),
    )
    before = run(model)
    assert narrow_(model.graph) == 3
    assert kinds(model) == ["Identity", "Gather", "MatMul", "Add", "LayerNormalization", "Identity"]
    assert np.allclose(run(model), before, atol=1e-6)


def test_it_stops_where_tokens_meet():
    model = graph_of(MATMUL, ("mixed", "Softmax", ["a"], {"axis": 1}), ("e", "Gelu", ["mixed"], {}))
    before = run(model)
    assert narrow_(model.graph) == 1
    assert kinds(model) == ["Identity", "MatMul", "Softmax", "Gather", "Gelu", "Identity"]
    assert np.allclose(run(model), before, atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        (("a", "Softmax", ["begin"], {"axis": 1}),),
        (MATMUL, ("c", "LayerNormalization", ["a", "scale"], {"axis": 2})),
    ],
    ids=["tokens meet at once", "a norm that counts axes from the front"],
)
def test_where_nothing_can_move_nothing_changes(nodes):
    model = graph_of(*nodes)
    before = kinds(model)
    assert narrow_(model.graph) == 0
    assert kinds(model) == before


def test_another_axis_is_left_alone():
    model = graph_of(MATMUL, PLUS, reads=2)
    before = kinds(model)
    assert narrow_(model.graph) == 0
    assert kinds(model) == before
