from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from offchain.errors import InvalidInputError
from offchain.inference.execution import run_float
from offchain.inference.onnx_model import input_shape, load_model
from offchain.inference.splitting import choose_cuts, find_cuts, split, total_cost
from tests.models import Floats, cnn, mlp, model_of, residual, tiny_mlp

pytestmark = pytest.mark.unit

TOLERANCE = 1e-5


def samples_for(content: bytes, seed: int = 0) -> Floats:
    shape = input_shape(load_model(content))[1:]
    return np.random.default_rng(seed).standard_normal((4, *shape)).astype(np.float32)


def run_in_order(segments: tuple[bytes, ...], inputs: Floats) -> Floats:
    for segment in segments:
        inputs = run_float(segment, inputs)
    return inputs


def assert_same_function(content: bytes, cuts: tuple[str, ...]) -> None:
    segments = split(load_model(content), cuts)
    assert len(segments) == len(cuts) + 1
    inputs = samples_for(content)
    np.testing.assert_allclose(run_in_order(segments, inputs), run_float(content, inputs), rtol=0, atol=TOLERANCE)


def refusal_of_cuts(content: bytes, *cuts: str) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        split(load_model(content), cuts)
    return caught.value


models = st.one_of(
    st.builds(mlp, st.lists(st.integers(1, 9), min_size=3, max_size=6), st.integers(0, 2**32 - 1)),
    st.builds(
        cnn,
        st.lists(st.integers(1, 4), min_size=2, max_size=4),
        st.integers(3, 9),
        st.integers(1, 5),
        st.integers(0, 2**32 - 1),
    ),
    st.builds(residual, st.integers(1, 8), st.integers(0, 2**32 - 1)),
)


@settings(max_examples=60, deadline=None)
@given(content=models, data=st.data())
def test_split__any_choice_of_cuts__computes_the_same(content: bytes, data: st.DataObject) -> None:
    names = [cut.name for cut in find_cuts(load_model(content))]
    chosen = data.draw(st.sets(st.sampled_from(names)))
    assert_same_function(content, tuple(name for name in names if name in chosen))


@settings(max_examples=30, deadline=None)
@given(content=models, segments=st.integers(1, 3))
def test_choose_cuts__any_number__computes_the_same(content: bytes, segments: int) -> None:
    model = load_model(content)
    layers = 1 + sum(cut.ends_layer for cut in find_cuts(model))
    cuts = choose_cuts(model, min(segments, layers))
    assert len(cuts) == min(segments, layers) - 1
    assert_same_function(content, cuts)


def test_find_cuts__mlp__lists_every_inner_tensor() -> None:
    cuts = find_cuts(load_model(tiny_mlp(0)))
    assert [(cut.name, cut.shape, cut.elements, cut.ends_layer) for cut in cuts] == [
        ("linear0", (1, 6), 6, False),
        ("relu0", (1, 6), 6, True),
    ]
    assert 0 < cuts[0].cost_before < cuts[1].cost_before < total_cost(load_model(tiny_mlp(0)))


def test_find_cuts__residual__leaves_out_what_is_bypassed() -> None:
    assert [cut.name for cut in find_cuts(load_model(residual(4, 0)))] == ["first", "h", "sum"]


def test_find_cuts__input_used_twice__has_no_cut_below_the_join() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Add", ["x", "a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    model = load_model(model_of(nodes, {}, [1, 3], [1, 3]).SerializeToString())
    assert [cut.name for cut in find_cuts(model)] == ["b"]


def test_choose_cuts__activations__stay_with_their_layer() -> None:
    assert choose_cuts(load_model(mlp((4, 6, 6, 3), 0)), 3) == ("relu0", "relu1")
    assert choose_cuts(load_model(cnn((1, 2, 2), 8, 3, 0)), 3) == ("relu0", "flat")


@pytest.mark.parametrize("segments", [2, 3, 4])
def test_choose_cuts__uneven_layers__is_within_a_tenth_of_the_best(segments: int) -> None:
    model = load_model(mlp((30, 16, 64, 8, 40, 5, 5), 0))
    cuts = [cut for cut in find_cuts(model) if cut.ends_layer]

    def dearest(chosen: tuple[int, ...]) -> int:
        costs = [0, *chosen, total_cost(model)]
        return max(after - before for before, after in itertools.pairwise(costs))

    best = min(dearest(choice) for choice in itertools.combinations([cut.cost_before for cut in cuts], segments - 1))
    chosen = choose_cuts(model, segments)
    assert dearest(tuple(cut.cost_before for cut in cuts if cut.name in chosen)) <= 1.1 * best


def test_choose_cuts__nearly_equal_balance__takes_the_smaller_boundary() -> None:
    # Behind the first layer (6 elements) the balance is best; behind the second (1 element) it is 4 % worse.
    assert choose_cuts(load_model(mlp((100, 6, 1, 25), 0)), 2) == ("relu1",)


