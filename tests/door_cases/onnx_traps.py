"""What a reader may fall into: the batch size as a number, training mode, operators that have no affine + ReLU form."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from door_cases.onnx_draw import Draw, Unfit


def batch_as_a_number(draw: Draw) -> None:
    name, shape = draw.some()
    whole = draw.emit("Shape", [name])
    if draw.chance(0.5):
        count = draw.emit("Gather", [whole, draw.stored(np.array(0))], axis=0)
    else:
        inputs = [whole]
        attributes: dict[str, Any] = {}
        for key, value in (("starts", [0]), ("ends", [1])):
            attributes |= draw.since(10, key, value, inputs)
        count = draw.emit("Slice", inputs, **attributes)
    number = draw.emit("Cast", [count], to=draw.kind)
    draw.same(draw.pick(["Mul", "Add", "Div", "Sub"]), name, shape, number)


def size_as_a_number(draw: Draw) -> None:
    name, shape = draw.some()
    draw.same("Mul", name, shape, draw.emit("Cast", [draw.emit("Size", [name])], to=draw.kind))


def width_as_a_number(draw: Draw) -> None:
    """Not a trap, but looks like one: the other axes are numbers."""
    name, shape = draw.some()
    axis = draw.axis(shape)
    number = draw.emit("Gather", [draw.emit("Shape", [name]), draw.stored(np.array([axis]))], axis=0)
    draw.same("Div", name, shape, draw.emit("Cast", [number], to=draw.kind))


def constant_of_the_batch(draw: Draw) -> None:
    """Not a trap either: zeros or ones of the value's own shape."""
    name, shape = draw.some()
    if draw.opset < 9:
        raise Unfit
    value = numpy_helper.from_array(np.array([draw.pick([0.0, 1.0, -0.5])], draw.dtype))
    made = draw.emit("ConstantOfShape", [draw.emit("Shape", [name])], value=value)
    draw.same(draw.pick(["Add", "Mul", "Max" if draw.opset >= 8 else "Sub"]), name, shape, made)


def first_rows(draw: Draw) -> None:
    name, shape = draw.some(2, 3)
    if draw.opset < 10:
        raise Unfit
    part = draw.emit("Slice", [name, draw.ints([0]), draw.ints([1]), draw.ints([0])])
    draw.same("Add", name, shape, part)


def one_example(draw: Draw) -> None:
    name, shape = draw.some(2, 3)
    draw.same(
        "Sub",
        name,
        shape,
        draw.emit("Gather", [name, draw.ints([draw.pick([0, -1]) if draw.opset > 10 else 0])], axis=0),
    )


def rows_turned_round(draw: Draw) -> None:
    name, shape = draw.some(2, 3)
    if draw.opset < 10:
        raise Unfit
    draw.same("Slice", name, shape, draw.ints([-1]), draw.ints([-(2**40)]), draw.ints([0]), draw.ints([-1]))


def over_the_batch(draw: Draw) -> None:
    name, shape = draw.some(2, 3)
    inputs = [name]
    kind = draw.pick(["ReduceSum", "ReduceMean", "ReduceMax"])
    axis = draw.pick([0, -len(shape)]) if draw.opset >= 11 else 0
    attributes = draw.since(13 if kind == "ReduceSum" else 18, "axes", [axis], inputs)
    draw.same("Sub", name, shape, draw.emit(kind, inputs, **attributes))


def summed_up(draw: Draw) -> None:
    name, shape = draw.some()
    draw.same("Add", name, shape, draw.emit("ReduceSum", [name], keepdims=draw.pick([0, 1])))


def doubled_batch(draw: Draw) -> None:
    name, shape = draw.some(2, 3)
    joined = draw.emit("Concat", [name, name], axis=0)
    if draw.chance(0.5) and draw.opset >= 10:
        draw.same(
            "Slice",
            joined,
            shape,
            draw.ints([0]),
            draw.emit("Shape", [name])
            if len(shape) == 1
            else draw.emit("Slice", [draw.emit("Shape", [name]), draw.ints([0]), draw.ints([1])]),
            draw.ints([0]),
        )
    else:
        draw.push(joined, shape)


def rows_by_columns(draw: Draw) -> None:
    name, shape = draw.some(2)
    draw.same("Reshape", draw.emit("Transpose", [name]), shape, draw.ints([-1, shape[1]]))


