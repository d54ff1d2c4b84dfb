"""A bottleneck that breaks its contract is refused before it is trained, in one line that names file and fault."""

import pytest
import torch
from support import NETWORK, VARIANTS

from vqlib.bottlenecks import BottleneckBase
from vqlib.contract import LOGGED, check_bottleneck
from vqlib.errors import ParameterError
from vqlib.model import make_model
from vqlib.params import ROOT
from vqlib.quantize import straight_through
from vqlib.training import Interval

D = NETWORK.width


class Rounded(BottleneckBase):
    """Keeps the contract: every number rounded, as its symbol, from 0 to 2."""

    alphabets = (3,) * D

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, z_e):
        indices, _ = self.compress(z_e)
        return straight_through(z_e, self.decompress(indices, None)), {"size_loss": z_e.square().mean()}, indices

    def compress(self, z_e):
        return (z_e / self.scale).clamp(-1, 1).round().long().add(1).permute(0, 2, 3, 1), None

    def decompress(self, indices, continuous):
        return (indices - 1).permute(0, 3, 1, 2) * self.scale


class Offset(Rounded):
    """One learnt offset a position: another grid than the images' cannot pass."""

    def __init__(self):
        super().__init__()
        self.offset = torch.nn.Parameter(torch.zeros(2, 3))

    def forward(self, z_e):
        return (super().forward(z_e)[0] + self.offset, *super().forward(z_e)[1:])

    def decompress(self, indices, continuous):
        return super().decompress(indices, continuous) + self.offset


def altered(**methods):
    return type("Altered", (Rounded,), methods)


def apart(**methods):
    """Altered, with a forward that does not go through what is altered."""
    return altered(forward=lambda self, z_e: Rounded().forward(z_e), **methods)


def of_forward(change):
    return altered(forward=lambda self, z_e: change(*Rounded.forward(self, z_e)))


def reads_a_value(self):
    Rounded.__init__(self)
    self.start = self.scale.item()


def begins_without_steps(self):
    pass


BROKEN = {
    "no compress": (type("Bare", (BottleneckBase,), {"forward": lambda self, z_e: (z_e, {}, None)}), "has no compress"),
    "shape": (of_forward(lambda z, losses, indices: (z[..., 1:], losses, indices)), "of the same shape and type, not"),
    "type": (of_forward(lambda z, losses, indices: (z.double(), losses, indices)), "not torch.float64 of (3, "),
    "recon_loss": (of_forward(lambda z, losses, indices: (z, {"recon_loss": z.mean()}, indices)),
                   "'recon_loss' may not name a loss"),
    "name": (of_forward(lambda z, losses, indices: (z, {"size": z.mean()}, indices)), "'size' may not name a loss"),
    "vector": (of_forward(lambda z, losses, indices: (z, {"a_loss": z.mean(1)}, indices)), "a_loss must be one number"),
    "no alphabets": (altered(alphabets=()), f"have {D} symbols a position, alphabets 0"),
    "too few levels": (altered(alphabets=(2,) * D), "symbol 0 of forward is from 0 to 2, its alphabet has 2"),
    "no indices": (of_forward(lambda z, losses, indices: (z, losses, None)), "no indices, so alphabets must be ()"),
    "int32": (altered(compress=lambda self, z_e: (Rounded.compress(self, z_e)[0].int(), None)), "must be int64 of"),
    "integers": (altered(compress=lambda self, z_e: (Rounded.compress(self, z_e)[0], z_e.long())),
                 "continuous must be None or floats"),
    "decompress": (altered(decompress=lambda self, indices, _: Rounded.decompress(self, indices, _) + torch.rand(())),
                   "decompress must give back what forward lets through"),
    "not finite": (of_forward(lambda z, losses, indices: (z / 0, losses, indices)), "numbers that are not finite"),
    "not finite in training": (altered(forward=lambda self, z_e: (
        Rounded.forward(self, z_e)[0] * (torch.inf if self.training else 1), *Rounded.forward(self, z_e)[1:])),
        "forward in training on latents of (3, 8, 5, 2) gives numbers that are not finite"),
    "no gradient": (of_forward(lambda z, losses, indices: (z.detach(), losses, indices)), "and none arrives"),
    "values": (altered(__init__=reads_a_value), "__init__ must work without values"),
    "two of forward": (of_forward(lambda z, losses, indices: (z, losses)),
                       "forward on latents of (3, 8, 2, 3) must give z, losses and indices, not tuple of 2"),
    "z alone": (of_forward(lambda z, losses, indices: z), "must give z, losses and indices, not torch.float32 of (3, "),
    "losses None": (of_forward(lambda z, losses, indices: (z, None, indices)), "must be a dict, not NoneType"),
    "losses list": (of_forward(lambda z, losses, indices: (z, [z.mean()], indices)), "must be a dict, not list of 1"),
    "a number as name": (of_forward(lambda z, losses, indices: (z, {1: z.mean()}, indices)), "1 may not name a loss"),
    "one of compress": (apart(compress=lambda self, z_e: Rounded.compress(self, z_e)[0]),
                        "must give indices and continuous, not torch.int64 of (3, 2, 3, 8)"),
    "list of indices": (of_forward(lambda z, losses, indices: (z, losses, indices.tolist())),
                        "must be int64 of (B, h, w) or (B, h, w, Q), not list of 3"),
    "one alphabet": (altered(alphabets=16), "alphabets must be a tuple of whole numbers, each above 0, not 16"),
    "half a symbol": (altered(alphabets=(2.5,) * D), "alphabets must be a tuple of whole numbers, each above 0, not ("),
    "begin": (altered(begin=begins_without_steps), "begins_without_steps() takes 1 positional argument but 2 were"),
    "forward": (altered(forward=begins_without_steps), "takes 1 positional argument but 2 were"),
    "continuous": (altered(compress=lambda self, z_e: (Rounded.compress(self, z_e)[0], z_e.mean())),
                   "continuous must be None or floats"),
    "double": (apart(decompress=lambda self, indices, _: Rounded.decompress(self, indices, _).double()),
               "decompress must give back what forward lets through"),
    "no statistics": (altered(statistics=lambda self, counts: None), "statistics(counts) must give a dict, not "),
    "statistics without counts": (altered(statistics=lambda self, counts: None if counts is None else {}),
                                  "statistics(None) must give a dict, not NoneType"),
    "a statistic a code": (altered(statistics=lambda self, counts: {"used": counts}),
                           "used of statistics(counts) must be one number, not torch.int64 of (3,)"),
    "text": (altered(statistics=lambda self, counts: {"used": "3"}), "must be one number, not str"),
    "complex": (altered(statistics=lambda self, counts: {"used": torch.tensor(1j)}), "must be one number, not torch.c"),
    "a number for a statistic": (altered(statistics=lambda self, counts: {3: 1.0}), "3 may not name a statistic"),
    "the error": (altered(statistics=lambda self, counts: {"recon_loss": 99}), "'recon_loss' may not name a statistic"),
    "the step": (altered(statistics=lambda self, counts: {"step": 1}), "'step' may not name a statistic"),
    "a loss": (altered(statistics=lambda self, counts: {"size_loss": 1.0}), "'size_loss' may not name a statistic"),
}  # fmt: skip