@pytest.mark.parametrize("segments", [0, -1, 3])
def test_choose_cuts__impossible_number__lists_the_cuts(segments: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        choose_cuts(load_model(tiny_mlp(0)), segments)
    assert caught.value.field == "segments"
    assert "1 to 2 segments" in caught.value.mend
    assert "linear0, relu0" in caught.value.mend


def test_split__cut_that_is_bypassed__names_the_residual_connection() -> None:
    error = refusal_of_cuts(residual(4, 0), "h", "inner")
    assert error.field == "cuts[1]"
    assert "also carries 'h'" in error.problem
    assert "first, h, sum" in error.mend
    assert "fewer segments" in error.mend


@pytest.mark.parametrize(
    ("cuts", "field", "problem"),
    [
        (("nowhere",), "cuts[0]", "'nowhere' is not a tensor"),
        (("weight0",), "cuts[0]", "'weight0' is not a tensor"),
        (("x",), "cuts[0]", "own input or output"),
        (("relu0", "y"), "cuts[1]", "own input or output"),
        (("relu0", "linear0"), "cuts", "out of order"),
        (("relu0", "relu0"), "cuts", "repeat"),
    ],
)
def test_split__bad_cuts__are_named(cuts: tuple[str, ...], field: str, problem: str) -> None:
    error = refusal_of_cuts(tiny_mlp(0), *cuts)
    assert error.field == field
    assert problem in error.problem


def test_split__segments__are_models_with_canonical_names() -> None:
    for segment in split(load_model(residual(4, 0)), ("h", "sum")):
        model = load_model(segment)
        assert (model.graph.input[0].name, model.graph.output[0].name) == ("input", "output")


def test_split__exporter_names__do_not_reach_the_bytes() -> None:
    plain = load_model(tiny_mlp(3))
    renamed = onnx.load_from_string(tiny_mlp(3))
    renamed.producer_name, renamed.doc_string, renamed.graph.name = "somebody", "a note", "a graph"
    for node in renamed.graph.node:
        node.name = f"/odd/{node.op_type}"
        for names in (node.input, node.output):
            names[:] = [name.replace("relu", "R") for name in names]
    weight = renamed.graph.initializer[0]
    weight.float_data.extend(np.frombuffer(weight.raw_data, dtype=np.float32))
    weight.ClearField("raw_data")
    assert split(plain, ("relu0",)) == split(load_model(renamed.SerializeToString()), ("R0",))


def test_split__twice__gives_the_same_bytes() -> None:
    content = cnn((1, 2, 3), 8, 4, 0)
    assert split(load_model(content), ("relu0",)) == split(load_model(content), ("relu0",))


def test_split__order_of_attributes__does_not_reach_the_bytes() -> None:
    plain = cnn((1, 2), 8, 4, 0)
    reordered = onnx.load_from_string(plain)
    attributes = list(reordered.graph.node[0].attribute)
    del reordered.graph.node[0].attribute[:]
    reordered.graph.node[0].attribute.extend(reversed(attributes))
    assert reordered.SerializeToString() != plain
    assert split(load_model(plain), ()) == split(load_model(reordered.SerializeToString()), ())


def test_split__other_weights__give_other_bytes() -> None:
    first, second = (split(load_model(tiny_mlp(seed)), ("relu0",)) for seed in (0, 1))
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_split__constants_and_dead_nodes__go_where_they_are_used() -> None:
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [1, 6])
    nodes = [
        helper.make_node("Constant", [], ["target"], value=shape),
        helper.make_node("Sqrt", ["root"], ["scale"]),
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Tanh", ["a"], ["unused"]),
        helper.make_node("Mul", ["a", "scale"], ["b"]),
        helper.make_node("Reshape", ["b", "target"], ["c"]),
        helper.make_node("Mul", ["c", "scale"], ["y"]),
    ]
    content = model_of(nodes, {"root": np.array([4.0], dtype=np.float32)}, [1, 2, 3], [1, 6]).SerializeToString()
    segments = split(load_model(content), ("a", "b", "c"))
    operators = [[node.op_type for node in onnx.load_from_string(segment).graph.node] for segment in segments]
    assert operators == [["Relu"], ["Sqrt", "Mul"], ["Constant", "Reshape"], ["Sqrt", "Mul"]]
    assert_same_function(content, ("a", "b", "c"))


def test_split__output_that_ignores_the_input__is_refused() -> None:
    nodes = [helper.make_node("Relu", ["w"], ["y"])]
    content = model_of(nodes, {"w": np.ones((1, 3), dtype=np.float32)}, [1, 3], [1, 3]).SerializeToString()
    assert refusal_of_cuts(content).field == "model.graph.output"
