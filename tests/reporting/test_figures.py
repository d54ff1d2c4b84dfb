import io
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from vqlib.params import load_variants
from vqlib.reporting import figures, paper, question_figures, rate_figures
from vqlib.reporting.style import WIDTH, image_bytes, marker, palette

FEW = ["vq", "projected", "projected_rows", "identity"]
MANY = [*FEW, "vq_ema", "gain_shape_4", "projected_rows_guard", *(f"a_rather_long_name_{i}" for i in range(9))]


def history(models: list[str], seeds: int = 2) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    steps = np.arange(50, 2001, 50)
    frames = []
    for model in models:
        for seed in range(seeds):
            loss = draw.uniform(0.003, 0.03) * (1 + 9 * np.exp(-steps / 300))
            for split in ("train", "validation"):
                frames.append(pd.DataFrame({
                    "variant": model, "run": f"{model}-{seed}", "split": split, "step": steps, "recon_loss": loss,
                    "commitment_loss": loss / 2, "recon_loss_max": loss * 1.5,
                    "perplexity": np.nan if model == "identity" else 1 / loss,
                }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def losses(models: list[str], seeds: int = 1) -> pd.DataFrame:
    draw = np.random.default_rng(1)
    rows = [(model, model, loss, split, draw.uniform(0.001, 0.04))
            for model in models for loss in ("reconstruction", "quantization") for split in ("train", "test")
            for _ in range(seeds)]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "variant", "loss", "split", "value"])


def papers_losses() -> pd.DataFrame:
    rows = [(entry["title"], name, loss, split, entry[split][loss]) for name, entry in paper.LOSSES.items()
            for loss in ("reconstruction", "quantization") for split in ("train", "test")]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "variant", "loss", "split", "value"])


def points(models: list[str]) -> pd.DataFrame:
    """vq and every third model discrete, the others curves over two precisions."""
    rows = [(model, bits, 0.4 + bits * (place + 1) / 50, 0.5 + bits * (place + 1) / 16, 0.3 if place == 0 else np.nan,
             20 + 0.6 * place + bits / 100)
            for place, model in enumerate(models) for bits in ((32, 8) if place % 3 else (0,))]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "bits", "bpp", "nominal", "prior", "psnr"])


CURVE = [{"bpp": 0.5 * 1.5**k, "psnr": 20 + 2 * k} for k in range(8)]
CODECS = {"jpeg": {"mosaic": CURVE, "files": [point | {"bpp": point["bpp"] + 4} for point in CURVE]}}


def usage(models: list[str]) -> pd.DataFrame:
    rows = [(model, f"{model}-0", rank, 0.3 / (place + 1) / rank)
            for place, model in enumerate(models) for rank in (1, 4, 16, 64, 256)]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "run", "rank", "share"])