@pytest.fixture
def use(monkeypatch):
    """Makes a class the bottleneck of every variant."""
    return lambda kind: monkeypatch.setattr("vqlib.model.make_bottleneck", lambda name, **numbers: kind())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_passes_and_no_generator_moves(name):
    before = torch.random.get_rng_state()
    check_bottleneck(NETWORK, VARIANTS[name])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_that_keeps_the_contract_passes(use):
    use(Rounded)
    check_bottleneck(NETWORK, VARIANTS["vq"])


def warms_up(self, z_e):
    """Nothing passes in the first step."""
    self.passed = getattr(self, "passed", 0) + self.training
    z, losses, indices = Rounded.forward(self, z_e)
    return z.detach() if self.training and self.passed < 2 else z, losses, indices


def works_in_place(self, z_e):
    _, losses, indices = Rounded.forward(self, z_e)
    z = self.decompress(indices, None) if not self.training else z_e.mul_(0.5)
    return z, losses, indices


ODD = {
    "a zero at the start": of_forward(lambda z, losses, indices: (z + 0 * z.mean(), losses, indices)),
    "a mean of zero": altered(
        forward=lambda self, z_e: (straight_through(z_e - z_e.mean(1, True), Rounded.forward(self, z_e)[0].detach()),
                                   *Rounded.forward(self, z_e)[1:])),
    "a warm-up": altered(forward=warms_up),
    "statistics of Python": altered(statistics=lambda self, counts: {"used": 3, "share": torch.tensor(3).numpy() / 8}),
    "in place": altered(forward=works_in_place),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_and_keeps_the_contract_passes(use, kind):
    use(ODD[kind])
    check_bottleneck(NETWORK, VARIANTS["vq"])


@pytest.mark.parametrize("fault", BROKEN)
def test_one_that_does_not_is_refused_in_one_line(use, fault):
    kind, said = BROKEN[fault]
    use(kind)
    with pytest.raises(ParameterError) as caught:
        check_bottleneck(NETWORK, VARIANTS["vq"])
    assert str(caught.value).startswith("vqlib/bottlenecks/vq.py: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_of_its_own_comes_out_as_it_is(use):
    use(Offset)
    with pytest.raises(RuntimeError, match="must match"):
        check_bottleneck(NETWORK, VARIANTS["vq"])


SLIPS = {
    "a name": ("    def forward(self, z_e):\n        return z_q\n", ", line 3: NameError: name 'z_q' is not defined"),
    "no width": (
        "    def __init__(self, num_embeddings):\n        super().__init__()\n",
        ": TypeError: Bottleneck.__init__",
    ),
    "a module": ("    import nowhere\n", ", line 2: ModuleNotFoundError: No module named 'nowhere'"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_an_error_in_the_bottlenecks_file_names_its_line(monkeypatch, slip):
    source, said = SLIPS[slip]
    code = compile(f"class Bottleneck(Rounded):\n{source}", ROOT / "vqlib/bottlenecks/vq.py", "exec")

    def make_bottleneck(name, **numbers):
        space = {"Rounded": Rounded}
        exec(code, space)
        return space["Bottleneck"]() if slip == "a name" else space["Bottleneck"](**numbers)

    monkeypatch.setattr("vqlib.model.make_bottleneck", make_bottleneck)
    with pytest.raises(ParameterError) as caught:
        check_bottleneck(NETWORK, VARIANTS["vq"])
    assert str(caught.value).startswith(f"vqlib/bottlenecks/vq.py{said}")


def test_no_statistic_may_replace_a_column_that_the_loop_writes():
    model = make_model(NETWORK, VARIANTS["identity"])
    interval = Interval(model, torch.device("cpu"))
    losses = model(torch.rand(1, 3, 8, 8)).losses
    interval.add(1, losses, torch.tensor(1.0), None)
    assert {"step", "epoch", "split", "perplexity", *interval.means(model)} == LOGGED | losses.keys()


def test_an_option_out_of_its_range_is_named():
    wrong = VARIANTS["gain_shape_4"].model_copy(update={"options": {"gain_bits": 99}})
    with pytest.raises(ParameterError, match=r"variants\.gain_shape_4\.gain_bits is 99; it must be"):
        check_bottleneck(NETWORK, wrong)
