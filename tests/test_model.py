"""The model as it is built, and as it is kept in a file."""

import json
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import NETWORK, VARIANTS

from vqlib.errors import DataError, ParameterError
from vqlib.model import load_model, make_model, save_model
from vqlib.params import Network

IMAGES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def described(variant: str) -> dict:
    return {"network": NETWORK.model_dump(), "variant": VARIANTS[variant].model_dump(), "provenance": {"best_step": 7}}


def saved(path, variant: str = "vq", seed: int = 3):
    """A model whose BatchNorm has seen something, and its file."""
    model = make_model(NETWORK, VARIANTS[variant], seed)
    model(IMAGES)
    save_model(path, model.state_dict(), described(variant))
    return model.eval()


def test_the_papers_model_has_the_papers_number_of_parameters():
    model = make_model(Network(width=256, num_embeddings=512), VARIANTS["vq"])
    assert sum(p.numel() for p in model.parameters()) == 4_882_179


def test_encoder_and_decoder_of_one_seed_start_equal_for_every_variant():
    def start(variant: str, seed: int) -> dict[str, torch.Tensor]:
        state = make_model(NETWORK, VARIANTS[variant], seed).state_dict()
        return {key: value for key, value in state.items() if not key.startswith("bottleneck.")}

    first = start("vq", seed=1)
    for variant in VARIANTS:
        other = start(variant, seed=1)
        assert first.keys() == other.keys()
        assert all(torch.equal(first[key], other[key]) for key in first)
    assert not torch.equal(first["encoder.layers.0.weight"], start("vq", seed=2)["encoder.layers.0.weight"])


def test_codes_start_uniform_within_one_over_k():
    codebook = make_model(NETWORK, VARIANTS["vq"]).bottleneck.codebook
    assert codebook.shape == (NETWORK.num_embeddings, NETWORK.width)
    assert 0.99 / 512 < codebook.abs().max() <= 1 / 512
    assert codebook.std().item() == pytest.approx(1 / 512 / 3**0.5, rel=0.05)


def test_making_a_model_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    make_model(NETWORK, VARIANTS["vq"], seed=9)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_channels_last():
    weight = make_model(NETWORK, VARIANTS["vq"]).encoder.layers[3].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


@pytest.mark.parametrize(
    ("variant", "options", "key"),
    [
        ("gain_shape_4", {"gain_bits": 99}, "gain_bits is 99; it must be from 1 to 12"),
        ("frequency_8", {"num_frequent": 513}, "num_frequent is 513; it must be from 0 to 512"),
        ("vq_cosine", {"quantizers": 2}, "quantizers is 2; with cosine it must be 1"),
    ],
)
def test_an_option_out_of_its_range_is_one_line(variant, options, key):
    wrong = VARIANTS[variant].model_copy(update={"options": {**VARIANTS[variant].options, **options}})
    with pytest.raises(ParameterError, match=f"^params.yaml: variants.{variant}.{key}$"):
        make_model(NETWORK, wrong)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_gives_back_the_model_rounded_to_float16(tmp_path, variant):
    path = tmp_path / "new folder" / "model.safetensors"
    model = saved(path, variant)
    again, description = load_model(path)
    assert description == described(variant)
    assert not any(module.training for module in again.modules())
    for key, value in model.state_dict().items():
        expected = value.half().float() if value.dtype == torch.float32 else value
        assert torch.equal(again.state_dict()[key], expected)
    assert torch.float32 not in {t.dtype for t in load_file(path).values()}
    assert not torch.equal(again.encoder.layers[0].weight, model.encoder.layers[0].weight)  # rounding took place
    torch.testing.assert_close(again.encode(IMAGES), model.encode(IMAGES), rtol=0.02, atol=0.02)


def test_the_same_weights_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        saved(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_float16_cannot_hold_stays_float32(tmp_path):
    state = make_model(NETWORK, VARIANTS["vq"]).state_dict()
    large = state["encoder.layers.1.running_var"]
    large[:] = torch.logspace(0, 30, len(large))
    save_model(tmp_path / "m", state, described("vq"))
    again, _ = load_model(tmp_path / "m")
    assert torch.equal(again.state_dict()["encoder.layers.1.running_var"], large)
    assert all(value.isfinite().all() for value in again.state_dict().values())


def alien(path):
    save_file({"weight": torch.zeros(3)}, path)


def alien_metadata(path):
    save_file({"weight": torch.zeros(3)}, path, metadata={"vqlib": "[1, 2]"})


def a_number(path):
    save_file({"weight": torch.zeros(3)}, path, metadata={"vqlib": "3"})


def another_width(path):
    description = {**described("vq"), "network": {**NETWORK.model_dump(), "width": 12}}
    save_model(path, make_model(NETWORK, VARIANTS["vq"]).state_dict(), description)


def seventeen_gigabytes(path):
    network = {**NETWORK.model_dump(), "width": 4096, "num_embeddings": 2**20}
    save_model(path, make_model(NETWORK, VARIANTS["vq"]).state_dict(), {**described("vq"), "network": network})


def unknown_bottleneck(path):
    description = {**described("vq"), "variant": {**described("vq")["variant"], "bottleneck": "nowhere"}}
    save_model(path, make_model(NETWORK, VARIANTS["vq"]).state_dict(), description)


def a_tensor_less(path):
    tensors = make_model(NETWORK, VARIANTS["vq"]).state_dict()
    tensors.pop("bottleneck.codebook")
    save_model(path, tensors, described("vq"))


def a_bit_flipped(path):
    saved(path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # among the weights: safetensors itself does not notice
    path.write_bytes(content)
    assert load_file(path)


def another_step_described(path):
    saved(path)
    content = path.read_bytes()
    changed = content.replace(rb"\"best_step\": 7", rb"\"best_step\": 9")
    assert changed != content
    path.write_bytes(changed)


def truncated(path):
    saved(path)
    path.write_bytes(path.read_bytes()[:-10])


def text(path):
    path.write_text("not a model\n" * 100)


def empty(path):
    path.touch()


def a_folder(path):
    path.mkdir()


def missing(path):
    pass


@pytest.mark.parametrize(
    "make",
    [
        alien,
        alien_metadata,
        a_number,
        another_width,
        seventeen_gigabytes,
        unknown_bottleneck,
        a_tensor_less,
        a_bit_flipped,
        another_step_described,
        truncated,
        text,
        empty,
        a_folder,
        missing,
    ],
)
def test_a_file_that_is_not_ours_or_damaged_is_one_line(tmp_path, make):
    path = tmp_path / "model.safetensors"
    make(path)
    with pytest.raises(DataError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message


def test_the_file_says_what_it_is_without_being_loaded(tmp_path):
    saved(tmp_path / "m")
    with safe_open(tmp_path / "m", framework="pt") as file:
        assert json.loads(file.metadata()["vqlib"])["variant"]["bottleneck"] == "vq"


def test_a_forged_size_is_refused_before_it_takes_memory(tmp_path):
    path = tmp_path / "model.safetensors"
    seventeen_gigabytes(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="other shapes"):
        load_model(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB
