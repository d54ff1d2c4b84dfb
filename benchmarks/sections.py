"""The sections of reports/benchmarks: the result of a part as Markdown and its figures by name."""

from benchmarks import plots
from benchmarks.measure import quartiles
from benchmarks.text import duration, megabytes, middle, size_of, table, verdict
from vqlib.reporting.tables import number


def step(result: dict) -> tuple[str, dict]:
    goal = 8 if result["device"] == "cuda" else 2.5
    rows, ratios = [], []
    for row in result["speed"]:
        times = {way: middle(seconds) for way, seconds in row["seconds"].items()}
        paired = [b / a for a, b in zip(row["seconds"]["ours"], row["seconds"]["straightforward"], strict=True)]
        ratios.append(middle(paired))
        for way, seconds in times.items():
            dtype = row["precision"] if way == "ours" else "float32"
            share = row["operations"] / seconds / result["peaks"][dtype]
            rows.append(
                [
                    f"{size_of(row)}: {way}",
                    dtype,
                    f"{seconds:.4g} s",
                    number(row["batch"] / seconds, 3),
                    f"{share:.0%}",
                    megabytes(row["memory"][way]),
                    f"{middle(paired):.2f}" if way == "ours" else "1",
                ]
            )
    peaks = ", ".join(f"{name} {number(value / 1e9, 3)} GFLOP/s" for name, value in result["peaks"].items())
    first = result["speed"][0]
    text = (
        "`vq`, whole steps. *Ours* is `vqlib.training.train` itself, held at its log intervals; *straightforward* is "
        "[benchmarks/naive.py](../../benchmarks/naive.py): the same networks in float32, contiguous, JPEG files read "
        "by a "
        "DataLoader, Adam as it comes, `.item()` at every step.\n\n"
        + table(["", "networks in", "step", "images/s", "of the matmul peak", "peak memory", "times as fast"], rows)
        + f"\nMedians of {first['rounds']} rounds of {steps_in(first)}. Matrix-multiply peak of this machine: "
        f"{peaks}. "
        "Operations are counted by torch's own counter, forward and backward; memory is the peak beyond what the "
        "process "
        "held before, its images not counted.\n\n"
        + f"Goal: at least {goal:g} times as fast; at the paper's size it is {ratios[0]:.2f}: "
        f"{verdict(ratios[0] >= goal)}.\n"
    )
    if result["device"] == "cpu" and result["precision"] == "float32":
        text += (
            "This processor has no bfloat16 arithmetic, so both ways compute the same operations in float32, "
            "and what is "
            "left to gain is the layout in memory, the input and the optimizer.\n"
        )
    whole = middle(first["seconds"]["ours"]) * 39_100
    text += f"The paper's whole run, 39,100 steps, would take {duration(whole)} here (step times 39,100).\n\n"
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
        f"the same "
        "seeds in both precisions:\n\n"
        + table(["seed", "float32", "bfloat16", "difference"], rows)
        + f"\nThe largest difference between precisions is {number(apart, 2)}, the spread over seeds in float32 "
        f"{number(spread, 2)}: {'within it' if apart <= spread else '**beyond it**'}.\n\n"
        "Codes, chosen in float32, against a float64 search on the latents of validation images:\n\n"
        + table(["model", "positions", "the same code"], agreement)
        + f"\nGoal: at least 99.9 %; the lowest is {lowest:.4%}: {verdict(lowest >= 0.999)}.\n"
    )


def bottlenecks(result: dict) -> tuple[str, dict]:
    text = (
        "Whole training steps of every variant in params.yaml, in turns, as differences to `identity` in the "
        "same round; and "
        "the bottleneck alone, forward and backward, on random latents, in percent of the step of `vq`, which is "
        "the finer "
        "measure: differences between whole steps of a percent drown in the noise of a shared machine.\n"
    )
    for steps, alone in zip(result["steps"], result["alone"], strict=True):
        base, of_vq = steps["seconds"][result["reference"]], middle(steps["seconds"]["vq"])
        rows = []
        for name, seconds in steps["seconds"].items():
            over = quartiles([a / b - 1 for a, b in zip(seconds, base, strict=True)])
            by_itself = middle(alone["seconds"][name])
            more = (by_itself - middle(alone["seconds"]["vq"])) / of_vq
            rows.append(
                [
                    f"`{name}`",
                    f"{1000 * middle(seconds):,.1f} ms",
                    f"{over['median']:+.1%} ({over['low']:+.1%} to {over['high']:+.1%})",
                    f"{1000 * by_itself:,.2f} ms",
                    f"{by_itself / of_vq:.2%}",
                    f"{more:+.2%}",
                ]
            )
        text += (
            f"\n**{size_of(steps)}**, {steps['rounds']} rounds of {steps_in(steps)}; alone "
            f"{alone['rounds']} rounds:\n\n"
        )
        text += table(
            ["variant", "step", "over identity (quartiles)", "alone", "of vq's step", "over vq, of its step"], rows
        )
        judged = [n for n in steps["seconds"] if n.startswith(("projected", "frequency"))]
        extra = {n: (middle(alone["seconds"][n]) - middle(alone["seconds"]["vq"])) / of_vq for n in judged}
        if extra:
            worst = max(extra, key=extra.get)
            text += (
                f"\nGoal: projected and frequency at most 3 % over `vq`; the dearest is `{worst}` with "
                f"{extra[worst]:+.2%}: "
                f"{verdict(extra[worst] <= 0.03)}.\n"
            )
    masks = result["masks"]
    times = {name: middle(seconds) for name, seconds in masks["seconds"].items()}
    text += (
        f"\n**The released way of masking.** The paper's frequency code loops over all positions in Python. For one "
        f"batch "
        f"({size_of(masks)}):\n\n"
        + table(["mask", "time"], [[name, f"{1000 * value:,.2f} ms"] for name, value in times.items()])
        + f"\nThe loop takes {times['loop over positions'] / times['one comparison']:,.0f} times as long.\n"
    )
    return text, {"bottlenecks": plots.bottlenecks(result)}


def search(result: dict) -> tuple[str, dict]:
    rows = []
    for row in result["rows"]:
        rows.append(
            [
                f"{row['grid']}x{row['grid']} x {row['batch']}, K {row['codes']:,}",
                row["way"],
                f"{1000 * middle(row['seconds']):,.1f} ms",
                megabytes(row["memory"]),
                f"{row['agreement']:.3%}",
            ]
        )
    width = result["rows"][0]["width"]
    ours = max(row["memory"] or 0 for row in result["rows"] if row["way"] == "ours")
    text = (
        f"Random latents of {width} channels; each way gives codes and their vectors. Peak memory is beyond latents "
        f"and "
        "codebook. Agreement is with a search in float64.\n\n"
        + table(["positions, codes", "way", "time", "peak memory", "agreement"], rows)
        + f"\nOurs never takes more than {megabytes(ours)} here, since scores are computed in blocks of a fixed size "
        "(`vqlib.quantize.SEARCH_BUDGET`); what it holds besides is the latents' float32 rows, codes and vectors. "
        "Distances to all codes at "
        "once grow with positions times K.\n"
    )
    return text, {"search": plots.search(result)}


def around(result: dict) -> tuple[str, dict]:
    rows = [[f"`{name}`", f"{middle(seconds):.2f} s"] for name, seconds in result["starts"].items()]
    light = [middle(s) for name, s in result["starts"].items() if "torch" not in name]
    text = table(["started", "wall time"], rows)
    text += (
        f"\nGoal: under 2 s where torch is not needed; the slowest is {max(light):.2f} s: {verdict(max(light) < 2)}.\n"
    )
    if "no_op" in result:
        none = middle(result["no_op"])
        text += (
            f"\n`dvc repro` with nothing to do (the smallest experiment, one run): {none:.2f} s; goal under 3 s: "
            f"{verdict(none < 3)}.\n"
        )
    paper = result["paper"]
    loop = paper["step"] * paper["steps"]
    evaluation = paper["evaluation"] / paper["evaluated"] * paper["images"]
    if "stages" in result:
        outside = sum(result["stages"].values()) - result["loop"]
        rows = [[name, f"{seconds:.2f} s"] for name, seconds in result["stages"].items()]
        text += (
            "\nThe stages of the smallest experiment, one run, each as the pipeline starts it:\n\n"
            + table(["stage", "wall time"], rows)
            + f"\nThe training loop itself takes {result['loop']:.2f} s of this, so {outside:.1f} s are spent around "
            f"it; goal "
            f"under 30 s: {verdict(outside < 30)}.\n"
        )
        share = (outside + evaluation) / (loop + outside + evaluation)
        text += (
            f"\nAt the paper's size, computed: a loop of {paper['steps']:,} steps of {paper['step']:.4g} s is "
            f"{duration(loop)}; "
            f"evaluating {paper['images']:,} images, from {paper['evaluated']} measured, {duration(evaluation)}; "
            f"all else as in the "
            f"smallest, {outside:.1f} s. Outside the loop: {share:.2%}; goal under 5 %: {verdict(share < 0.05)}.\n"
        )
    return text, {}


def growth(result: dict) -> tuple[str, dict]:
    text = f"`vq`, ours, one size changed at a time from {size_of(result['base'])}.\n"
    for axis in dict.fromkeys(row["axis"] for row in result["rows"]):
        points = [row for row in result["rows"] if row["axis"] == axis]
        rows = []
        for row in points:
            seconds = middle(row["seconds"])
            rows.append(
                [
                    size_of(row),
                    number(row["batch"] / seconds, 3),
                    f"{1000 * seconds / row['batch']:.3g} ms",
                    f"{row['operations'] / row['batch'] / 1e9:.3g}",
                    f"{row['operations'] / seconds / result['peak']:.0%}",
                    megabytes(row["memory"]),
                ]
            )
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
        f"{number(time, 3)} "
        f"times the time. The share of the peak is best at {points[shares.index(best)][axis]:,} ({best:.0%}) and "
        f"within a fifth of that "
        f"from {near:,} on. {WHY[axis]}"
    )


WHY = {
    "batch": "Below that, what a step costs whatever its size weighs: the optimizer, the launch of each operation, "
    "the sums of "
    "the log.",
    "size": "An image's operations grow with its pixels and nothing else does, so images a second fall with the "
    "square; larger "
    "activations leave the cache, which the share of the peak shows.",
    "codes": "The search is one product of all positions with all codes; it shows once K times the width is no "
    "longer small "
    "beside the network's own operations, and its memory does not grow with K but for the codebook, its gradient and "
    "Adam's two "
    "moments.",
    "width": "Operations grow with the square of the width and memory traffic with the width, so narrow networks "
    "wait for "
    "memory (batch norm, ReLU) and wide ones compute.",
}