def two_rows_in_one(draw: Draw) -> None:
    name, shape = draw.some(2)
    draw.push(draw.emit("Reshape", [name, draw.ints([-1, 2 * shape[1]])]), (shape[0], 2 * shape[1]))


def a_row_for_each(draw: Draw) -> None:
    name, shape = draw.some(2)
    rows = draw.batch or draw.pick([1, 2, 3])
    draw.same("Add", name, shape, draw.floats(rows, shape[1]))


def training_batch_norm(draw: Draw) -> None:
    name, shape = draw.some(2, 3)
    if shape[1] is None:
        raise Unfit
    given = [draw.plain(shape[1]) for _ in range(3)] + [draw.stored(draw.numbers(shape[1], low=0.5, high=1.0))]
    if draw.opset >= 14:
        made = draw.emit("BatchNormalization", [name, *given], 3, training_mode=1)
    else:
        made = draw.emit("BatchNormalization", [name, *given], 5)
    draw.push(made[0], shape)


def training_dropout(draw: Draw) -> None:
    name, shape = draw.some()
    if draw.opset < 12:
        raise Unfit
    draw.same("Dropout", name, shape, draw.stored(np.float32(draw.pick([0.0, 0.5]))), draw.stored(np.array(True)))


def rounded(draw: Draw) -> None:
    name, shape = draw.some()
    to = draw.pick([TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8])
    draw.same("Cast", draw.emit("Cast", [name], to=to), shape, to=draw.kind)


def no_form(draw: Draw) -> None:
    name, shape = draw.some()
    kinds = ["Exp", "Tanh", "Sigmoid", "Floor", "Elu", "Selu", "Softplus", "Softsign", "Softmax", "LogSoftmax", "Ceil"]
    kinds += ["Sign", "Sin", "Cos", "Erf", "Sinh"] if draw.opset >= 9 else []
    kinds += ["Round"] if draw.opset >= 11 else []
    kinds += ["Celu"] if draw.opset >= 12 else []
    kinds += ["HardSwish"] if draw.opset >= 14 else []
    kinds += ["Gelu"] if draw.opset >= 20 else []
    draw.same(draw.pick(kinds), name, shape)


def product_of_two(draw: Draw) -> None:
    name, shape = draw.some()
    other = draw.pick([v for v in draw.values if v[1] == shape])[0]
    draw.same(draw.pick(["Mul", "Mul", "Mul", "Div"]), name, shape, other)


def squared(draw: Draw) -> None:
    name, shape = draw.some()
    draw.same("Pow", name, shape, draw.stored(np.array(draw.pick([0.0, 2.0, 3.0]), draw.dtype)))


def soft_shrink(draw: Draw) -> None:
    name, shape = draw.some()
    if draw.opset < 9:
        raise Unfit
    draw.same("Shrink", name, shape, lambd=0.5, bias=draw.pick([0.5, 0.0]))


def quantized(draw: Draw) -> None:
    name, shape = draw.some()
    if draw.opset < 10 or draw.dtype != np.float32:
        raise Unfit
    about = [draw.stored(np.float32(0.02)), draw.stored(np.array(draw.int(0, 9), np.uint8))]
    draw.same("DequantizeLinear", draw.emit("QuantizeLinear", [name, *about]), shape, *about)


def by_condition(draw: Draw) -> None:
    name, shape = draw.some()
    if draw.opset < 11:
        raise Unfit
    mask = draw.emit("Greater", [name, draw.stored(np.array(0.0, draw.dtype))])
    draw.same("Where", mask, shape, name, draw.stored(np.array(0.0, draw.dtype)))


def branches(draw: Draw) -> None:
    name, shape = draw.some()
    if draw.opset < 11:
        raise Unfit
    bodies = {}
    for branch, kind in (("then_branch", "Relu"), ("else_branch", "Neg")):
        out = draw.name()
        info = helper.make_tensor_value_info(out, draw.kind, None)
        bodies[branch] = helper.make_graph([helper.make_node(kind, [name], [out])], branch, [], [info])
    if draw.chance(0.5):
        condition = draw.stored(np.array(draw.chance(0.5)))
    else:
        number = draw.emit("Gather", [draw.emit("Shape", [name]), draw.stored(np.array(0))], axis=0)
        condition = draw.emit("Greater", [number, draw.stored(np.array(1))])
    draw.push(draw.emit("If", [condition], **bodies), shape)


def local_function(draw: Draw) -> None:
    name, shape = draw.some()
    if draw.opset < 15:
        raise Unfit
    draw.domains["local"] = 1
    if not draw.functions:
        body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Sub", ["b", "a"], ["c"])]
        body.append(helper.make_node("Max", ["c", "a"], ["d"]))
        draw.functions.append(
            helper.make_function("local", "Folded", ["a"], ["d"], body, [helper.make_opsetid("", draw.opset)])
        )
    draw.same("Folded", name, shape, domain="local")


def random_numbers(draw: Draw) -> None:
    name, shape = draw.some()
    kind = draw.pick(["RandomNormalLike", "RandomUniformLike"])
    draw.same("Add", name, shape, draw.emit(kind, [name]))


def random_constant(draw: Draw) -> None:
    name, shape = draw.some()
    width = list(shape[draw.lead :]) or [1]
    draw.same("Mul", name, shape, draw.emit("RandomUniform", [], shape=width, dtype=draw.kind))


def softmax_of_rows(draw: Draw) -> None:
    name, shape = draw.some()
    draw.same(draw.pick(["Softmax", "LogSoftmax"]), name, shape, axis=draw.int(0, max(0, len(shape) - 1)))


def sorted_values(draw: Draw) -> None:
    name, shape = draw.some()
    if draw.opset < 11 or not shape or shape[-1] is None:
        raise Unfit
    draw.push(draw.emit("TopK", [name, draw.ints([1])], 2)[0], (*shape[:-1], 1))


def cumulated(draw: Draw) -> None:
    name, shape = draw.some()
    if draw.opset < 11 or not shape:
        raise Unfit
    draw.same("CumSum", name, shape, draw.stored(np.array(draw.int(0, len(shape) - 1))))


def einsum(draw: Draw) -> None:
    name, (rows, width) = draw.some(2)
    if draw.opset < 12:
        raise Unfit
    draw.push(draw.emit("Einsum", [name, draw.plain(width, 3)], equation="ij,jk->ik"), (rows, 3))


def normed_layer(draw: Draw) -> None:
    name, shape = draw.some(2, 3)
    if draw.opset < 17 or shape[-1] is None:
        raise Unfit
    draw.same("LayerNormalization", name, shape, draw.plain(shape[-1]))


def second_output(draw: Draw) -> None:
    name, _ = draw.some()
    draw.more_outputs.append(name)


TRAPS = {
    batch_as_a_number: 2,
    size_as_a_number: 0.5,
    width_as_a_number: 1,
    constant_of_the_batch: 2,
    first_rows: 1,
    one_example: 1,
    rows_turned_round: 1,
    over_the_batch: 1,
    summed_up: 1,
    doubled_batch: 1,
    rows_by_columns: 1,
    two_rows_in_one: 1,
    a_row_for_each: 1,
    training_batch_norm: 1,
    training_dropout: 1,
    rounded: 1,
    no_form: 2,
    product_of_two: 1,
    squared: 1,
    soft_shrink: 0.5,
    quantized: 1,
    by_condition: 0.7,
    branches: 1,
    local_function: 1,
    random_numbers: 0.3,
    random_constant: 0.3,
    softmax_of_rows: 1,
    sorted_values: 0.5,
    cumulated: 0.5,
    einsum: 0.5,
    normed_layer: 0.5,
    second_output: 0.5,
}


def old_broadcast(draw: Draw) -> None:
    """Arithmetic below opset 7: which axes of the first the second has is said by attributes."""
    name, shape = draw.some()
    axis = draw.axis(shape)
    kind = draw.pick(["Add", "Sub", "Mul"])
    draw.same(kind, name, shape, draw.plain(shape[axis]), broadcast=1, axis=axis)


def old_gemm(draw: Draw) -> None:
    name, (rows, width) = draw.some(2)
    out = draw.int(1, 4)
    draw.push(draw.emit("Gemm", [name, draw.plain(width, out), draw.plain(out)], broadcast=1), (rows, out))


def old_dropout(draw: Draw) -> None:
    name, shape = draw.some()
    draw.same("Dropout", name, shape, is_test=draw.pick([None, 0, 1]))


def old_relu(draw: Draw) -> None:
    name, shape = draw.some()
    draw.same("Relu", name, shape)


#: For graphs below opset 7.
OLD = {old_broadcast: 2, old_gemm: 2, old_dropout: 1, old_relu: 2}
