"""Weights in 8 and 4 bits: every way of every product against plain float64, and whole models."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoint import make_checkpoint

import neo
from neo.inference import quantize
from neo.inference.chat import ChatModel
from neo.inference.export import export
from neo.inference.quantize import BLOCK, GROUP, Int4Linear, Int8Embedding, Int8Linear, quantization_of, weight_bytes
from neo.model import linear

DTYPES = [torch.float32, torch.bfloat16]
QUESTION = "What color is the circle?"


@pytest.fixture(scope="module")
def big_enough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose matrices int4 takes."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32}
    return make_checkpoint(tmp_path_factory.mktemp("quantise") / "model", **sizes)


def weight(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


def rows(number: int, inputs: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(number, inputs, generator=torch.Generator().manual_seed(number)).to(dtype)


def close(out: torch.Tensor, exact: torch.Tensor) -> None:
    """Within rounding of the numbers' dtype: bf16 has 8 bits, and so do the parts of a row in `by_integers` at most."""
    assert out.shape == exact.shape
    tolerance = 1e-5 if out.dtype == torch.float32 else 2**-7
    error = (out.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-9) if exact.numel() else 0
    assert error < tolerance, float(error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_a_weight_is_the_nearest_there_is(kind: type, dtype: torch.dtype):
    source = weight(2 * BLOCK, 3 * GROUP)
    layer = kind.of(source, dtype)
    error = (layer.dequantized() - source).abs()
    if kind is Int8Linear:
        steps = source.abs().amax(1, keepdim=True) / 127
    else:
        groups = source.unflatten(1, (-1, GROUP))
        steps = ((groups.amax(2) - groups.amin(2)) / 15).repeat_interleave(GROUP, 1)
    # Half a step; scales and zeros rounded to bf16 add at most 2^-8 of what they are multiplied with.
    assert (error <= 0.5 * steps + source.abs().amax() * (2**-8 if dtype == torch.bfloat16 else 1e-6)).all()


@pytest.mark.parametrize("instructions", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [0, 1, 2, 3, 13, 64, 65, 97, 200])
def test_products_of_any_number_of_rows(
    number: int, dtype: torch.dtype, instructions: bool, monkeypatch: pytest.MonkeyPatch
):
    for module, name in ((linear, "multiplies_bf16"), (quantize, "_multiplies_integers")):
        monkeypatch.setattr(module, name, lambda: instructions)
    monkeypatch.setattr(quantize, "CHUNK", BLOCK * 96)  # several parts
    x, source = rows(number, 96, dtype), weight(3 * BLOCK, 96)
    for kind in (Int8Linear, Int4Linear):
        layer = kind.of(source, dtype)
        out = layer(x)
        assert out.dtype == dtype
        close(out, x.double() @ layer.dequantized().double().t())


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.integers(2, 70),  # torch._int_mm is wrong for one, which no model has
    outputs=st.integers(1, 40),
    number=st.integers(0, 20),
    dtype=st.sampled_from(DTYPES),
    size=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
)
def test_int8_of_any_sizes(inputs: int, outputs: int, number: int, dtype: torch.dtype, size: float):
    layer = Int8Linear.of(size * weight(outputs, inputs), dtype)
    x = rows(number, inputs, dtype)
    close(layer(x), x.double() @ layer.dequantized().double().t())
    close(layer(x.reshape(1, number, inputs))[0], x.double() @ layer.dequantized().double().t())


@pytest.mark.parametrize("number", [1, 3, 64, 200])
def test_int8_in_fp16_does_not_overflow(number: int):
    layer = Int8Linear.of(weight(BLOCK, 1024), torch.float16)
    x = 100 * rows(number, 1024, torch.float16)
    close(layer(x), x.double() @ layer.dequantized().double().t())


