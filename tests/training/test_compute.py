import pytest
import torch

from neo.model.config import NeoConfig
from neo.model.neo import NeoForConditionalGeneration, NeoLayer
from neo.training import TrainConfig
from neo.training.compute import attention_backend, prepare_layers

from .conftest import tiny_recipe


def gradients(config: NeoConfig, recipe: TrainConfig, inputs: dict) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = NeoForConditionalGeneration(config).train()
    prepare_layers(model, recipe, torch.device("cpu"))
    model(**inputs, labels=inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("words", [["full"], ["selective"], ["selective", "--activation_checkpointing_every=1"]])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_the_same(
    small_config: NeoConfig, compose, tmp_path, words: list[str], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled:  # the graphs as dynamo sees them, run without a C++ compiler
        monkeypatch.setattr("neo.training.compute.torch.compile", lambda f: torch._dynamo.optimize("aot_eager")(f))
    inputs = compose([4, (4, 4), 3], [2, (2, 4)])
    common = [f"--compile={str(compiled).lower()}"]
    plain = gradients(small_config, tiny_recipe("mt", tmp_path, *common), inputs)
    words = [f"--activation_checkpointing={words[0]}", *words[1:]]
    again = gradients(small_config, tiny_recipe("mt", tmp_path, *common, *words), inputs)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_chosen_layers_are_computed_twice(small_config: NeoConfig, compose, tmp_path) -> None:
    calls: dict[int, int] = {}

    def count(layer: NeoLayer) -> None:
        normal = layer.forward

        def forward(*args):
            number = layer.self_attn.layer_index
            calls[number] = calls.get(number, 0) + 1
            return normal(*args)

        layer.forward = forward

    small_config.text_config.num_hidden_layers = 5
    model = NeoForConditionalGeneration(small_config).train()
    for layer in model.model.language_model.layers:
        count(layer)
    recipe = tiny_recipe("mt", tmp_path, "--activation_checkpointing=selective")
    prepare_layers(model, recipe, torch.device("cpu"))
    inputs = compose([4, (2, 2), 3])
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert calls == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1}


def test_other_runs_of_words_are_not_compiled_anew(
    small_config: NeoConfig, compose, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neo.training.compute.torch.compile", lambda f: torch._dynamo.optimize("aot_eager")(f))
    model = NeoForConditionalGeneration(small_config).train()
    prepare_layers(model, tiny_recipe("mt", tmp_path, "--compile=true"), torch.device("cpu"))

    def learn(*row) -> None:
        inputs = compose(row)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()

    learn(300, (4, 4), 700)
    with torch.compiler.set_stance("fail_on_recompile"):
        learn(500, (4, 4), 500)
        learn(600, (2, 8), 400)


def test_attention_of_each_device() -> None:
    assert attention_backend("auto", torch.device("cpu")) == "sdpa"
    assert attention_backend("eager", torch.device("cpu")) == "eager"
    with pytest.raises(ValueError, match="attention=flex_attention trains on a GPU only, not on cpu"):
        attention_backend("flex_attention", torch.device("cpu"))