def gain_frames(models: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [(model, f"{model}-0", x, np.exp(-(x**2))) for model in models for x in np.linspace(-2, 2, 20)]
    return (pd.DataFrame(rows, columns=["model", "run", "middle", "density"]),
            pd.DataFrame(rows, columns=["model", "run", "value", "share"]))  # fmt: skip


def runs_of(models: list[str]) -> pd.DataFrame:
    return pd.DataFrame([{"variant": model, "run": f"{model}-{seed}", "rise": 1.1 + seed, "burst": 2 + 9 * seed,
                          "least_used_norm": 0.1, "late_peaks": seed > 1}
                         for model in models for seed in range(3)])  # fmt: skip


def ratios(models: list[str]) -> pd.DataFrame:
    return pd.DataFrame([{"model": model, "ratio": 1 / (1 + place), "low": np.nan if place else 0.9, "high": 1.1,
                          "bpp": 0.5625, "measured": np.nan if place else 0.33,
                          "perplexity": np.nan if model == "identity" else 30.0}
                         for place, model in enumerate(models)])  # fmt: skip


SETTINGS_OF_S = pd.DataFrame([{"S": s, "reconstruction": 0.02, "quantization": 0.01, "fraction": 0.1, "bpp": 1.0}
                              for s in (8, 312, 512)])  # fmt: skip


def images(count: int, seed: int = 0, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


REFERENCES = {split: {"recon_loss": 0.005, "commitment_loss": 0.006} for split in ("train", "validation")}


def every_figure(models: list[str]) -> dict[str, figures.Figure]:
    colours = palette([*models, *paper.LOSSES])
    rows = {f"{model}\n21.09 dB, 0.5625 bpp": images(16, seed) for seed, model in enumerate(models, 1)}
    return {
        "training_curves": figures.training_curves(history(models[1:3]), colours, REFERENCES),
        "learning_curves": figures.learning_curves(history(models), colours),
        "reconstructions": figures.reconstructions(images(16), rows),
        "loss_bars": figures.loss_bars(losses(models, seeds=3), papers_losses(), colours),
        "rate_distortion": rate_figures.rate_distortion(points(models), CODECS, colours),
        "usage": question_figures.codebook_usage(usage(models), colours),
        "gains": question_figures.gain_distributions(*gain_frames(models[:8]), colours),
        "frequency": question_figures.frequency(SETTINGS_OF_S, SETTINGS_OF_S[1:], colours["vq"]),
        "stability": question_figures.stability(runs_of(models), colours),
        "controls": question_figures.controls(ratios(models), colours),
    }


@pytest.mark.parametrize("models", [FEW, MANY], ids=["few", "many"])
def test_text_is_large_enough_and_neither_cut_nor_overlapping(models, monkeypatch):
    drawn: list[Text] = []
    draw = Text.draw
    monkeypatch.setattr(Text, "draw", lambda self, renderer: (drawn.append(self), draw(self, renderer))[1])
    for name, figure in every_figure(models).items():
        figure.draw_without_rendering()  # settles the layout
        drawn.clear()
        figure.draw_without_rendering()
        boxes = {text: Text.get_window_extent(text) for text in drawn if text.get_visible() and text.get_text().strip()}
        assert len(boxes) > 3, name
        for text, box in boxes.items():
            assert text.get_fontsize() >= 6.5, f"{name}: {text.get_text()}"
            width, height = figure.bbox.size
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside, f"{name}: {text.get_text()!r} is cut"
        for (one, a), (other, b) in combinations(boxes.items(), 2):
            shared = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(shared) <= 1, f"{name}: {one.get_text()!r} overlaps {other.get_text()!r}"


def test_every_figure_is_as_wide_as_two_columns_and_fits_on_a_page():
    for figure in every_figure(MANY).values():
        assert figure.get_size_inches()[1] <= 9.5
    for figure in every_figure(FEW).values():
        with Image.open(io.BytesIO(image_bytes(figure, "png"))) as image:
            assert image.width == round(WIDTH * 200)


def test_bytes_are_the_same_each_time_whatever_the_users_settings_and_hold_no_date():
    first = every_figure(FEW)
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 20, "legend.loc": "center", "figure.dpi": 50}):
        second = every_figure(FEW)
    for name in ("reconstructions", "loss_bars"):  # the report's test has them all
        png, pdf = (image_bytes(first[name], kind) for kind in ("png", "pdf"))
        assert png == image_bytes(second[name], "png"), name
        assert pdf == image_bytes(second[name], "pdf"), name
        assert b"CreationDate" not in pdf
        assert b"FontFile2" in pdf and b"/Type3" not in pdf  # embedded TrueType
        assert b"Software" not in png


def test_colours_are_distinct_and_stay_when_variants_are_added():
    names = [f"variant_{i}" for i in range(40)]
    before, after = palette([*FEW, *names[:3]]), palette([*FEW, *names])
    assert len(set(after.values())) == len(after) == 44
    assert all(after[name] == colour for name, colour in before.items())
    assert palette(["new", "projected"])["projected"] == palette(["projected"])["projected"]


def test_the_projects_variants_have_colours_that_can_be_told_apart():
    colours = palette(load_variants())
    rgb = {name: np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float) for name, colour in colours.items()}
    near = [(one, other) for one, other in combinations(rgb, 2) if np.linalg.norm(rgb[one] - rgb[other]) <= 40]
    assert not near  # of 441 between black and white
    assert "*" not in {marker(name, colours) for name in colours}  # the star is a rate under a prior


@pytest.mark.parametrize("models", [1, 4, 5, 6, 15, 40, 70])
def test_at_most_64_thumbnails_and_the_right_pixels(models):
    originals = images(16)
    rows = {str(i): images(16, seed=i) for i in range(1, models + 1)}
    mosaic = np.asarray(figures.reconstructions(originals, rows).axes[0].images[0].get_array())
    down, across = (mosaic.shape[0] + 1) // 9, (mosaic.shape[1] + 1) // 9  # size 8 and a gap of 1
    assert down == models + 1
    assert across == max(1, min(10, 64 // (models + 1)))
    assert down * across <= 64 or across == 1
    for row, expected in enumerate([originals, *rows.values()]):
        for column in range(across):
            block = mosaic[row * 9 : row * 9 + 8, column * 9 : column * 9 + 8]
            np.testing.assert_array_equal(block, expected[column])


def test_bars_are_as_long_as_the_means_of_the_losses():
    ours = losses(FEW, seeds=3)
    figure = figures.loss_bars(ours, papers_losses(), palette([*FEW, *paper.LOSSES]))
    drawn = [sorted(bar.get_width() for bar in ax.patches) for ax in figure.axes]
    for ax, (frame, loss) in zip(drawn, [(ours, "reconstruction"), (ours, "quantization"),
                                         (papers_losses(), "reconstruction"),
                                         (papers_losses(), "quantization")], strict=True):  # fmt: skip
        means = frame[frame["loss"] == loss].groupby(["model", "split"])["value"].mean()
        np.testing.assert_allclose(ax, sorted(means))


def test_a_model_without_a_codebook_has_no_quantization_bar():
    ours = losses(["vq", "identity"])
    ours.loc[(ours["model"] == "identity") & (ours["loss"] == "quantization"), "value"] = np.nan
    figure = figures.loss_bars(ours, papers_losses(), palette([*FEW, *paper.LOSSES]))
    assert [len(ax.patches) for ax in figure.axes[:2]] == [4, 2]


def test_training_curves_draw_every_run_its_peaks_and_the_papers_values():
    rows = history(["projected", "projected_rows"], seeds=2)
    figure = figures.training_curves(rows, palette(FEW), REFERENCES)
    assert [len(ax.lines) for ax in figure.axes] == [9, 5, 5, 5]  # runs, their maxima, the paper's
    one = rows[(rows["run"] == "projected-1") & (rows["split"] == "validation")]
    assert any(np.array_equal(line.get_ydata(), one["recon_loss"]) for line in figure.axes[2].lines)
    assert figure.axes[0].lines[-1].get_ydata()[0] == 0.005


def test_learning_curves_draw_the_mean_over_seeds():
    rows = history(["vq"], seeds=3)
    figure = figures.learning_curves(rows, palette(FEW))
    expected = rows[rows["split"] == "validation"].groupby("step")["recon_loss"].mean()
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), expected)


def test_less_than_a_decade_of_error_has_numbers_between_1_2_and_5():
    rows = history(["vq"])
    rows["recon_loss"] = np.where(rows["step"] < 1000, 0.1, 0.03)
    figure = figures.learning_curves(rows, palette(FEW))
    figure.draw_without_rendering()
    assert {label.get_text() for label in figure.axes[0].get_yticklabels(minor=True)} >= {"0.03", "0.04", "0.07"}


def test_seeds_of_a_model_differ_in_colour_and_have_their_names():
    figure = figures.training_curves(history(["projected"], seeds=3), palette(FEW), REFERENCES)
    assert len({line.get_color() for line in figure.axes[2].lines[:3]}) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()][:3] == [f"projected-{k}" for k in range(3)]


def test_a_run_of_one_interval_can_be_drawn():
    rows = history(["vq", "projected"])
    rows = rows[rows["step"] == 50]
    assert image_bytes(figures.learning_curves(rows, palette(FEW)), "png")
    figure = figures.training_curves(rows, palette(FEW), REFERENCES)
    assert figure.axes[0].lines[1].get_marker() == "."


def test_rate_distortion_draws_curves_points_and_codecs_on_logarithmic_axes():
    figure = rate_figures.rate_distortion(points(["vq", "projected", "identity"]), CODECS, palette(FEW))
    for ax in figure.axes:
        assert ax.get_xscale() == "log"
        joined = [line.get_xdata() for line in ax.lines]
        assert any(len(line) == 2 and np.allclose(line, [0.4 + 8 * 2 / 50, 0.4 + 32 * 2 / 50]) for line in joined)
        assert any(len(line) == 2 and np.allclose(line, [0.4, 0.5]) for line in joined)  # vq: coded and nominal
        assert any(np.allclose(line, 0.3) for line in joined)  # under a prior
        assert sum(len(line) == len(CURVE) for line in joined) == 2  # JPEG, a mosaic and a file each
    assert any(list(line.get_xdata()) == [24, 24] for line in figure.axes[0].lines)
    hollow = [line for line in figure.axes[1].lines if line.get_markerfacecolor() == "white"]
    np.testing.assert_allclose([line.get_xdata()[0] for line in hollow], [0.4 + 32 * 2 / 50])  # the paper's, as floats
    assert [{"vq", "projected", "JPEG"} <= {text.get_text() for text in ax.texts} for ax in figure.axes] == [True, True]


def test_the_close_view_has_the_models_of_few_bits_and_no_more():
    def of(model: str, *bpp: float) -> pd.DataFrame:
        return pd.DataFrame({"model": model, "bits": 0, "bpp": bpp, "nominal": 4.5, "prior": np.nan, "psnr": 21.0})

    both = pd.concat([points(["vq", "projected"]), of("frequency_8", 9.0)])
    figure = rate_figures.rate_distortion(both, {}, palette(["vq", "projected", "frequency_8"]))
    wide, close = ({text.get_text() for text in ax.texts} for ax in figure.axes)
    assert "frequency_8" in wide and "frequency_8" not in close and {"vq", "projected"} <= close
    assert figure.axes[1].get_xlim()[1] <= rate_figures.CLOSE
    for bpp in ((rate_figures.CLOSE,), (3.9, 4.3)):  # on the edge, and of seeds on both sides of it
        edge = pd.concat([points(["vq"]), of("projected", *bpp)])
        assert len(rate_figures.rate_distortion(edge, {}, palette(FEW)).axes) == 2


def test_runs_with_a_late_peak_are_named_at_it():
    rows = history(["projected", "projected_rows"])
    peak = (rows["run"] == "projected_rows-1") & (rows["step"] == 1500) & (rows["split"] == "train")
    rows.loc[peak, "recon_loss_max"] *= 20
    figure = figures.training_curves(rows, palette(FEW), REFERENCES)
    assert [text.get_text() for text in figure.axes[0].texts] == ["projected_rows-1"]
    assert figure.axes[0].texts[0].xy == (1500, rows.loc[peak, "recon_loss_max"].item())


def test_the_legend_names_no_codec_that_is_out_of_view():
    def legend(codecs: dict) -> str:
        figure = rate_figures.rate_distortion(points(["vq", "projected"]), codecs, palette(FEW))
        return " ".join(text.get_text() for text in figure.legends[0].get_texts())

    far = {"jpeg": {"mosaic": [point | {"psnr": point["psnr"] + 30} for point in CURVE]}}
    assert "codec" in legend(CODECS) and "codec" not in legend(far)


def test_rate_distortion_needs_neither_codecs_nor_curves():
    only = points(["vq"])
    assert len(rate_figures.rate_distortion(only, {}, palette(FEW)).axes) == 1
    assert image_bytes(rate_figures.rate_distortion(points(["identity", "projected"]), {}, palette(FEW)), "png")


def test_many_models_get_a_row_for_each_family_led_by_vq():
    rows = figures.by_family(MANY)
    assert list(rows) == ["the paper's projection", "controls", "ours", "interventions", "others"]
    assert all(models[0] == "vq" for models in rows.values())
    assert {model for models in rows.values() for model in models} == {*MANY} - {"identity"}
    assert figures.by_family(FEW) == {"": FEW}


def test_frequency_stacks_the_losses_and_shows_the_fraction():
    figure = question_figures.frequency(SETTINGS_OF_S, SETTINGS_OF_S[1:], "black")
    tops = [bar.get_y() + bar.get_height() for bar in figure.axes[0].patches]
    assert sum(np.isclose(tops, 0.03)) == 5 and sum(np.isclose(tops, 0.02)) == 5  # three of ours, two of the paper's
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), 10)


def test_no_curve_of_usage_leaves_the_axes():
    two = pd.concat([usage(["vq"]), usage(["vq"]).assign(run="vq-1")])
    last = (two["run"] == "vq-1") & (two["rank"] == 256)  # a mean over seeds lies below the least share of either
    figure = question_figures.codebook_usage(two.assign(share=two["share"].mask(last, 0)), palette(FEW))
    assert figure.axes[0].get_ylim()[0] < figure.axes[0].lines[0].get_ydata().min()


def test_gains_are_drawn_over_whole_bins():
    steps = question_figures.gain_distributions(*gain_frames(["projected"]), palette(FEW)).axes[0].patches[0]
    np.testing.assert_allclose(steps.get_data().edges, np.linspace(-2 - 2 / 19, 2 + 2 / 19, 21), atol=1e-9)


def test_gains_of_one_model_far_out_do_not_set_the_scale():
    near, _ = gain_frames(["vq", "projected"])
    far = near[near["model"] == "vq"].assign(model="identity", run="identity-0", middle=lambda own: 100 * own["middle"])
    figure = question_figures.gain_distributions(pd.concat([near, far]), far.head(0), palette(FEW))
    low, high = figure.axes[-1].get_xlim()
    assert len(figure.axes) == 3 and -12 < low < -2 and 2 < high < 12


def test_many_levels_of_gains_are_drawn_as_an_area_for_each_sign():
    gains, levels = gain_frames(["projected"])
    many = pd.concat([levels.assign(value=levels["value"] + shift) for shift in (0, 0.01)]).sort_values("value")
    few, area = (question_figures.gain_distributions(gains.head(0), frame, palette(FEW)).axes[0]
                 for frame in (levels, many))  # fmt: skip
    assert len(few.collections) == 1 and len(area.collections) == 2
    assert [(min(x) < 0, max(x) > 0) for x in (line.get_xdata() for line in area.lines[:2])] == [
        (True, False), (False, True)]  # fmt: skip


def test_stability_has_a_dot_for_every_run():
    figure = question_figures.stability(runs_of(["vq", "projected"]), palette(FEW))
    dots = [[line for line in ax.lines if line.get_linestyle() == "None"] for ax in figure.axes]
    assert [sum(len(line.get_xdata()) for line in lines) for lines in dots] == [6, 6, 6]
    without = runs_of(["vq"]).assign(least_used_norm=np.nan)
    assert len(question_figures.stability(without, palette(FEW)).axes) == 2


@pytest.mark.parametrize(("decades", "first"), [(1, {1, 2, 5, 10}), (3, {1, 2, 5, 10, 20, 50}), (9, {1})])
def test_a_log_axis_has_readable_numbers_over_any_range(decades, first):
    figure, top = Figure(figsize=(3, 1.5)), 1.01 * 10.0**decades
    ax = figure.subplots()
    figures.log_axis(ax, "y")
    ax.set_ylim(0.99, top)
    figure.draw_without_rendering()
    shown = [tick for tick in ax.yaxis.get_major_ticks() if 0.99 <= tick.get_loc() <= top]
    assert first <= {tick.get_loc() for tick in shown} and all(tick.label1.get_text() for tick in shown)
    assert 3 <= len(shown) <= 10
