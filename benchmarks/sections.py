"""The sections of reports/benchmarks: the result of a part as Markdown and its figures by name."""

from benchmarks import plots
from benchmarks.measure import PAPER_STEPS
from benchmarks.text import duration, effect, megabytes, middle, size_of, table, verdict
from vqlib.params import load_variants
from vqlib.quantize import SEARCH_BUDGET
from vqlib.reporting.tables import number


def step(result: dict) -> tuple[str, dict]:
    goal = 8 if result["device"] == "cuda" else 2.5
    rows, ratios = [], []
    for row in result["speed"]:
        pairs = zip(row["seconds"]["ours"], row["seconds"]["straightforward"], strict=True)
        ratios.append(middle([theirs / ours for ours, theirs in pairs]))
        for way in row["seconds"]:
            dtype, seconds = row["precision"] if way == "ours" else "float32", middle(row["seconds"][way])
            rows.append([
                f"{size_of(row)}: {way}",
                dtype,
                f"{seconds:.4g} s",
                number(row["batch"] / seconds, 3),
                f"{row['operations'] / seconds / result['peaks'][dtype]:.0%}",
                megabytes(row["memory"][way]),
                f"{ratios[-1]:.2f}" if way == "ours" else "1",
            ])  # fmt: skip
    peaks = ", ".join(f"{name} {number(value / 1e9, 3)} GFLOP/s" for name, value in result["peaks"].items())
    first = result["speed"][0]
    head = ["", "networks in", "step", "images/s", "of the matmul peak", "peak memory", "times as fast"]
    text = (
        "`vq`, whole steps. *Ours* is `vqlib.training.train` itself, held at its log intervals; *straightforward* is "
        "[benchmarks/naive.py](../../benchmarks/naive.py): the same networks in float32, contiguous, JPEG files read "
        "by a DataLoader, Adam as it comes, `.item()` at every step.\n\n"
        f"{table(head, rows)}\n"
        f"Medians of {first['rounds']} rounds of {steps_in(first)}. *Times as fast* is the median over rounds of the "
        "ratio of the two steps of one round, which what disturbs both leaves alone; it is not the ratio of the two "
        f"medians beside it. Matrix-multiply peak of this machine: {peaks}. Operations are counted by torch's own "
        "counter, forward and backward. Memory is the peak of a process of its own beyond what it held before, its "
        "images and the processes of the DataLoader not counted.\n\n"
        f"Goal: at least {goal:g} times as fast; at the paper's size it is {ratios[0]:.2f}: "
        f"{verdict(ratios[0] >= goal)}.\n"
    )
    if result["device"] == "cpu" and result["precision"] == "float32":
        text += (
            "This processor has no bfloat16 arithmetic, so both ways compute the same operations in float32, and what "
            "is left to gain is the layout in memory, the input and the optimizer.\n"
        )
    whole = duration(middle(first["seconds"]["ours"]) * PAPER_STEPS)
    text += f"The paper's whole run of {PAPER_STEPS:,} steps would take {whole} here (steps times a step).\n\n"
    return text + _errors(result["errors"]), {"step": plots.step(result)}


def steps_in(row: dict) -> str:
    return "one step" if row["steps"] == 1 else f"{row['steps']} steps"


