"""The contract of vqlib/bottlenecks/__init__.py, for every variant of the root's params.yaml."""

import ast
import copy

import pytest
import torch
from support import NETWORK, VARIANTS

from vqlib.bottlenecks import make_bottleneck
from vqlib.model import make_model
from vqlib.params import ROOT
from vqlib.provenance import TRAINING_CODE

B, D, H, W = 3, NETWORK.width, 5, 7
FILES = sorted((ROOT / "vqlib" / "bottlenecks").glob("[a-z]*.py"))


def draw(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(B, D, H, W, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(params=VARIANTS)
def bottleneck(request):
    """One that has seen two batches in training, so that its buffers hold something."""
    variant = VARIANTS[request.param]
    torch.manual_seed(0)
    made = make_bottleneck(
        variant.bottleneck, **{"num_embeddings": NETWORK.num_embeddings, "embedding_dim": D, **variant.options}
    )
    for seed in (1, 2):
        made.train()(draw(seed))
    return made


@pytest.fixture(params=VARIANTS)
def model(request):
    return make_model(NETWORK, VARIANTS[request.param])


def test_forward_returns_what_the_contract_says(bottleneck):
    z, losses, indices = bottleneck(draw())
    assert (z.shape, z.dtype) == ((B, D, H, W), torch.float32)
    for name, value in losses.items():
        assert name.endswith("_loss")
        assert name != "recon_loss"
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert value.isfinite()
    if indices is None:
        assert bottleneck.alphabets == ()
    else:
        symbols = indices if indices.dim() == 4 else indices[..., None]
        assert symbols.dtype == torch.int64
        assert symbols.shape == (B, H, W, len(bottleneck.alphabets))
        for symbol, size in zip(symbols.unbind(-1), bottleneck.alphabets, strict=True):
            assert 0 <= symbol.min() <= symbol.max() < size


def test_decompress_gives_back_what_forward_lets_through(bottleneck):
    bottleneck.eval()
    z, _, indices = bottleneck(draw())
    stored, continuous = bottleneck.compress(draw())
    assert torch.equal(bottleneck.decompress(stored, continuous), z)
    assert (stored is None) == (indices is None)
    assert stored is None or torch.equal(stored, indices)
    assert continuous is None or (continuous.shape[0] == B and continuous.is_floating_point())


def test_in_eval_mode_no_state_changes_and_no_image_sees_another(bottleneck):
    bottleneck.eval()
    before = copy.deepcopy(bottleneck.state_dict())
    together = bottleneck(draw())[0]
    alone = torch.cat([bottleneck(image)[0] for image in draw().split(1)])
    bottleneck.decompress(*bottleneck.compress(draw()))
    if not getattr(bottleneck, "mixes_images", False):  # a bottleneck that does says so itself
        torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)
    after = bottleneck.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_state_dict_is_all_there_is_to_keep(bottleneck, request):
    variant = VARIANTS[request.node.callspec.params["bottleneck"]]
    options = {"num_embeddings": NETWORK.num_embeddings, "embedding_dim": D, **variant.options}
    again = make_bottleneck(variant.bottleneck, **options)
    again.load_state_dict(bottleneck.state_dict())
    assert torch.equal(again.eval()(draw())[0], bottleneck.eval()(draw())[0])
    outcomes = []
    for made in (again, bottleneck):  # and the next step of training is the same too
        torch.manual_seed(7)
        z, losses, _ = made.train()(draw(3))
        outcomes.append([z, *losses.values(), *made.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_draws_come_from_torchs_generator_alone(bottleneck):
    """Which the trainer seeds at every step, so that a step is the same after a resume."""
    outcomes = []
    for _ in range(2):
        made = copy.deepcopy(bottleneck).train()
        torch.manual_seed(3)
        outcomes.append([made(draw(4))[0], *made.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_a_run_may_be_announced_at_any_time(bottleneck):
    """``begin`` sets schedules and touches nothing that was learnt; a resumed run is announced again."""
    before = {key: value.clone() for key, value in bottleneck.state_dict().items() if key != "warmup_steps"}
    bottleneck.begin(1000)
    first = copy.deepcopy(bottleneck.state_dict())
    bottleneck.begin(1000)
    after = bottleneck.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(torch.equal(first[key], after[key]) for key in first)


def test_statistics_are_named_scalars(bottleneck):
    counts = torch.ones(bottleneck.alphabets[0], dtype=torch.int64) if bottleneck.alphabets else None
    for given in (counts, None):
        assert all(value.shape == () and not value.requires_grad for value in bottleneck.statistics(given).values())


def gradients(model, loss: torch.Tensor) -> dict[str, float]:
    """Greatest absolute gradient of every parameter that the loss moves."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    moved = {name: float(g.abs().max()) for name, g in zip(names, found, strict=True) if g is not None}
    return {name: size for name, size in moved.items() if size > 0}


def test_each_loss_moves_only_what_it_may(model):
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    losses = model(x).losses
    moved = {name: set(gradients(model, loss)) for name, loss in losses.items()}
    learnt = {name for name, _ in model.named_parameters() if name.startswith("bottleneck.")}
    assert learnt <= set.union(*moved.values())
    if "codebook_loss" in losses:  # the one loss from which codes learn, and nothing but codes
        codes = moved["codebook_loss"]
        assert codes and codes <= learnt, f"codebook_loss moves {codes}; it may move the bottleneck's parameters alone"
        assert not any(names & codes for loss, names in moved.items() if loss != "codebook_loss")
    assert {"encoder.layers.0.weight", "decoder.layers.0.body.0.weight"} <= moved["recon_loss"]  # the first of each
    for name in moved.keys() - {"recon_loss"}:
        assert not any(parameter.startswith("decoder.") for parameter in moved[name])


def test_losses_are_means_over_every_element(model):
    x = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z_e = model.train().encode(x)
    model.bottleneck(z_e)  # in training once, for those that start from data
    z_e = model.eval().encode(x)
    _, losses, indices = model.bottleneck(z_e)
    reconstruction, named, _ = model(x)
    assert named["recon_loss"].item() == pytest.approx(sum_of_squares(reconstruction, x) / x.numel(), rel=1e-5)
    codes = getattr(model.bottleneck, "unit_codes", getattr(model.bottleneck, "codebook", None))
    if "commitment_loss" in losses and (codes is None or codes.shape[1] == D):  # else latents are compared elsewhere
        if codes is not None:
            first = indices if indices.dim() == 3 else indices[..., 0]
            z_q = codes[first].permute(0, 3, 1, 2)
        else:  # without continuous latents the decoder sees what the loss compares
            z_q = model.bottleneck.decompress(*model.bottleneck.compress(z_e))
        if getattr(model.bottleneck, "cosine", False):
            z_e = torch.nn.functional.normalize(z_e, dim=1)
        expected = pytest.approx(sum_of_squares(z_e, z_q) / z_e.numel(), rel=1e-5)
        assert losses["commitment_loss"].item() == expected
        assert losses.get("codebook_loss", losses["commitment_loss"]).item() == expected


def sum_of_squares(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).square().sum().item()


def test_under_autocast_a_bottleneck_works_in_float32(model):
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    seen = []
    model.bottleneck.register_forward_pre_hook(
        lambda _, inputs: seen.append((inputs[0].dtype, torch.is_autocast_enabled("cpu")))
    )
    with torch.autocast("cpu", torch.bfloat16):
        reconstruction, losses, _ = model(x)
    assert seen == [(torch.float32, False)]
    assert {reconstruction.dtype, *(value.dtype for value in losses.values())} == {torch.float32}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_bottleneck_imports_only_what_its_stage_depends_on(file):
    """DVC retrains a run when one of these files or the bottleneck's own changes, and for no other file."""
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    files = {path for name in imported if name.startswith("vqlib") for path in module_files(name)}
    assert files <= {*TRAINING_CODE, "vqlib/__init__.py"}


def module_files(name: str) -> list[str]:
    path = name.replace(".", "/")
    return [file for file in (f"{path}.py", f"{path}/__init__.py") if (ROOT / file).is_file()]