def test_int4_says_which_sizes_it_takes():
    assert Int4Linear.takes(weight(BLOCK, GROUP))
    assert not Int4Linear.takes(weight(BLOCK + 1, GROUP))
    assert not Int4Linear.takes(weight(BLOCK, GROUP + 2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_stored_restores_the_same(dtype: torch.dtype):
    for layer in (Int8Linear.of(weight(BLOCK, 64), dtype), Int4Linear.of(weight(2 * BLOCK, 64), dtype)):
        shape = torch.Size((layer.out_features, layer.in_features))
        again = quantize.restored(layer.stored(), shape, embedding=False)
        assert type(again) is type(layer)
        assert torch.equal(again.dequantized(), layer.dequantized())
    with pytest.raises(ValueError, match="no quantised weight of 64 x 65"):
        quantize.restored(Int8Linear.of(weight(64, 64), dtype).stored(), torch.Size((64, 65)), embedding=False)


def test_an_embedding_gives_rows_of_its_table():
    table = Int8Linear.of(weight(10, 16), torch.bfloat16)
    ids = torch.tensor([[3, 0], [9, 3]])
    out = Int8Embedding(table)(ids)
    close(out, table.dequantized().double()[ids])


def logits(model: ChatModel, picture: object) -> torch.Tensor:
    request = model.request([{"role": "user", "content": QUESTION, "image": picture}])
    with torch.no_grad():
        return model.model(**model.processor.collate([request.prompt])).logits


@pytest.mark.parametrize("kind", quantize.QUANTIZATIONS)
def test_a_quantised_model_is_that_of_its_rounded_weights(kind: str, big_enough: Path, pictures: list):
    model = neo.load_model(big_enough, device="cpu", quantization=kind)
    assert quantization_of(model.model) == kind
    plain = neo.load_model(big_enough, device="cpu")
    for name, module in model.model.named_modules():
        if isinstance(module, Int8Linear | Int4Linear):
            plain.model.get_submodule(name.removesuffix(".table")).weight.data = module.dequantized()
    # Measured: 4e-6 of the largest logit.
    close(logits(model, pictures[0]), logits(plain, pictures[0]).double())
    changed = logits(neo.load_model(big_enough, device="cpu"), pictures[0]) - logits(model, pictures[0])
    assert changed.abs().max() > 1e-3


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", quantize.QUANTIZATIONS)
def test_saved_and_loaded_again_answers_the_same(
    kind: str, dtype: str, big_enough: Path, tmp_path: Path, pictures: list
):
    folder = export(big_enough, tmp_path / "small", dtype=dtype, quantization=kind)
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["weights"] == kind
    loaded = neo.load_model(folder, device="cpu")
    made = neo.load_model(big_enough, device="cpu", dtype=dtype, quantization=kind)
    assert quantization_of(loaded.model) == kind
    assert torch.equal(logits(loaded, pictures[1]), logits(made, pictures[1]))
    assert loaded.generate(image=pictures[1], text=QUESTION) == made.generate(image=pictures[1], text=QUESTION)


def test_weights_take_the_bytes_that_are_promised(big_enough: Path):
    plain = neo.load_model(big_enough, device="cpu").model
    for kind in quantize.QUANTIZATIONS:
        model = neo.load_model(big_enough, device="cpu", quantization=kind).model
        tensors = {tensor.data_ptr(): tensor for tensor in [*model.parameters(), *model.buffers()]}
        held = sum(tensor.nbytes for name, tensor in quantize.stored_tensors(model).items())
        assert held == weight_bytes(plain, torch.float32, kind)
        assert held <= sum(tensor.nbytes for tensor in tensors.values())
    assert weight_bytes(plain, torch.float32) == sum(parameter.nbytes for parameter in plain.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int3"}, "quantization='int3' must be one of int8, int4, or None"),
        ({"quantization": "int8", "device_map": "auto"}, "leave out device and quantization"),
    ],
)
def test_refusals(options: dict, message: str, big_enough: Path):
    with pytest.raises(ValueError, match=message):
        neo.load_model(big_enough, **options)


def test_no_second_quantisation(big_enough: Path, tmp_path: Path):
    folder = export(big_enough, tmp_path / "small", quantization="int8")
    with pytest.raises(ValueError, match="its weights are int8 already"):
        neo.load_model(folder, device="cpu", quantization="int4")
