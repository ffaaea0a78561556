from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from offchain.errors import InvalidInputError
from offchain.inference import onnx_model
from offchain.inference.onnx_model import input_shape, load_model, output_shape, tensor_shapes
from tests.models import model_of, residual, tiny_mlp

pytestmark = pytest.mark.unit

EYE = np.eye(4, dtype=np.float32)


def refusal(content: bytes) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        load_model(content)
    assert caught.value.mend
    return caught.value


def altered(change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(tiny_mlp(0))
    change(model)
    return model.SerializeToString()


def test_load_model__plain_model__infers_every_shape() -> None:
    model = load_model(tiny_mlp(0))
    assert (input_shape(model), output_shape(model)) == ((1, 4), (1, 3))
    assert tensor_shapes(model)["relu0"] == (1, 6)


def test_load_model__symbolic_batch__becomes_one() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    content = model_of(nodes, {"w": EYE}, ["batch", 4], ["batch", 4]).SerializeToString()
    assert output_shape(load_model(content)) == (1, 4)


def test_load_model__weight_listed_as_input__is_not_an_input() -> None:
    def list_weight(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("weight0", TensorProto.FLOAT, [6, 4]))

    assert input_shape(load_model(altered(list_weight))) == (1, 4)


@pytest.mark.parametrize("content", [b"\xff\xff\xff\xff", b"not a model", tiny_mlp(0)[:-7], b"\n" * 50])
def test_load_model__malformed_bytes__names_the_model(content: bytes) -> None:
    assert refusal(content).field.startswith("model")


def test_load_model__empty__is_refused() -> None:
    assert refusal(b"").problem == "is empty"


def test_load_model__too_large__is_refused_before_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "MAX_MODEL_BYTES", 100)
    assert "the limit is 100" in refusal(tiny_mlp(0)).problem


def set_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 7


def set_ir_version(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def add_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def use_node_domain(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.example"


def use_loop(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Loop"


def hide_subgraph(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("body", model.graph))


def store_elsewhere(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../etc/passwd")


def use_doubles(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((6, 4)), "weight0"))


def claim_large_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]


def shorten_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def put_nan(model: onnx.ModelProto) -> None:
    values = np.full((6, 4), np.nan, dtype=np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "weight0"))


def add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4]))


def add_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("relu0", TensorProto.FLOAT, [1, 6]))


def take_doubles(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def take_many(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 65
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 65


def leave_width_open(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"


def contradict_shapes(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5


def use_missing_tensor(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


def remove_nodes(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        (set_opset, "model.opset_import", "[7] is not one opset"),
        (set_ir_version, "model.ir_version", "99 is not between"),
        (add_domain, "model.opset_import", "custom domain 'com.example'"),
        (use_node_domain, "model.graph.node[1]", "custom domain 'com.example'"),
        (use_loop, "model.graph.node[1]", "not a supported operator"),
        (hide_subgraph, "model.graph.node[1]", "'body' holds a graph"),
        (store_elsewhere, "model.graph.initializer 'weight0'", "stored in another file"),
        (use_doubles, "model.graph.initializer 'weight0'", "element type DOUBLE"),
        (claim_large_weight, "model.graph.initializer 'weight0'", "has the shape"),
        (shorten_weight, "model.graph.initializer 'weight0'", "cannot be read"),
        (put_nan, "model.graph.initializer 'weight0'", "NaN or infinity"),
        (add_input, "model.graph.input", "has 2 tensors"),
        (add_output, "model.graph.output", "has 2 tensors"),
        (take_doubles, "model 'x'", "not a float32 tensor"),
        (take_many, "model.graph.input", "(65, 4)"),
        (leave_width_open, "model", ""),
        (contradict_shapes, "model.graph", "is inconsistent"),
        (use_missing_tensor, "model.graph", "is inconsistent"),
        (remove_nodes, "model.graph", "has no nodes"),
    ],
)
def test_load_model__unsupported_model__names_field_and_problem(
    change: Callable[[onnx.ModelProto], None], field: str, problem: str
) -> None:
    error = refusal(altered(change))
    assert error.field.startswith(field)
    assert problem in error.problem


def test_load_model__tensor_that_grows__is_refused() -> None:
    nodes = [helper.make_node("Pad", ["x", "pads"], ["y"])]
    content = model_of(nodes, {"pads": np.array([0, 0, 0, 1 << 30], dtype=np.int64)}, [1, 4], None).SerializeToString()
    assert "1073741828" in refusal(content).problem


def test_load_model__external_data__never_opens_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").write_bytes(np.zeros((6, 4), dtype=np.float32).tobytes())

    def point_to_file(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="weights")

    assert "another file" in refusal(altered(point_to_file)).problem


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=st.sampled_from([tiny_mlp(1), residual(3, 1)]), data=st.data())
def test_load_model__mutated_bytes__loads_or_is_refused(model: bytes, data: st.DataObject) -> None:
    content = bytearray(model)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidInputError):
        load_model(bytes(content))