def _errors(errors: dict) -> str:
    by_seed: dict[int, dict[str, float]] = {}
    for row in errors["errors"]:
        by_seed.setdefault(row["seed"], {})[row["precision"]] = row["mse"]
    rows = [
        [str(seed), number(pair["float32"]), number(pair["bfloat16"]), f"{pair['bfloat16'] / pair['float32'] - 1:+.2%}"]
        for seed, pair in by_seed.items()
    ]
    exact = [pair["float32"] for pair in by_seed.values()]
    spread = max(exact) - min(exact)
    apart = max(abs(pair["bfloat16"] - pair["float32"]) for pair in by_seed.values())
    lowest = min(row["share"] for row in errors["agreement"])
    agreement = [[row["weights"], f"{row['positions']:,}", f"{row['share']:.4%}"] for row in errors["agreement"]]
    return (
        "### Does speed change what is learnt?\n\n"
        f"Validation MSE after {errors['steps']:,} steps ({size_of(errors)}, {errors['images']:,} training images), "
        "the same seeds in both precisions:\n\n"
        f"{table(['seed', 'float32', 'bfloat16', 'difference'], rows)}\n"
        f"The largest difference between precisions is {number(apart, 2)}, the spread over seeds in float32 "
        f"{number(spread, 2)}: {'within it' if apart <= spread else '**beyond it**'}.\n\n"
        "Codes, chosen in float32, against a float64 search on the latents of validation images:\n\n"
        f"{table(['model', 'positions', 'the same code'], agreement)}\n"
        f"Goal: at least 99.9 %; the lowest is {lowest:.4%}: {verdict(lowest >= 0.999)}.\n"
    )


def bottlenecks(result: dict) -> tuple[str, dict]:
    reference, measured = result["reference"], list(result["steps"][0]["seconds"])
    text = (
        f"Whole training steps of {len(measured)} variants, in turns, as differences to `{reference}` in the same "
        "round (the median of those, not the difference of the medians); no number where its quartiles are wider than "
        "itself. And the bottleneck alone, forward and backward, on random latents, in percent of the step of `vq`, "
        "which is the finer measure: differences of a percent between whole steps drown in the noise of a shared "
        "machine.\n"
    )
    if lacking := [f"`{name}`" for name in load_variants() if name not in measured]:
        text += f"\nOf the variants that params.yaml has now, not measured: {', '.join(lacking)}.\n"
    head = ["variant", "step", f"over {reference} (quartiles)", "alone", "of vq's step", "over vq, of its step"]
    for steps, alone in zip(result["steps"], result["alone"], strict=True):
        base, of_vq = steps["seconds"][reference], middle(steps["seconds"]["vq"])
        by_itself = {name: middle(seconds) for name, seconds in alone["seconds"].items()}
        over_vq = {name: (seconds - by_itself["vq"]) / of_vq for name, seconds in by_itself.items()}
        rows = []
        for name, seconds in steps["seconds"].items():
            over = effect([a / b for a, b in zip(seconds, base, strict=True)])
            rows.append([
                f"`{name}`",
                f"{1000 * middle(seconds):,.1f} ms",
                "the reference" if name == reference else over,
                f"{1000 * by_itself[name]:,.2f} ms",
                f"{by_itself[name] / of_vq:.2%}",
                "the reference" if name == "vq" else f"{over_vq[name]:+.2%}",
            ])  # fmt: skip
        text += (
            f"\n**{size_of(steps)}**, {steps['rounds']} rounds of {steps_in(steps)}; alone {alone['rounds']} rounds:"
            f"\n\n{table(head, rows)}"
        )
        if judged := [name for name in over_vq if name.startswith(("projected", "frequency"))]:
            worst = max(judged, key=over_vq.get)
            text += (
                f"\nGoal: projected and frequency at most {plots.GOAL:.0%} over `vq`, by the last column; the dearest "
                f"is `{worst}` with {over_vq[worst]:+.2%}: {verdict(over_vq[worst] <= plots.GOAL)}.\n"
            )
    masks = result["masks"]
    times = {name: middle(seconds) for name, seconds in masks["seconds"].items()}
    rows = [[name, f"{1000 * value:,.2f} ms"] for name, value in times.items()]
    text += (
        "\n**The released way of masking.** The paper's frequency code loops over all positions in Python. For one "
        f"batch ({size_of(masks)}):\n\n{table(['mask', 'time'], rows)}\n"
        f"The loop takes {times['loop over positions'] / times['one comparison']:,.0f} times as long.\n"
    )
    return text, {"bottlenecks": plots.bottlenecks(result)}


def search(result: dict) -> tuple[str, dict]:
    rows = [
        [
            f"{row['grid']}x{row['grid']} x {row['batch']}, K {row['codes']:,}",
            row["way"],
            f"{1000 * middle(row['seconds']):,.1f} ms",
            megabytes(row["memory"]),
            f"{row['agreement']:.3%}",
        ]
        for row in result["rows"]
    ]
    ours = max(row["memory"] or 0 for row in result["rows"] if row["way"] == "ours")
    text = (
        f"Random latents of {result['rows'][0]['width']} channels; each way gives codes and their vectors. Peak memory "
        "is beyond latents and codebook, of a process of its own. Agreement is with a search in float64.\n\n"
        f"{table(['positions, codes', 'way', 'time', 'peak memory', 'agreement'], rows)}\n"
        f"Ours takes at most {megabytes(ours)} here: scores are computed in blocks of "
        f"{megabytes(SEARCH_BUDGET[result['device']])} (`vqlib.quantize.SEARCH_BUDGET`, the line in the figure, which "
        "shows less than 1 MB as 1 MB), and beside them there are codes, vectors and what the matrix product packs. "
        "Distances to all codes at once grow with positions times K.\n"
    )
    return text, {"search": plots.search(result)}


def around(result: dict) -> tuple[str, dict]:
    rows = [[f"`{name}`", f"{middle(seconds):.2f} s"] for name, seconds in result["starts"].items()]
    light = max(middle(s) for name, s in result["starts"].items() if "torch" not in name)
    text = (
        f"{table(['started', 'wall time'], rows)}\n"
        f"Goal: under 2 s where torch is not needed; the slowest is {light:.2f} s: {verdict(light < 2)}.\n"
    )
    if "no_op" in result:
        text += _no_op(result["no_op"])
    if "stages" in result:
        text += _stages(result)
    return text, {}


def _no_op(no_op: dict) -> str:
    small, default = (middle(no_op[name]) for name in ("smallest", "default"))
    judged = verdict(default < 3) if no_op["default_is_current"] else "**not judged**, some of it was not up to date"
    return (
        f"\n`dvc repro` with nothing to do: {small:.2f} s for the smallest experiment, with one run; goal under 3 s: "
        f"{verdict(small < 3)}. For the default experiment, `sample` with {no_op['default_runs']} runs, it is "
        f"{default:.2f} s: {judged}. That is `dvc repro --dry --allow-missing` in a fresh clone, which lacks its "
        "models.\n"
    )


def _stages(result: dict) -> str:
    paper = result["paper"]
    loop = paper["step"] * paper["steps"]
    evaluation = paper["evaluation"] / paper["evaluated"] * paper["images"]
    outside = sum(result["stages"].values()) - result["loop"]
    share = (outside + evaluation) / (loop + outside + evaluation)
    rows = [[name, f"{seconds:.2f} s"] for name, seconds in result["stages"].items()]
    return (
        "\nThe stages of the smallest experiment, one run, each as the pipeline starts it:\n\n"
        f"{table(['stage', 'wall time'], rows)}\n"
        f"The training loop itself takes {result['loop']:.2f} s of this, so {outside:.1f} s are spent around it; goal "
        f"under 30 s: {verdict(outside < 30)}.\n\n"
        f"At the paper's size, computed: a loop of {paper['steps']:,} steps of {paper['step']:.4g} s is "
        f"{duration(loop)}; evaluating {paper['images']:,} test and as many training images, from "
        f"{paper['evaluated']} of each measured, {duration(evaluation)}; all else as in the smallest, {outside:.1f} s. "
        f"Outside the loop: {share:.2%}; goal under 5 %: {verdict(share < 0.05)}. Priors are not in this.\n"
    )


def growth(result: dict) -> tuple[str, dict]:
    text = (
        f"`vq`, ours, one size changed at a time from {size_of(result['base'])}. Memory is that of a process of its "
        "own for each row, beyond program and images.\n"
    )
    for axis in dict.fromkeys(row["axis"] for row in result["rows"]):
        points = [row for row in result["rows"] if row["axis"] == axis]
        rows = []
        for row in points:
            seconds = middle(row["seconds"])
            rows.append([
                size_of(row),
                number(row["batch"] / seconds, 3),
                f"{1000 * seconds / row['batch']:.3g} ms",
                f"{row['operations'] / row['batch'] / 1e9:.3g}",
                f"{row['operations'] / seconds / result['peak']:.0%}",
                megabytes(row["memory"]),
            ])  # fmt: skip
        head = [f"against {WORDS[axis]}", "images/s", "an image", "GFLOP an image", "of the matmul peak", "memory"]
        text += f"\n{table(head, rows)}\n{bend(axis, points, result['peak'])}\n"
    return text, {"growth": plots.growth(result)}


WORDS = {"batch": "the batch", "size": "the image size", "codes": "the number of codes K", "width": "the width"}


def bend(axis: str, points: list[dict], peak: float) -> str:
    """A sentence on where images a second leave the line that operations alone would give."""
    shares = [row["operations"] / middle(row["seconds"]) / peak for row in points]
    best = max(shares)
    near = next(row[axis] for row, share in zip(points, shares, strict=True) if share >= 0.8 * best)
    low, high = points[0], points[-1]
    work = (high["operations"] / high["batch"]) / (low["operations"] / low["batch"])
    time = (middle(high["seconds"]) / high["batch"]) / (middle(low["seconds"]) / low["batch"])
    return (
        f"From {low[axis]:,} to {high[axis]:,} an image needs {number(work, 3)} times the operations and "
        f"{number(time, 3)} times the time. The share of the peak is best at {points[shares.index(best)][axis]:,} "
        f"({best:.0%}) and within a fifth of that from {near:,} on. {WHY[axis]}"
    )


WHY = {
    "batch": "Below that, what a step costs whatever its size weighs: the optimizer, the launch of each operation, the "
    "sums of the log.",
    "size": "An image's operations grow with its pixels and nothing else does, so images a second fall with the "
    "square; larger activations leave the cache, which the share of the peak shows.",
    "codes": "The search is one product of all positions with all codes; it shows once K times the width is no longer "
    "small beside the network's own operations, and its memory does not grow with K but for the codebook, its gradient "
    "and Adam's two moments.",
    "width": "Operations grow with the square of the width and memory traffic with the width, so narrow networks wait "
    "for memory (batch norm, ReLU) and wide ones compute.",
}


SAMPLING_GOALS = {"transformer": 10, "pixelcnn": 5}  # times as fast as whole passes, by how a prior's name begins


def prior_sampling(result: dict) -> tuple[str, dict]:
    ratios = {row["prior"]: row["seconds"]["whole passes"] / row["seconds"]["cached"] for row in result["rows"]}
    rows = [
        [row["prior"], *(f"{row['seconds'][way]:.2f} s" for way in ("cached", "whole passes")),
         f"{ratios[row['prior']]:.0f}"]
        for row in result["rows"]
    ]  # fmt: skip
    grid = " x ".join(map(str, result["shape"]))
    return (
        f"{result['images']} images of {grid} codes out of {result['codes']}, float32, one thread: with cached state "
        "(what `python -m vqlib sample` does) against a whole forward pass for every position, whose output layer "
        "covers the one position alone that is drawn. Processor seconds, the best of "
        f"{result['rounds']} rounds in turns; both draw the same in float64, which is checked first.\n\n"
        f"{table(['prior', 'cached', 'whole passes', 'ratio'], rows)}{_sampling_goals(ratios)}",
        {},
    )


def _sampling_goals(ratios: dict[str, float]) -> str:
    """A line for each kind of prior that has a goal, by its slowest."""
    lines = []
    for kind, goal in SAMPLING_GOALS.items():
        own = {name: ratio for name, ratio in ratios.items() if name.startswith(kind)}
        if own:
            name = min(own, key=own.get)
            lines.append(f"Goal for {kind}: at least {goal} times as fast; the least is {own[name]:.0f} ({name}): "
                         f"{verdict(own[name] >= goal)}.\n")  # fmt: skip
    return "".join(f"\n{line}" for line in lines)
