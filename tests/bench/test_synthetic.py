"""Shapes without a file: the catalogue's sizes, llama.cpp's tensor types, weights a model can be run on."""

from collections import Counter

import numpy as np
import pytest

from seventy.bench.quants import more_bits, quant_name, tensor_type
from seventy.bench.run import Bench, Wish
from seventy.bench.synthetic import Shape, Synthetic, choose_layers, find_shape, fitting_layers, random_blocks
from seventy.catalog.models import find_model
from seventy.engine.model import Model, Segment, Step
from seventy.errors import SeventyError
from seventy.formats import formats
from seventy.measure.profile import Profile

TINY = Shape("tiny", "llama", 8, 256, 512, 4, 2, 64, 500, 512, tied=False)


def total(shape: Shape, quant: str) -> int:
    return shape.nbytes(quant, None) + sum(shape.nbytes(quant, layer) for layer in range(shape.layers))


@pytest.mark.parametrize("quant", ["Q2_K", "Q3_K_M", "IQ4_XS", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16"])
@pytest.mark.parametrize("name", ["llama-3.3-70b", "qwen2.5-72b", "qwen3-32b", "llama-3.1-405b"])
def test_sizes_are_those_of_published_files(name: str, quant: str) -> None:
    # A file has norms and a vocabulary beside its matrices.
    assert total(find_shape(name), quant) / 1e9 == pytest.approx(find_model(name).size(quant), rel=2e-3)


def test_a_small_model_is_tied() -> None:
    assert find_shape("smollm2-135m").tied and find_shape("llama-3.2-1b").tied
    assert not find_shape("llama-3.1-8b").tied


@pytest.mark.parametrize(
    ("name", "why"), [("mixtral-8x7b", "mixture"), ("gemma-3-27b", "gemma3"), ("no-such", "no model")]
)
def test_what_it_cannot_make(name: str, why: str) -> None:
    with pytest.raises(SeventyError, match=why):
        find_shape(name)


def test_q4_k_m_of_a_70b() -> None:
    layers = [layer for layer in range(80) if more_bits(layer, 80)]
    assert layers[:12] == [*range(10), 12, 15] and layers[-11:] == [69, *range(70, 80)] and len(layers) == 40
    names = ("attn_q", "attn_v", "ffn_down", "output", "token_embd")
    kinds = {name: tensor_type("Q4_K_M", name, 8192, 11, 80, 8) for name in names}
    assert kinds == {"attn_q": "Q4_K", "attn_v": "Q5_K", "ffn_down": "Q4_K", "output": "Q6_K", "token_embd": "Q4_K"}
    assert tensor_type("Q4_K_M", "attn_v", 8192, 12, 80, 8) == "Q6_K"
    assert tensor_type("Q4_K_M", "ffn_down", 28672, 12, 80, 8) == "Q6_K"
    assert tensor_type("Q4_K_M", "ffn_down", 29568, 11, 80, 8) == "Q5_0"
    with pytest.raises(SeventyError, match="Q9_K"):
        quant_name("Q9_K")


def test_what_mixtures_of_1_to_3_bits_hold() -> None:
    names = ("token_embd", "output", "attn_q", "attn_v", "attn_output", "ffn_up", "ffn_down")

    def kinds(quant: str, layer: int, group: int) -> tuple[str, ...]:
        return tuple(tensor_type(quant, name, 8192, layer, 80, group) for name in names)

    assert kinds("IQ2_M", 9, 8) == ("IQ3_S", "Q5_K", "IQ2_S", "Q4_K", "IQ3_S", "IQ2_S", "IQ3_S")
    assert kinds("IQ2_XXS", 10, 1) == ("Q2_K", "Q5_K", "IQ2_XXS", "Q2_K", "IQ2_XXS", "IQ2_XXS", "IQ2_XXS")
    assert kinds("IQ1_S", 10, 8) == ("Q2_K", "Q5_K", "IQ1_S", "Q4_K", "IQ2_XXS", "IQ1_S", "IQ1_S")
    assert kinds("IQ3_XXS", 10, 1) == ("IQ3_S", "Q5_K", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ3_XXS", "IQ3_XXS")
    assert tensor_type("IQ2_M", "ffn_down", 29568, 11, 80, 8) == "IQ4_NL"


def test_chosen_layers_are_as_the_whole() -> None:
    shape = find_shape("llama-3.3-70b")
    for count in (2, 4, 10):
        heavy = [more_bits(layer, 80) for layer in choose_layers(shape, "Q4_K_M", count)]
        assert len(heavy) == count and sum(heavy) == count / 2
    assert choose_layers(shape, "Q4_K_M", 80) == list(range(80))
    assert Synthetic(shape, "Q4_K_M", choose_layers(shape, "Q4_K_M", 4)).layer_scale == pytest.approx(20)


def test_layers_that_fit() -> None:
    shape = find_shape("llama-3.3-70b")
    assert fitting_layers(shape, "Q4_K_M", 4096, 64 << 30, None) == 80
    whole = shape.footprint("Q4_K_M", range(80))
    assert whole.need(4096).total == pytest.approx(44.4e9, rel=1e-3)
    assert fitting_layers(shape, "Q4_K_M", 4096, whole.need(4096).total, None) == 80
    assert fitting_layers(shape, "Q4_K_M", 4096, whole.need(4096).total - 1, None) < 80
    assert fitting_layers(shape, "Q4_K_M", 4096, 40 << 30, None) == 16
    assert fitting_layers(shape, "Q4_K_M", 4096, 8 << 30, None) == 6
    assert fitting_layers(shape, "Q4_K_M", 4096, 8 << 30, 7) == 7
    for free, wanted, why in ((8 << 30, 20, "B are free"), (1 << 30, None, "B are free"), (64 << 30, 81, "not 81")):
        with pytest.raises(SeventyError, match=why):
            fitting_layers(shape, "Q4_K_M", 4096, free, wanted)


@pytest.mark.parametrize("name", [entry.name for entry in formats().values()])
def test_random_blocks_are_weights(name: str) -> None:
    format = next(entry for entry in formats().values() if entry.name == name)
    blocks = random_blocks(format, 500, 8192**-0.5)
    weights = format.dequantize(blocks)
    assert blocks.shape == (500, format.nbytes) and np.isfinite(weights).all()
    assert np.sqrt(np.mean(np.square(weights))) == pytest.approx(8192**-0.5, rel=0.05)
    assert len(np.unique(blocks, axis=0)) > 300


def test_any_part_of_a_tensor_is_the_same_bytes() -> None:
    source = Synthetic(TINY, "Q4_K_M")
    info = source.tensors["blk.0.ffn_up.weight"]
    whole = source.read(info)
    assert len(whole) == info.nbytes
    assert (source.pread(info, 144 * 7, 144 * 9) == whole[144 * 7 : 144 * 16]).all()
    norm = source.read(source.tensors["output_norm.weight"]).view(np.float32)
    assert norm.shape == (256,) and (norm == 1).all()


def step(model: Model, tokens: list[int]) -> Step:
    sequence = model.new_sequence()
    sequence.reserve(len(tokens))
    return model.step([Segment(0, tokens, 1, sequence.pages)])


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q2_K", "IQ2_M", "IQ4_XS", "Q8_0", "F16"])
def test_a_model_runs_on_it(quant: str) -> None:
    with Model(Synthetic(TINY, quant, [0, 3]), 2, 64) as model:
        logits = step(model, list(range(40))).logits
        assert logits.shape == (1, 500) and np.isfinite(logits).all() and logits.std() > 0
        assert model.config.layers == 2


def test_architectures_have_their_vectors() -> None:
    for architecture in ("qwen2", "qwen3"):
        shape = Shape("tiny", architecture, 2, 256, 512, 4, 2, 64, 500, 512, tied=True)
        with Model(Synthetic(shape, "Q4_K_M"), 2, 64) as model:
            assert not step(model, [1]).bad


def test_the_real_mix() -> None:
    source = Synthetic(find_shape("llama-3.3-70b"), "Q4_K_M", [0, 10])
    kinds = Counter(formats()[info.type].name for info in source.tensors.values() if len(info.shape) == 2)
    assert kinds == {"Q4_K": 12, "Q6_K": 3, "Q5_K": 1}
    assert source.tensors["output.weight"].shape == (128256, 8192)


def test_fewer_layers_are_extrapolated(profile: Profile) -> None:
    wish = Wish(prompts=(16,), depths=(0,), users=(2,), tokens=4, repeats=2)
    bench = Bench.load(Synthetic(TINY, "Q4_K_M", choose_layers(TINY, "Q4_K_M", 2)), wish, 2, None)
    card = bench.run(profile)
    bench.model.close()
    assert (card.model.layers, card.model.whole_layers, card.model.synthetic) == (2, 8, True)
    assert card.results and all(result.whole_model for result in card.results)
